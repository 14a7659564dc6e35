"""`locallearn train --parallel modules --dry-run`: which process would train which local modules."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted
from locallearn.cli.console import mebibytes, show, show_json
from locallearn.training import Launch, TrainSettings, build, data_of
from locallearn.training.processes.grid import ProcessGrid, sizes_in
from locallearn.training.processes.predicted import process_rows


def show_assignment(settings: TrainSettings, *, json: bool) -> None:
    """Print the local modules of each process, with predicted time and memory of a step. Nothing is trained.

    Raises:
        LocalLearnError: the layout has no processes over modules, or their number is unknown.
    """
    layout = _layout(settings)
    images = data_of(settings)
    net = build(settings, images)
    own_batch = -(-min(settings.batch, len(images.train)) // layout.data)
    micro_batch = -(-own_batch // settings.accumulate)
    rows = process_rows(net, settings, layout, own_batch)
    if json:
        speedup = sum(row["share_of_slowest"] for row in rows)
        show_json({"layout": str(layout), "micro_batch": micro_batch, "speedup_of_modules": speedup, "processes": rows})
        return
    step = f"{settings.model}, {settings.rule}, {counted(micro_batch, 'image')} in a micro-batch"
    show_processes(f"{step}; time as a share of the slowest", rows)


def show_processes(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print what each process needs that trains some of the local modules; rows as of `processes.predicted`."""
    speedup = sum(row["share_of_slowest"] for row in rows)
    columns = ("process", "local modules", "time", "activations", "peak memory", "sent in a step")
    cells = [
        (
            ", ".join(map(str, row["processes"])),
            "{} to {}".format(*row["modules"]),
            f"{row['share_of_slowest']:.2f}",
            *(mebibytes(row[name]) for name in ("peak_activation_bytes", "peak_total_bytes", "sent_bytes")),
        )
        for row in rows
    ]
    show(f"{title}\nsteps are at most {speedup:.2f} times as fast as in one process", columns, cells, texts=2)


def _layout(settings: TrainSettings) -> ProcessGrid:
    sizes = {} if settings.parallel is None else sizes_in(settings.parallel)
    if "modules" not in sizes:
        raise LocalLearnError("--dry-run shows which process trains which modules: add --parallel modules=2.")
    launch = Launch.of()
    given = [size for size in sizes.values() if size is not None]
    if launch is None and len(given) < len(sizes):
        raise LocalLearnError("--dry-run without torchrun needs the number of processes: write --parallel modules=2.")
    return ProcessGrid.of(settings.parallel or "", prod(given) if launch is None else launch.count)
