"""All recipes, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from functools import cache
from types import MappingProxyType

from locallearn._utils.errors import LocalLearnError, did_you_mean
from locallearn.recipes import auglocal, hpff, man, mlaan
from locallearn.recipes.recipe import Recipe
from locallearn.recipes.recommended import RECOMMENDED

IN_TEXT = "-paper"
"""The end of a recipe's name that asks for the paper's settings instead of the official code's."""


@cache
def recipes() -> Mapping[str, Recipe]:
    """Each published recipe by its name, in the order of the papers' tables."""
    found: dict[str, Recipe] = {}
    for paper in (auglocal, hpff, mlaan, man):
        for recipe in paper.recipes():
            assert recipe.name not in found, recipe.name
            found[recipe.name] = recipe
    return MappingProxyType(found)


def matching(pattern: str) -> list[Recipe]:
    """The recipes whose name has a pattern such as `table1` or `hpff/*resnet32*` in it; * stands for anything.

    `RECOMMENDED` is the first of all.

    Raises:
        LocalLearnError: there is none.
    """
    found = [one for one in (RECOMMENDED, *recipes().values()) if fnmatch(one.name, f"*{pattern}*")]
    if not found:
        raise LocalLearnError(f"no recipe has {pattern!r} in its name; {did_you_mean(pattern, tables())}")
    return found


def tables() -> list[str]:
    """The names of all tables, such as `hpff/table1`."""
    return list(dict.fromkeys(recipe.table for recipe in recipes().values()))


def rows_of(table: str) -> list[Recipe]:
    """A table's recipes.

    Raises:
        LocalLearnError: there is no such table.
    """
    found = [recipe for recipe in recipes().values() if recipe.table == table.lower()]
    if not found:
        raise LocalLearnError(f"no table is called {table!r}; {did_you_mean(table, tables())}")
    return found


def matching_rows(found: Sequence[Recipe], patterns: Sequence[str]) -> list[Recipe]:
    """The recipes of a table whose row has any of some patterns as its name or, where none has, in its name.

    Raises:
        LocalLearnError: a pattern is in none.
    """
    rows = [recipe.row for recipe in found]
    named = {part: [part] if part in rows else [row for row in rows if fnmatch(row, f"*{part}*")] for part in patterns}
    for pattern, matching in named.items():
        if not matching:
            near = did_you_mean(pattern, rows)
            raise LocalLearnError(f"no row has {pattern!r} in its name; {near}")
    return [recipe for recipe in found if any(recipe.row in matching for matching in named.values())]


def find(name: str) -> Recipe:
    """A recipe by its name; one that ends with `-paper` has the paper's settings.

    Raises:
        LocalLearnError: there is none, or the library cannot run it.
    """
    recipe = RECOMMENDED if name == RECOMMENDED.name else recipes().get(name)
    if recipe is None and name.endswith(IN_TEXT) and (official := recipes().get(name.removesuffix(IN_TEXT))):
        recipe = replace(official, name=name, settings=official.paper or official.settings)
    if recipe is None:
        raise LocalLearnError(f"no recipe is called {name!r}; {_meant(name)}")
    if recipe.missing:
        raise LocalLearnError(f"recipe {name} cannot run: {recipe.missing}.")
    return recipe


def _meant(name: str) -> str:
    """The nearest recipe of the same table, or the nearest table."""
    table = name.rpartition("/")[0]
    if not table:
        example = "hpff/table1/cifar10-resnet32-dgl"
        return f"write paper, table and row, as in {example}, or recommended; locallearn list recipes shows all."
    inside = [recipe.name for recipe in recipes().values() if recipe.table == table]
    if inside:
        return f"{did_you_mean(name, inside)} locallearn list recipes {table} shows them."
    return f"there is no table {table!r}; {did_you_mean(table, tables())}"
