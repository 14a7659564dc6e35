"""What `locallearn analyze` left in a run folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.hashed_json import read_hashed_json
from locallearn._utils.optional_imports import optional
from locallearn.analysis import Probes

_WIDEST = 1400
"""Pixels of a picture on the page; the files for print are in the run folder."""
_QUALITY = 82
_DRAWN_ANEW = ("probes", "cka-vs-")
"""Beginnings of names of pictures whose numbers the page draws itself."""


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Linear CKA with another run.

    Attributes:
        against: the other run folder.
        layers, against_layers: names.
        per_layer: of equal layers; empty for different networks.
        matrix: of all pairs, (layers, against_layers).
    """

    against: Path
    layers: tuple[str, ...]
    against_layers: tuple[str, ...]
    per_layer: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Analyses:
    """All analyses of a run.

    Attributes:
        probes: linear probes, or None.
        similarities: with other runs.
        pictures: PNG files of the others, such as t-SNE and feature maps.
    """

    probes: Probes | None
    similarities: tuple[Similarity, ...]
    pictures: tuple[Path, ...]


def read_analyses(run: Path) -> Analyses:
    """The analyses in a run folder.

    Raises:
        LocalLearnError: a file is damaged.
    """
    folder = run / "analysis"
    probes = folder / "probes.json"
    return Analyses(
        probes=_read(probes, _probes, run) if probes.exists() else None,
        similarities=tuple(_read(file, _similarity, run) for file in sorted(folder.glob("cka-vs-*.json"))),
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


def _read(path: Path, make: Callable[[dict[str, Any]], Any], run: Path) -> Any:
    try:
        return make(read_hashed_json(path, remedy=_remedy(path)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, LocalLearnError):
            raise
        raise LocalLearnError(f"{path} is damaged: it lacks what an analysis holds. {_remedy(path)}.") from error


def _remedy(path: Path) -> str:
    return f"Delete it, or run locallearn analyze on {path.parent.parent} again"


def _probes(value: dict[str, Any]) -> Probes:
    layers = _texts(value["layers"])
    heads = {str(layer): _number(accuracy) for layer, accuracy in value["heads"].items()}
    return Probes(layers=layers, accuracy=_numbers(value["accuracy"], len(layers)), heads=heads)


def _similarity(value: dict[str, Any]) -> Similarity:
    layers, others = _texts(value["layers"]), _texts(value["against_layers"])
    rows = value["matrix"]
    if len(rows) != len(layers):
        raise ValueError
    return Similarity(
        against=Path(value["against"]),
        layers=layers,
        against_layers=others,
        per_layer=_numbers(value["per_layer"], len(layers)) if value["per_layer"] else (),
        matrix=tuple(_numbers(row, len(others)) for row in rows),
    )


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not values:
        raise ValueError
    return tuple(map(str, values))


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != count:
        raise ValueError
    return tuple(map(_number, values))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
