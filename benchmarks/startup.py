"""What passes before training begins: imports, and what the first step of a network in `lean` takes to be planned.

    python benchmarks/startup.py --out benchmarks/results/startup.json

`import torch`, `import locallearn` and `locallearn --help` are processes of their own, all in turn, after one round
that warms the file cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import locallearn as ll
from _bench import machine
from locallearn._planning.peak_memory import example_batch
from locallearn._utils.registry import find

COMMANDS = {
    "import torch": ["-c", "import torch"],
    "import locallearn": ["-c", "import locallearn"],
    "locallearn --help": ["-m", "locallearn", "--help"],
}

RULES: dict[str, ll.Rule] = {
    "checkpoint": ll.Checkpoint(),
    "dgl": ll.DGL(),
    "auglocal(depth=6)": ll.AugLocal(depth=6),
    "hilo(dgl)": ll.HiLo(ll.DGL()),
    "mlaan(dgl)": ll.MLAAN(ll.DGL()),
}


def seconds(command: list[str]) -> float:
    start = perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - start


def measure(rounds: int) -> dict[str, Any]:
    found = [{name: seconds(command) for name, command in COMMANDS.items()} for _ in range(rounds + 1)][1:]
    rows = {
        name: {
            "seconds": statistics.median(times[name] for times in found),
            "x import torch": statistics.median(times[name] / times["import torch"] for times in found),
        }
        for name in COMMANDS
    }
    plans = {
        f"{model}, {name}": planning(model, rule) for model in ("resnet32", "resnet110") for name, rule in RULES.items()
    }
    return {"machine": machine(torch.device("cpu")), "rounds": rounds, "rows": rows, "plans": plans}


def planning(model: str, rule: ll.Rule) -> float:
    """Seconds that it takes to find what a step in `lean` computes again."""
    net = ll.localize(find("models", model)(), rule, input_shape=(3, 32, 32), memory="lean")
    batch = example_batch(net, 128)
    start = perf_counter()
    net.recompute_plan(*batch)
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="a JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = measure(arguments.rounds)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    table = Table(title=f"median of {arguments.rounds} processes")
    for column in ("", "seconds", "x import torch"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in result["rows"].items():
        table.add_row(name, f"{row['seconds']:.2f}", f"{row['x import torch']:.2f}")
    Console().print(table)
    plans = Table(title="before the first step in lean")
    plans.add_column("")
    plans.add_column("seconds", justify="right")
    for name, found in result["plans"].items():
        plans.add_row(name, f"{found:.1f}")
    Console().print(plans)


if __name__ == "__main__":
    main()
