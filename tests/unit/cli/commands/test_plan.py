"""`locallearn plan`, and `cost` module by module, as a person and as a machine use them."""

from __future__ import annotations

import json
import re
import shlex

import pytest
import yaml
from small_runs import stripes
from torch import Tensor

import locallearn as ll
from locallearn._engine.step import Step
from locallearn._utils.quantities import format_bytes
from locallearn.cli.commands.plan import parser as plan_parser
from locallearn.cli.main import main
from locallearn.cli.rule_syntax import normalised
from locallearn.cli.settings import read_settings
from locallearn.cli.step_options import step_of
from locallearn.cost import peak_memory
from locallearn.training import AdamW, RunFolder, TrainSettings, build, rule_text
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
    assert {one["rule"] for one in result["baselines"]} == {"bp", "checkpoint"}
    assert (tmp_path / "plan.svg").exists()
    assert "profiling the auxiliary networks of DGL" in err
    words = shlex.split(result["command"])
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert (given["--data"], given["--image-size"]) == ("DATA", "16")
    assert result["data"] == "DATA: a data set of 10 classes, whose images have 3 channels"
    modules = json.loads(given["--modules"])
    net = ll.localize(resnet20(), ll.DGL(), modules=modules, memory=given["--memory"], input_shape=(3, 16, 16))
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
    assert "the fastest that fits: locallearn train --model resnet20 --batch 64 --rule dgl --modules" in err


TINY = ["--model", "small_runs.plain", "--batch", "8", "--memory", "10MiB"]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--rule", "pooling"], "pooling"),
        (["--rules", "hilo(pooling, fidelity='paper')"], "hilo(pooling, fidelity='paper')"),
    ],
)
def test_the_command_gives_layers_by_name_where_numbers_are_names(options, rule, capsys):
    assert run("plan", *TINY, *options, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert all(name.isdigit() for name in result["best"]["modules"])
    words = shlex.split(result["command"])
    assert "--data" not in words  # the images are those of the default data set
    assert result["data"] is None
    assert words[words.index("--rule") + 1] == rule
    assert run(*words[1:], "--print_config") == 0
    assert yaml.safe_load(capsys.readouterr().out)["modules"] == result["best"]["modules"]


def test_images_that_are_not_square_need_a_data_set_of_their_own(capsys):
    assert run("plan", *TINY, "--rule", "pooling", "--image", "1x12x8", "--classes", "3", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["command"].endswith("--data DATA")
    assert result["data"] == "DATA: a data set of 3 classes, whose images have 1 channel and 12 x 8 pixels"


@pytest.mark.parametrize(
    ("options", "depths"),
    [
        (["--rule", "auglocal(depth=2)"], [2]),
        (["--rule", "auglocal", "--rule.depth", "2"], [2]),
        (["--rules", "auglocal(depth=2)", "pooling"], [2]),
        (["--rule", "auglocal", "--depths", "2", "3"], [2, 3]),
        (["--rule", "auglocal"], [2, 3, 4, 5, 6]),
    ],
)
def test_a_depth_that_is_given_is_kept(options, depths, capsys):
    assert run("plan", *TINY, "--image", "3x12x12", *options) == 0
    told = capsys.readouterr().err
    tried = [line for line in told.splitlines() if line.startswith("profiling the auxiliary networks of AugLocal")]
    assert tried == [f"profiling the auxiliary networks of AugLocal, depth {depth}" for depth in depths]
    left_out = [f"AugLocal, depth {depth} is left out: " for depth in depths[1:]]
    below = told[told.rindex("checking") :]
    assert all(sentence in below for sentence in left_out)
    assert ("time decides between these rules, not accuracy" in below) == ("--rules" in options)


def test_several_rules_stand_beside_bp_and_checkpointing(capsys):
    small = ["--model", "small_runs.plain", "--image", "3x12x12", "--batch", "8", "--memory", "10MiB"]
    assert run("plan", *small, "--rules", "dgl(hidden=1)", "pooling", "--json") == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert {one["rule"] for one in result["candidates"]} == {"dgl(hidden=1)", "pooling"}
    assert result["best"] in result["candidates"]
    assert {(one["rule"], one["memory"]) for one in result["baselines"]} == {
        (rule, memory) for rule in ("bp", "checkpoint") for memory in ("fast", "lean", "least")
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
        ("", "--memory is missing"),
        ("--memory 1GiB --rules auto --rule dgl", "--rules names the rules to look at: leave out --rule."),
        ("--memory 1GiB --rules auto dgl", "--rules auto looks at all rules: leave out the others."),
        ("--memory 1GiB --rules dlg", "unknown rule 'dlg'; did you mean 'dgl'?"),
        ("--memory 1GiB --rule dgl --depths 4", "--depths: there is no depth in DGL: leave it out."),
        ("--memory 1GiB --rules dgl man(dgl) --depths 4", "--depths: there is no depth in DGL and MAN(DGL)"),
        ("--memory 1GiB --rule auglocal(depth=3) --depths 6", "the depth of AugLocal is given, and --depths too"),
        ("--memory 1GiB --rule.depth 3 --depths 6", "the depth of AugLocal is given, and --depths too"),
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


def test_cost_keeps_the_row_of_bp_that_others_are_compared_to(capsys):
    tiny = ["--model", "small_runs.plain", "--image", "3x12x12", "--batch", "8", "--memory", "lean", "--json"]
    for rule, name in (("bp", "BP"), ("checkpoint", "Checkpoint")):
        assert run("cost", *tiny, "--rule", rule) == 0
        assert list(json.loads(capsys.readouterr().out)) == ["BP", "Checkpoint", f"{name}, lean"]


def test_a_budget_of_memory_is_that_of_the_rule_alone(capsys):
    tiny = ["--model", "small_runs.plain", "--image", "3x12x12", "--batch", "8", "--rule", "pooling"]
    assert run("cost", *tiny, "--modules", "memory:400KiB@8", "--json") == 0
    costs = json.loads(capsys.readouterr().out)
    assert costs["Pooling"]["peak"]["total"] <= 400 * 1024 < costs["BP"]["peak"]["total"]


OUT_OF_MEMORY = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")


@pytest.mark.parametrize("where", ["step", "test"])
@pytest.mark.parametrize("rule", ["dgl(hidden=1)", "bp"])
def test_where_memory_runs_out_in_training_the_command_plans_the_same_step(where, rule, capsys, monkeypatch, tmp_path):
    def run_or_fail(step: Step) -> Tensor:
        if type(step.images) is Tensor:  # predictions run on fake ones
            raise OUT_OF_MEMORY
        return run_step(step)

    def fail(*_: object, **__: object) -> None:
        raise OUT_OF_MEMORY

    run_step = Step.run
    if where == "step":
        monkeypatch.setattr(Step, "run", run_or_fail)
    else:
        monkeypatch.setattr("locallearn.training.fit.evaluate", fail)
    model = [
        "--model",
        "small_runs.little",
        "--layers",
        '["1", "5", "9"]',
        "--rule",
        rule,
        "--batch",
        "32",
        "--step",
        "module",
    ]
    step = [*model, "--optimizer", "adamw", "--optimizer.lr", "0.002", "--precision", "bf16"]
    data = ["--data", "small_runs.stripes", "--accumulate", "2", "--epochs", "1", "--out", str(tmp_path / "run")]
    assert run("train", *step, *data) == 1
    told = capsys.readouterr().err
    assert "Traceback" not in told
    event = (
        r"local modules? 0 .*with 16 images at a time\." if where == "step" else r"an optimizer's step or in a test\."
    )
    event, needs, command = re.search(rf"(ran out in {event}) (.*)To find settings that fit: (.*)", told).groups()
    values = plan_parser().instantiate(plan_parser().parse_args(normalised(shlex.split(command)[2:])))
    shape, settings, _ = step_of(values)
    asked = (values.model, values.layers, values.batch, values.classes, shape)
    assert asked == ("small_runs.little", ["1", "5", "9"], 32, 3, (3, 12, 12))
    assert (settings.optimizer, settings.precision, settings.step) == (AdamW(lr=0.002), "bf16", "module")
    assert (values.rules, rule_text(values.rule)) == ((["auto"], "auglocal") if rule == "bp" else (None, rule))
    images, of_run = stripes(tmp_path), read_settings(TrainSettings, RunFolder(tmp_path / "run"))
    predicted = peak_memory(build(of_run, images), 32, **of_run.step_options)
    assert f"needs {format_bytes(predicted.total)} by prediction" in needs
