"""The rooms of docs/architecture.md hold every file, and imports point only downward."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import locallearn as ll

SOURCE = Path(ll.__file__).parent
PAGE = SOURCE.parents[1] / "docs" / "architecture.md"


def rooms() -> dict[str, int]:
    """Each file, or folder, of the table to the number of its row, from the top."""
    table = PAGE.read_text().partition("| room |")[2].partition("\n\n")[0]
    files = [row.split("|")[2] for row in table.splitlines()[2:]]
    return {name.rstrip("/"): index for index, row in enumerate(files) for name in re.findall("`([^`]+)`", row)}


def imported(file: Path) -> set[str]:
    """Files and folders of the package that a file imports, in functions and for types too."""
    found = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{alias.name}" for node in found for alias in node.names}
    parts = {name.split(".")[1] for name in names if name.startswith("locallearn.")}
    return {part if (SOURCE / part).is_dir() else f"{part}.py" for part in parts}


def test_every_import_goes_to_a_room_below():
    room = rooms()
    for file in SOURCE.rglob("*.py"):
        own = file.relative_to(SOURCE).parts[0]
        if own not in ("__init__.py", "__main__.py"):
            upward = [name for name in imported(file) if room.get(name, room[own]) < room[own]]
            assert not upward, f"{own} imports {upward}, of a room above its own"


def test_every_file_of_the_table_is_there():
    assert all((SOURCE / name).exists() for name in rooms())
