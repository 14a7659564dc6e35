"""The one place that imports what `import locallearn` does not need."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from locallearn._utils.errors import LocalLearnError


def optional(name: str, *, extra: str = "cli") -> ModuleType:
    """Import `name`, or say which `pip install` line brings it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).split(".")[0]
        raise LocalLearnError(f"{missing} is not installed: run pip install 'locallearn[{extra}]'.") from error
