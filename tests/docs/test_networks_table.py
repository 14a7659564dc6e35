"""docs/results/networks.md is the page that benchmarks/networks.py makes of its results; its rows hold today."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("networks_script", ROOT / "benchmarks" / "networks.py")
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)
RESULTS = json.loads(script.RESULTS.read_text())


def test_the_page_is_made_of_the_results():
    assert script.TABLE.read_text() == script.table(script.ordered(RESULTS))


@pytest.mark.parametrize("network", script.ordered(RESULTS))
def test_a_step_ran_in_both_precisions_wherever_a_rule_is_not_refused(network):
    rows = RESULTS[network]
    assert {"BP", "Checkpoint", "DGL", "PredSim", "InfoPro", "AugLocal"} <= rows.keys()
    assert {"HPFF(DGL)", "MAN(DGL)", "MLAAN(DGL)"} <= rows.keys()
    for name, row in rows.items():
        assert "refused" in row or (row["fp32"], row["bf16"]) == ("ok", "ok"), name


def test_every_family_is_there():
    families = {name.removeprefix("cifar-").partition(":")[2] or name.removeprefix("cifar-") for name in RESULTS}
    assert {"resnet32", "resnet34", "resnet101", "vgg13", "mobilenet-v2", "efficientnet-b0", "vit-tiny"} <= families
    assert {"regnet-x-400mf", "convnext_tiny", "vit_small_patch16_224"} <= families


@pytest.mark.parametrize(("network", "rule"), [("resnet32", "MAN(DGL)"), ("cifar-vit-tiny", "DGL")])
def test_costs_are_those_of_today(network, rule):
    found = script.costs(network, script.RULES[rule])
    recorded = RESULTS[network][rule]
    assert {name: found[name] for name in ("layers", "modules", "backbone", "auxiliary", "macs")} == {
        name: recorded[name] for name in ("layers", "modules", "backbone", "auxiliary", "macs")
    }
    assert found["peak"] <= recorded["peak"] * 1.001
