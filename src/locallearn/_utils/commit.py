"""The commit of this library's code."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path


@cache
def commit_of_code() -> str:
    """The last commit that changed the code, with a plus where files differ from it; "" outside a Git repository."""
    folder = str(Path(__file__).parents[1])
    commit = _git(folder, "log", "-1", "--format=%h", "--", ".")
    return commit + "+" * bool(commit and _git(folder, "status", "--porcelain", "--", "."))


def _git(folder: str, *words: str) -> str:
    asked = ["git", "-C", folder, *words]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=False, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
