"""Measured time of training steps, and the constants from which `locallearn plan` predicts it.

    python benchmarks/plan.py --out benchmarks/results/plan.json

Steps of all settings run in turn on one thread, so that drift of a shared machine affects all of them. The time of a
step is the median of its processor time. The constants are seconds for one call of an operator, for one byte, and for
one multiply-accumulate of each kind. A least-squares fit of relative errors, none negative, takes them from the
settings for calibration alone, not from those for the check nor from those outside. Copy them to `SECONDS` in
`src/locallearn/_torch/op_counter.py`, where predictions read them.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import locallearn as ll
from _bench import machine
from locallearn._torch.op_counter import SECONDS
from locallearn._utils.optional_imports import optional
from locallearn._utils.registry import find
from locallearn.cli.parser import parse_rule
from locallearn.cost import predict
from locallearn.training import SGD

Setting = dict[str, Any]


def setting(model: str, rule: str, modules: int | str = "all", memory: str = "fast", **more: int) -> Setting:
    return {"model": model, "rule": rule, "modules": modules, "memory": memory, "batch": 32, "image": 32} | more


CALIBRATION = [
    setting("resnet20", "bp"),
    setting("resnet20", "checkpoint", batch=16),
    setting("resnet20", "dgl", 5),
    setting("resnet20", "dgl", memory="lean"),
    setting("resnet20", "auglocal(depth=2)"),
    setting("resnet20", "auglocal(depth=4)", 4, "lean"),
    setting("resnet20", "infopro", 4),
    setting("resnet20", "predsim", 3, batch=16),
    setting("resnet20", "hilo(dgl)", 5),
    setting("resnet20", "bp", batch=4),
    setting("resnet20", "dgl", batch=4),
    setting("cifar-vit-tiny", "bp", batch=8),
    setting("cifar-mobilenet-v2", "bp", batch=8),
]
CHECK = [
    setting("resnet20", "dgl"),
    setting("resnet20", "auglocal(depth=3)", 3),
    setting("resnet20", "auglocal(depth=5)"),
    setting("resnet20", "man(dgl)", 5),
    setting("resnet20", "infopro", memory="lean", batch=16),
    setting("resnet20", "checkpoint", batch=48),
    setting("resnet20", "pooling", "peak:3", batch=64),
    setting("resnet32", "bp"),
    setting("resnet32", "dgl", 8, "lean"),
    setting("resnet32", "auglocal(depth=2)", 4, batch=16),
    setting("resnet32", "auglocal(depth=4)", "macs:5", "lean", batch=16),
    setting("resnet20", "auglocal(depth=3)", memory="lean", batch=8),
    setting("cifar-vit-tiny", "dgl", 4, batch=8),
    setting("cifar-mobilenet-v2", "dgl", 4, batch=4),
]

OUTSIDE = [
    setting("resnet34", "bp", batch=2),
]
"""Outside of what such a sum can predict: few images through a wide network, whose time goes into moving weights."""


def net_of(chosen: Setting) -> ll.LocalNet:
    net = ll.localize(
        find("models", chosen["model"])(num_classes=10),
        parse_rule(chosen["rule"]),
        modules=chosen["modules"],
        memory=chosen["memory"],
        input_shape=(3, chosen["image"], chosen["image"]),
    )
    return net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def step_of(net: ll.LocalNet, chosen: Setting) -> Callable[[], float]:
    """A function that runs a step and returns its processor time."""
    images = torch.randn(chosen["batch"], 3, chosen["image"], chosen["image"])
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (chosen["batch"],))
    optimizer = SGD(lr=0.001).make(list(net.parameters()))

    def step() -> float:
        start = process_time()
        net.backward(images, labels)
        optimizer.step()
        optimizer.zero_grad()
        return process_time() - start

    return step


def measured(rounds: int) -> list[Setting]:
    uses = {"calibration": CALIBRATION, "check": CHECK, "outside": OUTSIDE}
    chosen: list[Setting] = [one | {"for": use} for use, of in uses.items() for one in of]
    nets = [net_of(one) for one in chosen]
    work = [dict(predict(net, one["batch"]).work) for net, one in zip(nets, chosen, strict=True)]
    steps = [step_of(net, one) for net, one in zip(nets, chosen, strict=True)]
    times = [[step() for step in steps] for _ in range(rounds + 2)][2:]
    medians = [statistics.median(of) for of in zip(*times, strict=True)]
    return [one | {"work": counts, "seconds": time} for one, counts, time in zip(chosen, work, medians, strict=True)]


def calibrated(rows: list[Setting]) -> dict[str, float]:
    kinds = list(SECONDS)
    used = [row for row in rows if row["for"] == "calibration"]
    matrix = [[row["work"].get(kind, 0.0) / row["seconds"] for kind in kinds] for row in used]
    most = [max(max(row[i] for row in matrix), 1e-30) for i in range(len(kinds))]
    scaled = [[value / scale for value, scale in zip(row, most, strict=True)] for row in matrix]
    fitted, _ = optional("scipy.optimize").nnls(scaled, [1.0] * len(used))
    return {kind: float(f"{value / scale:.3g}") for kind, value, scale in zip(kinds, fitted, most, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="a JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = measured(arguments.rounds)
    constants = calibrated(rows)
    for row in rows:
        row["predicted"] = sum(constants[kind] * count for kind, count in row["work"].items())
    spearman = optional("scipy.stats").spearmanr
    ranks = {  # of all, those outside too
        use: float(
            spearman(*zip(*((r["seconds"], r["predicted"]) for r in rows if use in ("all", r["for"])), strict=True))[0]
        )
        for use in ("calibration", "check", "all")
    }
    table = Table(title=f"Spearman {ranks}")
    for column in ("for", "model", "rule", "modules", "memory", "batch", "measured ms", "predicted ms"):
        table.add_column(column)
    for row in rows:
        texts = [str(row[name]) for name in ("for", "model", "rule", "modules", "memory", "batch")]
        table.add_row(*texts, f"{row['seconds'] * 1e3:.1f}", f"{row['predicted'] * 1e3:.1f}")
    Console(width=140).print(table, constants)
    if arguments.out is not None:
        device = machine(torch.device("cpu"))
        result = {"machine": device, "constants": constants, "spearman": ranks, "rows": rows}
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
