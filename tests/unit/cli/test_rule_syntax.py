"""Wrappers on the command line."""

from __future__ import annotations

import json

import pytest

import locallearn as ll
from locallearn.cli.main import main
from locallearn.cli.parser import Parser, parse_rule
from locallearn.cli.rule_syntax import spelled_out
from locallearn.rules import Rule
from locallearn.training import RunFolder, TrainSettings, as_yaml

COMBINED = ll.HPFF(ll.MAN(ll.AugLocal(depth=3)), fidelity="paper")


def parsed(*arguments: str) -> Rule:
    parser = Parser(prog="locallearn")
    parser.add_argument("--rule", type=Rule)
    return parser.instantiate(parser.parse_args(spelled_out(arguments))).rule


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--rule", "dgl", "--with", "hpff", "man"], ll.HPFF(ll.MAN(ll.DGL()))),
        (["--with", "hpff", "man", "--rule", "dgl"], ll.HPFF(ll.MAN(ll.DGL()))),
        (["--rule=dgl", "--with=man"], ll.MAN(ll.DGL())),
        (["--rule", "auglocal", "--rule.depth", "3", "--with", "hpff(fidelity='paper')", "man"], COMBINED),
        (["--rule", "auglocal", "--with", "hpff(fidelity=paper)", "man", "--rule.depth=3"], COMBINED),
        (["--rule", "man(auglocal)", "--rule.rule.depth", "3", "--with", "hpff(fidelity=paper)"], COMBINED),
        (["--rule", "hpff(man(auglocal(depth=3)), fidelity='paper')"], COMBINED),
        (["--rule", "man(dgl)", "--rule", "mlaan"], ll.MLAAN()),
        (["--rule", "man(dgl-original, ema=false)"], ll.MAN(ll.DGL.original(), ema=False)),
        (["--rule", "man(dgl, learn-scale=true)"], ll.MAN(ll.DGL(), learn_scale=True)),
        (["--rule", "hpff(infopro-hpff)"], ll.HPFF(ll.InfoPro.published("hpff"))),
        (["--rule", "infopro", "--rule.lambda1", "[5, 1]"], ll.InfoPro(lambda1=(5.0, 1.0))),
        (["--rule", "infopro(task_loss='contrastive')", "--with", "pff"], ll.PFF(ll.InfoPro(task_loss="contrastive"))),
        (["--rule", "by-stage(rules=(dgl, pooling()))"], ll.ByStage(rules=(ll.DGL(), ll.Pooling()))),
        (["--rule", "locallearn.DGL", "--with", "locallearn.MAN"], ll.MAN(ll.DGL())),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_rule_is_read_as_it_is_written(arguments, rule):
    assert parsed(*arguments) == rule


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--rule man", "man wraps a rule: write man(dgl), or --rule dgl --with man."),
        ("--with man", "--with puts wrappers around a rule"),
        ("--rule dgl --with", "--with puts wrappers around a rule"),
        ("--rule dgl --with mann", "unknown rule 'mann'; did you mean 'man'?"),
        ("--rule dgl --with auglocal", "auglocal wraps no rule"),
        ("--rule dgl --with man(rule=pooling)", "man is given two rules to wrap"),
        ("--rule dgl --with man(dgl)", "cannot read"),
        ("--rule dgl(pooling)", "cannot read"),
        ("--rule dgl-original(hidden=2)", "dgl-original has no settings"),
        ("--rule bp --with man", "MAN changes auxiliary networks, and BP has none"),
        ("--rule dgl --with man man", "each puts a copy of the next layer before auxiliary networks"),
        ("--rule dgl --with hpff mlaan", "each puts cascades over the modules"),
        ("--rule auglocal --with mlaan", "AugLocal finds no later layer to imitate"),
        ("--rule dgl --with man(momentum=2)", "momentum=2.0 is outside [0, 1]"),
        ("--rule dgl --with man(momentum=None)", "momentum"),
        ("--rule dgl --with man --rule.x.y 3", "cannot set 'x.y' there"),
        ("--rule infopro(head='9x')", "head='9x': write how many convolutions"),
        ("--rule mlaan --modules 2", "puts cascades over 3 neighbouring modules, and there are 2"),
    ],
)
def test_a_mistake_gets_one_sentence(arguments, sentence, capsys):
    try:
        code = main(["cost", "--model", "resnet20", "--image", "3x16x16", *arguments.split()])
    except SystemExit as stopped:
        code = stopped.code
    assert code in (1, 2)
    told = capsys.readouterr().err
    assert sentence in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1


def test_cost_shows_a_combination_beside_bp(capsys):
    arguments = ["--model", "resnet20", "--image", "3x16x16", "--batch", "4", "--json"]
    assert main(["cost", *arguments, "--rule", "pooling", "--with", "mlm", "man"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["BP", "Checkpoint", "MLM(MAN(Pooling))"]


@pytest.mark.filterwarnings("default::locallearn.LocalLearnWarning")
def test_official_pff_without_decoders_is_told_once(capsys):
    arguments = ["--model", "resnet20", "--image", "3x16x16", "--batch", "4", "--json"]
    assert main(["cost", *arguments, "--rule", "dgl", "--with", "hpff"]) == 0
    told = capsys.readouterr().err
    assert told.startswith("note: PFF as in the official code patches decoders alone")
    assert told.count("note:") == 1


@pytest.mark.parametrize("rule", [COMBINED, ll.MAN(ll.DGL(), momentum=1), ll.ByStage(rules=(ll.DGL(), ll.Pooling()))])
def test_settings_of_a_combination_are_written_and_read_again(rule, tmp_path):
    from locallearn.cli.settings import read_settings

    settings = TrainSettings(rule=rule)
    folder = RunFolder(tmp_path / "run")
    folder.create(as_yaml(settings), device="cpu")
    assert read_settings(TrainSettings, folder) == settings
    folder.refuse_other_settings(as_yaml(read_settings(TrainSettings, folder)))


def test_parse_rule_reads_nested_rules():
    assert parse_rule("hpff(man(auglocal(depth=3)), fidelity='paper')") == COMBINED
