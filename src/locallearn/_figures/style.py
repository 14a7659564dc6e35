"""How every figure looks and is written: as wide as a paper's column, in colours that all eyes tell apart."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from locallearn._utils.atomic_files import write_whole
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.optional_imports import optional
from locallearn._utils.outputs import refuse_unwritable

COLUMN = 3.4
"""Width of a paper's column, in inches."""
PAGE = 7.0
"""Width of both columns, in inches."""
FORMATS = ("png", "svg", "pdf")
"""Those that `save_all` writes."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555", "#8C510A")
"""Okabe and Ito's palette (2008), without its yellow and black: told apart with any colour vision."""
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_MARKERS = "osD^vPX<"

_STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "locallearn",  # the same figure has the same bytes
    "pdf.fonttype": 42,  # as publishers ask
    "savefig.dpi": 300,
}


@contextmanager
def print_style() -> Iterator[None]:
    """Matplotlib's settings for what is drawn within; also a decorator of a function that draws."""
    with optional("matplotlib").rc_context(_STYLE):
        yield


def new_figure(*, width: float = COLUMN, height: float = 2.4) -> Any:
    """An empty matplotlib figure that no window shows, so that many can be drawn in one process.

    Args:
        width: in inches.
        height: in inches.
    """
    return optional("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def line_styles(count: int) -> list[dict[str, Any]]:
    """Keyword arguments of matplotlib's `plot` for each of `count` lines, which differ in print without colour too."""
    looks = zip(cycle(COLOURS), cycle(_DASHES), cycle(_MARKERS), strict=False)
    return [{"color": c, "linestyle": d, "marker": m} for c, d, m in islice(looks, count)]


def save(figure: Any, path: Path) -> None:
    """Write a figure to a whole file.

    Args:
        figure: the figure.
        path: the file; its ending gives the format: .png, .svg, .pdf ...

    Raises:
        LocalLearnError: the ending is no format.
    """
    write_whole(path, as_bytes(figure, _format_of(path)))


def refuse_picture(path: Path) -> None:
    """Refuse a picture that cannot be written, before anything is computed for it.

    Raises:
        LocalLearnError: its ending is no format, or it cannot be written there.
    """
    _format_of(path)
    refuse_unwritable(path, "picture.png")


def _format_of(path: Path) -> str:
    kind = path.suffix.lstrip(".").lower()
    known = optional("matplotlib.backend_bases").FigureCanvasBase.get_supported_filetypes()
    if kind not in known:
        raise LocalLearnError(f"{path}: a picture's name must end in one of {', '.join(f'.{k}' for k in known)}.")
    return kind


def as_bytes(figure: Any, kind: str) -> bytes:
    """A figure as the content of a file of this format ("png", "svg", "pdf")."""
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    memory = BytesIO()
    with print_style():
        figure.savefig(memory, format=kind, metadata=dates.get(kind))
    return memory.getvalue()


def save_all(figure: Any, stem: Path) -> list[Path]:
    """Write a figure in each of `FORMATS`; the files, of which `stem` is the name without the ending."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in FORMATS]
    for path in paths:
        save(figure, path)
    return paths


def remove_earlier(names: Collection[str], folder: Path) -> None:
    """Remove numbered figures that an earlier comparison of more runs left, such as `schedule-2` beside `schedule-0`.

    Args:
        names: of the figures that are there now, without endings.
        folder: of the figures.
    """
    numbered = re.compile(r"(.+)-\d+")
    kinds = {match[1] for name in names if (match := numbered.fullmatch(name))}
    for file in folder.iterdir():
        match = numbered.fullmatch(file.stem)
        if match and match[1] in kinds and file.stem not in names and file.suffix.lstrip(".") in FORMATS:
            file.unlink()
