"""Rules and wrappers as the command line reads them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from command_line import run

import locallearn as ll
from locallearn._utils.errors import LocalLearnError
from locallearn.cli.main import main
from locallearn.cli.parser import Parser, parse_rule
from locallearn.cli.rule_syntax import normalised
from locallearn.rules import Rule
from locallearn.training import RunFolder, TrainSettings
from locallearn.training.settings.text import plain_settings

COMBINED = ll.HPFF(ll.MAN(ll.AugLocal(depth=3)), fidelity="paper")


def parsed(*arguments: str) -> Rule:
    parser = Parser(prog="locallearn")
    parser.add_argument("--rule", type=Rule)
    return parser.instantiate(parser.parse_args(normalised(arguments))).rule


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--rule", "hpff(man(dgl))"], ll.HPFF(ll.MAN(ll.DGL()))),
        (["--rule=man(dgl)"], ll.MAN(ll.DGL())),
        (["--rule", "hpff(man(auglocal(depth=3)), fidelity='paper')"], COMBINED),
        (["--rule", "hpff(man(auglocal), fidelity=paper)", "--rule.rule.rule.depth", "3"], COMBINED),
        (["--rule", "man(dgl)", "--rule", "mlaan"], ll.MLAAN()),
        (["--rule", "man(dgl-original, ema=false)"], ll.MAN(ll.DGL.original(), ema=False)),
        (["--rule", "man(dgl, bias=false)"], ll.MAN(ll.DGL(), bias=False)),
        (["--rule", "hpff(infopro-hpff)"], ll.HPFF(ll.InfoPro.published("hpff"))),
        (["--rule", "infopro", "--rule.lambda1", "[5, 1]"], ll.InfoPro(lambda1=(5.0, 1.0))),
        (["--rule", "pff(infopro(task_loss='contrastive'))"], ll.PFF(ll.InfoPro(task_loss="contrastive"))),
        (["--rule", "by-stage(rules=(dgl, pooling()))"], ll.ByStage(rules=(ll.DGL(), ll.Pooling()))),
        (["--rule", "locallearn.MAN(locallearn.DGL)"], ll.MAN(ll.DGL())),
        (["--rule", "man(rule=DGL)"], ll.MAN(ll.DGL())),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_rule_is_read_as_it_is_written(arguments, rule):
    assert parsed(*arguments) == rule


def error_of(arguments: list[str], capsys) -> str:
    """The one sentence that a command ends in."""
    assert run(*arguments) in (1, 2)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    return error


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--rule man", "man wraps a rule: write man(dgl)."),
        ("--rule mann(dgl)", "unknown rule 'mann'; did you mean 'man'?"),
        ("--rule man(dgl,rule=pooling)", "man is given two rules to wrap"),
        ("--rule man(dgl,pooling)", "cannot read 'man(dgl,pooling)': write settings as man(name=value, ...)."),
        ("--rule man(dgl", "cannot read"),
        ("--rule dgl(pooling)", "cannot read"),
        ("--rule dgl-original(hidden=2)", "dgl-original has no settings"),
        ("--rule man(bp)", "MAN changes auxiliary networks, and BP has none"),
        (
            "--rule.depth 3 --rule auglocal",
            "--rule.depth stands before --rule, which would undo it: write --rule first",
        ),
        ("--rule man(man(dgl))", "each puts a copy of the next layer before auxiliary networks"),
        ("--rule hpff(mlaan(dgl))", "each puts cascades over the modules"),
        ("--rule mlaan(auglocal)", "AugLocal finds no later layer to imitate"),
        ("--rule man(dgl,momentum=2)", "momentum=2.0 is outside [0, 1]"),
        ("--rule man(dgl,momentum=None)", "momentum"),
        ("--rule infopro(head='9x')", "head='9x': write how many convolutions"),
        ("--rule mlaan --modules 2", "puts cascades over 3 neighbouring modules, and there are 2"),
    ],
)
def test_a_mistake_gets_one_sentence(arguments, sentence, capsys):
    assert sentence in error_of(["cost", "--model", "resnet20", "--image", "3x16x16", *arguments.split()], capsys)


def test_cost_shows_a_combination_beside_bp(capsys):
    arguments = ["--model", "resnet20", "--image", "3x16x16", "--batch", "4", "--json"]
    assert main(["cost", *arguments, "--rule", "mlm(man(pooling))"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["BP", "Checkpoint", "MLM(MAN(Pooling))"]


@pytest.mark.filterwarnings("default::locallearn.LocalLearnWarning")
def test_official_pff_without_decoders_is_told_once(capsys):
    arguments = ["--model", "resnet20", "--image", "3x16x16", "--batch", "4", "--json"]
    assert main(["cost", *arguments, "--rule", "hpff(dgl)"]) == 0
    (note,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert note.startswith("note: PFF as in the official code patches decoders alone")


@pytest.mark.parametrize("rule", [COMBINED, ll.MAN(ll.DGL(), momentum=1), ll.ByStage(rules=(ll.DGL(), ll.Pooling()))])
def test_settings_of_a_combination_are_written_and_read_again(rule, tmp_path):
    from locallearn.cli.settings import read_settings

    settings = TrainSettings(rule=rule)
    folder = RunFolder(tmp_path / "run")
    with folder.opened(settings, resume=False, device="cpu"):
        pass
    assert read_settings(TrainSettings, folder) == settings
    folder.refuse_other_settings(read_settings(TrainSettings, folder))


def test_a_run_of_before_a_setting_came_had_its_default(tmp_path):
    settings = TrainSettings(rule=ll.MAN(ll.DGL()))
    folder = RunFolder(tmp_path / "run")
    with folder.opened(settings, resume=False, device="cpu"):
        pass
    saved = plain_settings(settings)
    del saved["loggers"], saved["rule"]["init_args"]["rule"]["init_args"]["channels"]
    folder.settings.write_text(yaml.safe_dump(saved))
    folder.refuse_other_settings(settings)
    with pytest.raises(LocalLearnError, match="a run with other settings"):
        folder.refuse_other_settings(replace(settings, loggers=()))


def test_parse_rule_reads_nested_rules():
    assert parse_rule("hpff(man(auglocal(depth=3)), fidelity='paper')") == COMBINED
