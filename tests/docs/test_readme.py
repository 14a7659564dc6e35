"""The README's code runs as it is printed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import locallearn as ll
from locallearn._utils.registry import names

README = (Path(__file__).parents[2] / "README.md").read_text()
FIVE_LINES, OWN_RULE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_five_lines_run(tmp_path, monkeypatch):
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(8, 3, 32, 32), torch.randint(0, 10, (8,)))
    (tmp_path / "five_lines.py").write_text(
        "from five_lines_around import loader, make_optimizer\n"
        + FIVE_LINES.replace("for images", "optimizer = make_optimizer(net.parameters())\nfor images")
    )
    (tmp_path / "five_lines_around.py").write_text("loader = make_optimizer = None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import five_lines_around as around  # pyright: ignore[reportMissingImports]

    around.loader = DataLoader(data, batch_size=4)
    around.make_optimizer = lambda parameters: torch.optim.AdamW(parameters, lr=1e-3)
    import five_lines  # pyright: ignore[reportMissingImports]

    assert five_lines.losses.shape == (13,)
    assert five_lines.logits.shape == (4, 10)


def test_the_own_rule_has_under_thirty_lines_and_trains(tmp_path, monkeypatch):
    assert len([line for line in OWN_RULE.splitlines() if line.strip()]) <= 30
    (tmp_path / "own_rule.py").write_text(OWN_RULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_rule", raising=False)
    import own_rule  # pyright: ignore[reportMissingImports]

    assert len(own_rule.net.objectives) == 10
    losses = own_rule.net.backward(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]))
    assert losses.shape == (10,)
    assert all(p.grad is not None for p in own_rule.net.parameters())


def test_the_own_rule_is_found_by_its_path_on_the_command_line(tmp_path, monkeypatch):
    from locallearn.cli.parser import parse_rule

    (tmp_path / "own_rule_package.py").write_text(OWN_RULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    rule = parse_rule("own_rule_package.PyramidHeads")
    assert isinstance(rule, ll.Rule)
    assert type(rule).__name__ == "PyramidHeads"


@pytest.mark.parametrize("name", names("rules"))
def test_every_rule_with_a_short_name_is_in_the_table(name):
    call = names("rules")[name].removeprefix("locallearn.")
    assert f"`{call}(" in README


@pytest.mark.parametrize("name", names("data"))
def test_every_data_set_is_in_the_readme_and_in_its_table(name):
    assert f"`{name}`" in README
    assert f"| `{name}` |" in (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def test_the_short_names_of_rules_are_ours():
    assert {
        *("bp", "checkpoint", "dgl", "dgl-original", "predsim", "predsim-original", "infopro", "infopro-original"),
        *("infopro-hpff", "infopro-imagenet"),
        *("auglocal", "auglocal-sequential", "auglocal-repetitive", "auglocal-convolutional", "by-stage", "pooling"),
        *("infopro-loss", "hilo", "pff", "hpff", "man", "mlm", "lam", "mlaan", "auglocal-imagenet"),
    } == set(names("rules"))
