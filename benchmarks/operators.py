"""Where the time of a step goes: operators of a rule's step beside those of BP's, by PyTorch's profiler.

    python benchmarks/operators.py --rule dgl --out benchmarks/results/operators-dgl.json

Milliseconds of the operators themselves, what they call left out. "beyond" is what the rule takes more than BP times
the ratio of multiply-accumulates: what keeps a step above its arithmetic. A quiet machine is needed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

import locallearn as ll
from _bench import Bench, Step, machine, method_macs
from locallearn._engine.recompute_plan import Memory
from locallearn.cost import step_macs
from step import RULES

WARM_UP = 3
BETWEEN = "Python, dispatch, the profiler"


def milliseconds(bench: Bench, step: Step, steps: int) -> dict[str, float]:
    """Of each operator in one step, and of what is between operators."""
    for _ in range(WARM_UP):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        whole = sum(bench.seconds(step) for _ in range(steps))
    times = {row.key: row.self_cpu_time_total / steps / 1e3 for row in found.key_averages()}
    operators = {name: time for name, time in times.items() if name.startswith("aten::")}
    return operators | {BETWEEN: whole / steps * 1e3 - sum(operators.values())}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    bench = Bench(arguments)
    nets = bench.net(ll.BP()), bench.net(RULES[arguments.rule], arguments.memory)
    ratio = method_macs(nets[1], arguments.batch) / step_macs(nets[0], arguments.batch)
    bp, own = (milliseconds(bench, bench.local_step(net), arguments.steps) for net in nets)
    times = {name: (bp.get(name, 0.0), own.get(name, 0.0)) for name in {*bp, *own}}
    rows = {name: {"bp": a, "rule": b, "beyond": b - ratio * a} for name, (a, b) in times.items()}
    ordered = dict(sorted(rows.items(), key=lambda row: -abs(row[1]["beyond"])))
    settings = {name: value for name, value in vars(arguments).items() if name != "out"}
    return {"settings": settings, "machine": machine(bench.device), "macs_ratio": ratio, "rows": ordered}


def show(result: dict[str, Any], most: int = 16) -> None:
    settings = result["settings"]
    ratio = result["macs_ratio"]
    table = Table(title=f"{settings['rule']}, {settings['model']}, ms a step; MACs {ratio:.2f} x BP")
    for column in ("operator", "BP", "rule", "beyond"):
        table.add_column(column, justify="left" if column == "operator" else "right")
    for name, row in list(result["rows"].items())[:most]:
        table.add_row(name, *(f"{row[key]:.1f}" for key in ("bp", "rule", "beyond")))
    sums = [sum(row[key] for row in result["rows"].values()) for key in ("bp", "rule", "beyond")]
    table.add_row("all", *(f"{value:.1f}" for value in sums))
    Console(width=100).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", choices=RULES, default="dgl")
    parser.add_argument("--memory", choices=get_args(Memory), default="fast")
    parser.add_argument("--model", default="resnet32")
    parser.add_argument("--image", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--out", type=Path, help="a JSON file")
    fixed = {"modules": "all", "precision": "fp32", "device": "cpu", "cuda_graphs": False, "overlap": 0}
    parser.set_defaults(**fixed)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = measure(arguments)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    show(result)


if __name__ == "__main__":
    main()
