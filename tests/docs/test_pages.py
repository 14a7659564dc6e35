"""The pages under docs/: their code runs, their links lead somewhere, their tables are complete."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

import locallearn as ll
from locallearn._engine.step import Step
from locallearn._utils.registry import names
from locallearn.recipes.page import page as page_of_results

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


def code_of(page: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


OWN_RULE, OWN_LAYER = code_of("extending.md")


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http:", "https:")):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


def imported(name: str, source: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A module with this source."""
    (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return __import__(name)


def test_the_own_rule_has_under_thirty_lines_and_trains(tmp_path, monkeypatch):
    assert len([line for line in OWN_RULE.splitlines() if line.strip()]) <= 30
    net = imported("own_rule", OWN_RULE, tmp_path, monkeypatch).net
    assert len(net.objectives) == 10
    assert net.backward(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])).shape == (10,)
    assert all(p.grad is not None for p in net.parameters())


def test_the_own_rule_works_by_its_path_on_the_command_line(tmp_path, monkeypatch):
    from locallearn.cli.parser import parse_rule

    (tmp_path / "own_rule_package.py").write_text(OWN_RULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    rule = parse_rule("own_rule_package.PyramidHeads")
    assert isinstance(rule, ll.Rule)
    assert type(rule).__name__ == "PyramidHeads"


def test_the_own_layer_has_another_width_and_stride(tmp_path, monkeypatch):
    page = imported("own_layer", f"{OWN_RULE}\n\n{OWN_LAYER}", tmp_path, monkeypatch)
    layer = ll.new_layer_like(page.MyBlock(8, 16), in_channels=4, stride=2)
    assert type(layer) is page.MyBlock
    assert layer(torch.randn(2, 4, 8, 8)).shape == (2, 16, 4, 4)


def test_the_training_loops_change_every_trainable_parameter(tmp_path, monkeypatch):
    first, *loops = code_of("training.md")
    assert len(loops) == 3
    for number, loop in enumerate(loops):
        source = f"{first}\nbefore = [p.clone() for p in net.parameters()]\nfrom networks import batch\n"
        source += f"loader = [batch(4, (3, 32, 32))]\n{loop}"
        page = imported(f"training_loop_{number}", source, tmp_path, monkeypatch)
        changed = [not torch.equal(a, p) for a, p in zip(page.before, page.net.parameters(), strict=True)]
        assert sum(changed) / len(changed) > 0.9, "biases before a normalisation have no gradient"


def test_the_pseudocode_of_the_step_names_the_methods_of_the_step():
    (pseudocode,) = re.findall(r"```\n(run:.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL)
    methods = re.findall(r"^(\w+):$", pseudocode, re.MULTILINE)
    public = [name for name, value in vars(Step).items() if callable(value) and not name.startswith("_")]
    assert methods == public
    assert all(pseudocode.count(name) > 1 for name in methods[1:]), "each is called by another"


@pytest.mark.parametrize("name", names("rules"))
def test_every_rule_with_a_short_name_is_in_the_table(name):
    call = names("rules")[name].removeprefix("locallearn.")
    assert f"`{call}(" in (ROOT / "docs" / "rules.md").read_text()


@pytest.mark.parametrize("name", names("data"))
def test_every_data_set_is_in_its_table(name):
    assert f"| `{name}` |" in (ROOT / "docs" / "data.md").read_text()


def test_the_short_names_of_rules_are_ours():
    assert {
        *("bp", "checkpoint", "dgl", "dgl-original", "predsim", "predsim-original", "infopro", "infopro-original"),
        *("infopro-hpff", "infopro-imagenet", "dgl-manpp", "manpp", "reduced"),
        *("auglocal", "auglocal-sequential", "auglocal-repetitive", "auglocal-convolutional", "by-stage", "pooling"),
        *("infopro-loss", "hilo", "pff", "hpff", "man", "mlm", "lam", "mlaan", "auglocal-imagenet"),
    } == set(names("rules"))


def test_the_page_of_results_is_written_from_the_tables():
    folder = ROOT / "docs" / "results"
    assert page_of_results(folder) == (folder / "README.md").read_text()
