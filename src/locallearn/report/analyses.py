"""What `locallearn analyze` left in a run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.hashed_json import read_hashed_json
from locallearn._utils.optional_imports import optional
from locallearn.analysis import CKA, Probes

Read = TypeVar("Read")

_WIDEST = 1400
"""Pixels of a picture on the page; the files for print are in the run folder."""
_QUALITY = 82
_DRAWN_ANEW = ("probes", "cka-vs-")
"""Beginnings of names of pictures whose numbers the page draws itself."""


@dataclass(frozen=True, kw_only=True)
class Analyses:
    """All analyses of a run.

    Attributes:
        probes: linear probes, or None.
        similarities: with other runs, by their folders.
        pictures: PNG files of the others, such as t-SNE and feature maps.
    """

    probes: Probes | None
    similarities: Mapping[Path, CKA]
    pictures: tuple[Path, ...]


def read_analyses(run: Path) -> Analyses:
    """The analyses in a run folder.

    Raises:
        LocalLearnError: a file is damaged.
    """
    folder = run / "analysis"
    probes = folder / "probes.json"
    return Analyses(
        probes=_read(probes, Probes.of) if probes.exists() else None,
        similarities=dict(_read(file, _similarity) for file in sorted(folder.glob("cka-vs-*.json"))),
        pictures=tuple(
            file for file in sorted(folder.glob("*.png")) if not file.name.startswith(_DRAWN_ANEW) and file.is_file()
        ),
    )


def picture_for_page(path: Path) -> bytes:
    """A picture as WebP, at most as wide as the page shows it.

    Raises:
        LocalLearnError: it is no picture.
    """
    pillow = optional("PIL.Image")
    try:
        with pillow.open(path) as image:
            image = image.convert("RGB")
            image.thumbnail((_WIDEST, 4 * _WIDEST))
            memory = BytesIO()
            image.save(memory, "WEBP", quality=_QUALITY)
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
        raise LocalLearnError(f"{path} is damaged: it is no picture. {_remedy(path)}.") from error
    return memory.getvalue()


def _read(path: Path, make: Callable[[Mapping[str, Any]], Read]) -> Read:
    try:
        return make(read_hashed_json(path, remedy=_remedy(path)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, LocalLearnError):
            raise
        raise LocalLearnError(f"{path} is damaged: it lacks what an analysis holds. {_remedy(path)}.") from error


def _remedy(path: Path) -> str:
    return f"Delete it, or run locallearn analyze on {path.parent.parent} again"


def _similarity(values: Mapping[str, Any]) -> tuple[Path, CKA]:
    return Path(values["against"]), CKA.of(values)
