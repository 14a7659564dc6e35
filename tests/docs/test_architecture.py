"""Imports follow docs/architecture.md: each package imports only packages below it, and nothing goes round."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import locallearn as ll

SOURCE = Path(ll.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
MOST_LINES = 400


def packages() -> dict[str, int]:
    """Each package of the page's table to its row, from the top."""
    table = PAGE.read_text().partition("| package |")[2].partition("\n\n")[0]
    return {name: row for row, name in enumerate(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))}


def module_name(file: Path) -> str:
    """`_engine.step` for `_engine/step.py`, `rules` for `rules/__init__.py`."""
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(file): file for file in SOURCE.rglob("*.py")}


def imports_of(file: Path) -> set[str]:
    """The modules of locallearn that a file imports, also in functions and for types alone; "" is locallearn itself."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        own = [name.removeprefix("locallearn").lstrip(".") for name in names if name.partition(".")[0] == "locallearn"]
        imported |= {name if name in MODULES else name.rpartition(".")[0] for name in own}
    return imported


IMPORTS = {name: imports_of(file) for name, file in MODULES.items() if name != "__main__"}


def cycle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """A cycle of a graph, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_package_is_in_the_table():
    assert {name.partition(".")[0] for name in IMPORTS if name} == set(packages())


@pytest.mark.parametrize("module", IMPORTS)
def test_imports_point_downward(module):
    row, own = packages(), module.partition(".")[0]
    row[""] = min(row[name.partition(".")[0]] for name in IMPORTS[""])  # locallearn itself imports what it exports
    upward = [name for name in IMPORTS[module] if row[name.partition(".")[0]] < row[own]]
    assert not upward, f"{module} imports {upward}, of a package above its own"


def test_no_files_import_each_other_in_a_circle():
    inside = {name: {other for other in found if other != name} for name, found in IMPORTS.items()}
    assert cycle_in(inside) == []


@pytest.mark.parametrize("depth", [1, 2])
def test_no_packages_import_each_other_in_a_circle(depth):
    def package(name: str) -> str:
        """The package, up to a depth, in which a file lies: the file itself where it lies higher."""
        return ".".join(name.split(".")[:depth])

    graph: dict[str, set[str]] = {}
    for name, found in IMPORTS.items():
        if MODULES[name].name != "__init__.py":  # it only exports
            graph.setdefault(package(name), set()).update(map(package, found))
    assert cycle_in({name: {other for other in found if other != name} for name, found in graph.items()}) == []


@pytest.mark.parametrize("module", MODULES)
def test_files_are_short_and_say_what_they_are_for(module):
    text = MODULES[module].read_text()
    assert text.count("\n") <= MOST_LINES
    assert ast.get_docstring(ast.parse(text))


def test_a_package_of_many_files_is_split():
    for folder in {file.parent for file in MODULES.values()} - {SOURCE}:
        assert len(list(folder.glob("*.py"))) <= 20, folder


def test_cycles_and_upward_imports_are_noticed(tmp_path):
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []
    assert cycle_in({"a": {"b", "c"}, "b": {"c"}}) == []
    file = tmp_path / "file.py"
    file.write_text("def f():\n    from locallearn._engine import step\n    import locallearn.rules.dgl\n")
    assert imports_of(file) == {"_engine.step", "rules.dgl"}
    for line in ("import locallearn", "import locallearn as ll", "from locallearn import __version__, LocalNet"):
        file.write_text(line)
        assert imports_of(file) == {""}
