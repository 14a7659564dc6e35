"""Two processes of one thread each: data parallel, module parallel, and PyTorch's pipeline of backpropagation.

    python benchmarks/parallel.py --out benchmarks/results/parallel.json

All layouts run in turn in the same two processes, each on a core of its own, and medians are over rounds. Two processes
that have nothing to do with each other come first: s is their images a second over those of one, the most that two
processes reach on this machine. Data parallel is run twice: the processes share a batch, or have a whole one each, as
those two do. Beside measured times stand those that `locallearn.simulation` gives for the measured
times of modules and the measured link. Memory and traffic are counted afterwards, each layout in processes of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import _two_processes
import locallearn as ll
from _bench import machine
from _two_processes import PROCESSES, net_of
from locallearn._engine.local_net import GRADIENT_BUCKET
from locallearn.cost import peak_memory
from locallearn.simulation import Link, Load, Outcome, assign, data_parallel, module_parallel, pipeline

RULES = {"dgl": ll.DGL(), "auglocal": ll.AugLocal(depth=2), "hilo": ll.HiLo(ll.DGL())}


def spawned(function: Any, folder: Path, *arguments: Any) -> None:
    (folder / "store").unlink(missing_ok=True)
    torch.multiprocessing.spawn(  # pyright: ignore[reportPrivateImportUsage]
        function, args=(str(folder), *arguments), nprocs=PROCESSES
    )


def simulated(layout: str, found: dict[str, Any], batch: int) -> Outcome | None:
    """What the simulation says of a layout, with times of modules for as many images as a process has at once."""
    bytes_per_second, latency = found["link"]
    link = Link(bytes_per_second=bytes_per_second, latency=latency)
    loads: dict[tuple[str, int], Load] = found["loads"]
    match layout.split(", "):
        case name, "data":
            load = loads[name, batch // PROCESSES]
            return data_parallel(layout, load, link, devices=PROCESSES, batch=batch, bucket=GRADIENT_BUCKET)
        case name, "data", _:
            whole, load = batch * PROCESSES, loads[name, batch]
            return data_parallel(layout, load, link, devices=PROCESSES, batch=whole, bucket=GRADIENT_BUCKET)
        case name, "modules":
            return module_parallel(loads[name, batch], link, stages=PROCESSES, copies=1, batch=batch)
        case name, "1F1B", count:
            load, count = loads[name, batch // int(count)], int(count)
            return pipeline("1F1B", load, link, stages=PROCESSES, copies=1, batch=batch, micro_batches=count)
    return None


def images_at_once(layout: str, batch: int) -> int:
    """Images of which a BatchNorm sees the statistics."""
    match layout.split(", "):
        case _, "data":
            return batch // PROCESSES
        case _, "1F1B", count:
            return batch // int(count)
    return batch


def times(found: dict[str, Any], batch: int) -> dict[str, dict[str, Any]]:
    """Rows of layouts: images a second, the same over one process, over s, share of idle time, and as simulated."""
    seconds = {name: median(samples) for name, samples in found["seconds"].items()}
    rows: dict[str, dict[str, Any]] = {}
    for layout, one in seconds.items():
        name, _, kind = layout.partition(", ")
        images = batch * (PROCESSES if kind in ("two apart", "data, whole batches") else 1)
        row = {"seconds": one, "images_per_second": images / one, "batch_norm_images": images_at_once(layout, batch)}
        row["x_one_process"] = row["images_per_second"] * seconds[f"{name}, one process"] / batch
        if (outcome := simulated(layout, found, batch)) is not None:
            row |= {"simulated_seconds": outcome.seconds, "simulated_ratio": outcome.seconds / one}
            row["simulated_idle"] = outcome.bubble
        rows[layout] = row
    for layout, row in rows.items():
        name, _, kind = layout.partition(", ")
        if kind.partition(",")[0] in ("modules", "data"):
            row["x_s"] = row["x_one_process"] / rows[f"{name}, two apart"]["x_one_process"]
            row["idle"] = 1 - row["x_s"]
    return rows


def counts(
    layout: str, folder: Path, settings: argparse.Namespace, loads: dict[tuple[str, int], Load]
) -> list[dict[str, Any]]:
    """Memory and traffic of each process; of module parallel also the predicted peak and the expected traffic."""
    spawned(_two_processes.counted, folder, settings, layout)
    rows = [torch.load(folder / f"counted-{rank}.pt") for rank in range(PROCESSES)]
    name, _, kind = layout.partition(", ")
    if kind.startswith("modules"):
        device_of = assign(loads[name, settings.batch], PROCESSES, settings.batch)
        assignment = [device_of.count(device) for device in range(PROCESSES)]
        net = net_of(settings.model, settings.rules[name])
        costs = ll.parallel.predict_modules(net, PROCESSES, settings.batch, assignment=assignment)
        for row, cost in zip(rows, costs, strict=True):
            row["predicted_total"] = cost.peak.total
            row["expected_sent"] = cost.sent + (8 * settings.batch if "labels" in kind and cost.sent else 0)
    elif kind == "data":
        net = net_of(settings.model, settings.rules[name])
        for row in rows:
            row["predicted_total"] = peak_memory(net, settings.batch // PROCESSES).total
    return rows


def show(result: dict[str, Any]) -> None:
    table = Table(title=f"s of each rule: {result['s']}")
    columns = ("seconds", "images_per_second", "x_one_process", "x_s", "simulated_ratio", "idle", "simulated_idle")
    for column in ("layout", *columns):
        table.add_column(column)
    for layout, row in result["rows"].items():
        table.add_row(layout, *(f"{row[column]:.3g}" if column in row else "" for column in columns))
    Console(width=140).print(table)
    for layout, ranks in result["counted"].items():
        for rank, row in enumerate(ranks):
            print(layout, rank, {name: f"{value:,.0f}" for name, value in row.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet110")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of a layout in a round, beside a first one")
    parser.add_argument("--micro-batches", type=int, nargs="*", default=[4, 8, 16])
    parser.add_argument("--rules", nargs="*", choices=list(RULES), default=["dgl", "auglocal"])
    parser.add_argument("--out", type=Path, help="a JSON file")
    settings = parser.parse_args()
    settings.rules = {name: RULES[name] for name in settings.rules}
    folder = Path(tempfile.mkdtemp())
    try:
        spawned(_two_processes.timed, folder, settings)
        found = torch.load(folder / "timed.pt", weights_only=False)
        rows = times(found, settings.batch)
        pipelines = sorted((layout for layout in rows if "1F1B" in layout), key=lambda layout: rows[layout]["seconds"])
        layouts = [*pipelines[:1], *(f"{name}, modules{also}" for name in settings.rules for also in ("", ", labels"))]
        layouts += [f"{name}, data" for name in settings.rules]
        counted = {one: counts(one, folder, settings, found["loads"]) for one in layouts}
    finally:
        shutil.rmtree(folder)
    result = {
        "machine": machine(torch.device("cpu")) | {"threads": 1, "processes": PROCESSES},
        "settings": {name: getattr(settings, name) for name in ("model", "batch", "rounds", "steps")},
        "link": found["link"],
        "s": {name: rows[f"{name}, two apart"]["x_one_process"] for name in settings.rules},
        "fastest_1f1b": pipelines[0] if pipelines else None,
        "rows": rows,
        "samples": found["seconds"],
        "counted": counted,
    }
    show(result)
    if settings.out is not None:
        settings.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
