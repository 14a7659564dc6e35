"""`locallearn plan`, and `cost` module by module, as a person and as a machine use them."""

from __future__ import annotations

import json
import shlex

import pytest
import yaml
from torch import Tensor

import locallearn as ll
from locallearn._engine.step import Step
from locallearn.cli.main import main
from locallearn.cost import peak_memory
from locallearn.training import AdamW
from locallearn.training.settings.text import plain
from networks import resnet20

SMALL = ["--model", "resnet20", "--rule", "dgl", "--image", "3x16x16", "--batch", "64"]


def run(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def test_the_plan_as_json_with_a_plot_and_a_command_that_fits(capsys, tmp_path):
    assert run("plan", *SMALL, "--memory", "15MiB", "--plot", str(tmp_path / "plan.svg"), "--json") == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["budget"] == 15 * 2**20 >= result["best"]["peak"]
    assert result["best"] in result["candidates"]
    assert [one["rule"] for one in result["baselines"]] == ["bp", "checkpoint"]
    assert (tmp_path / "plan.svg").exists()
    assert "profiling the auxiliary networks of DGL" in err
    words = shlex.split(result["command"])
    given = dict(zip(words[2::2], words[3::2], strict=True))
    net = ll.localize(
        resnet20(), ll.DGL(), modules=given["--modules"], memory=given["--memory"], input_shape=(3, 16, 16)
    )
    assert [net.chain.names[end] for end in net.partition.ends] == result["best"]["modules"]
    assert peak_memory(net, 64).total == pytest.approx(result["best"]["peak"], rel=0.01)


def test_the_command_has_the_layers_and_the_optimizer_that_were_planned_with(capsys):
    options = ["--optimizer", "AdamW", "--optimizer.lr", "0.002", "--layers", "[relu, layer1, layer2, layer3]"]
    assert run("plan", *SMALL, *options, "--memory", "1GB", "--json") == 0
    words = shlex.split(json.loads(capsys.readouterr().out)["command"])
    assert run(*words[1:], "--print_config") == 0
    given = yaml.safe_load(capsys.readouterr().out)
    assert given["optimizer"] == plain(AdamW(lr=0.002))
    assert given["layers"] == ["relu", "layer1", "layer2", "layer3"]


def test_the_plan_as_a_table(capsys):
    assert run("plan", *SMALL, "--memory", "1GB") == 0
    out, err = capsys.readouterr()
    assert "checkpoint" in out
    assert "time x BP" in out
    assert "backpropagation is the better choice: it fits too" in err
    assert "the fastest that fits: locallearn train --model resnet20 --rule 'dgl' --modules" in err


def test_several_rules_stand_beside_bp_and_checkpointing(capsys):
    small = ["--model", "small_runs.plain", "--image", "3x12x12", "--batch", "8", "--memory", "10MiB"]
    assert run("plan", *small, "--rules", "dgl(hidden=1)", "pooling", "--json") == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert {one["rule"] for one in result["candidates"]} == {"dgl(hidden=1)", "pooling"}
    assert result["best"] in result["candidates"]
    assert {(one["rule"], one["memory"]) for one in result["baselines"]} == {
        (rule, memory) for rule in ("bp", "checkpoint") for memory in ("fast", "lean")
    }
    assert "BP" in result["advice"] or "checkpointing" in result["advice"]
    assert err.count("profiling the backbone") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--memory 1XB", "'1XB' is no amount of memory: write a number and a unit"),
        ("--memory 12", "'12' is no amount of memory"),
        ("--memory 1GiB --batch 0", "--batch must be at least 1"),
        ("--memory 1GiB --image 3x32", "write channels, height and width"),
        ("--memory 1GiB --rule bp", "no auxiliary networks"),
        ("--memory 1GiB --rule.depth 0", "depth=0"),
        ("", "MEMORY is missing"),
        ("--memory 1GiB --rules auto --rule dgl", "--rules names the rules to look at: leave out --rule."),
        ("--memory 1GiB --rules auto dgl", "--rules auto looks at all rules: leave out the others."),
        ("--memory 1GiB --rules dlg", "unknown rule 'dlg'; did you mean 'dgl'?"),
    ],
)
def test_bad_input_is_one_sentence(capsys, arguments, sentence):
    assert run("plan", *arguments.split()) in (1, 2)
    err = capsys.readouterr().err
    assert sentence in err
    assert "Traceback" not in err


def test_cost_shows_bytes_by_module_and_draws_them(capsys, tmp_path):
    picture = ["--picture", str(tmp_path / "bytes.png")]
    assert run("cost", *SMALL, "--modules", "peak:3", "--by-module", *picture) == 0
    out, err = capsys.readouterr()
    assert "auxiliary adds" in out
    assert [line for line in err.splitlines() if line.startswith("counting a step of")] == [
        f"counting a step of {rule}" for rule in ("BP", "Checkpoint", "DGL")
    ]
    assert (tmp_path / "bytes.png").read_bytes().startswith(b"\x89PNG")
    assert run("cost", *SMALL, "--modules", "peak:3", "--by-module", "--processes", "2", "--json") == 0
    costs = json.loads(capsys.readouterr().out)["DGL"]
    assert len(costs["module_bytes"]) == 3
    first, second = costs["processes"]
    assert [first["modules"][0], second["modules"][1]] == [0, 2]
    assert max(first["peak_activation_bytes"], second["peak_activation_bytes"]) <= costs["peak"]["activations"] * 1.1


def test_the_error_for_memory_that_runs_out_in_training_has_a_plan_command(capsys, monkeypatch, tmp_path):
    def run_or_fail(step: Step) -> Tensor:
        if type(step.images) is Tensor:  # predictions run on fake ones
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return run_step(step)

    run_step = Step.run
    monkeypatch.setattr(Step, "run", run_or_fail)
    model = ["--model", "small_runs.little", "--data", "small_runs.stripes", "--batch", "32", "--rule", "auglocal"]
    assert run("train", *model, "--rule.depth", "2", "--out", str(tmp_path / "run")) == 1
    err = capsys.readouterr().err
    assert "error: memory ran out in local module 0" in err
    assert "locallearn plan --model small_runs.little --rule 'auglocal(depth=2)' --batch 32 --memory " in err
