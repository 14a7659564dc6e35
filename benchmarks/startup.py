"""What passes before training begins: imports, `localize`, and how the first step of a network in `lean` is planned.

    python benchmarks/startup.py --out benchmarks/results/startup.json
    python benchmarks/startup.py --only localize --against ../another-checkout

`import torch`, `import locallearn` and `locallearn --help` are processes of their own, all in turn, after one round
that warms the file cache. `localize` is measured in seconds of one CPU core, the least of several runs, so that other
work on the machine does not count. With `--against` another checkout's `localize` is measured in turn with this one's.
"""

from __future__ import annotations

import argparse
import json
import os
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
from locallearn._planning.prediction import example_batch
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

SOURCE = Path(__file__).parents[1] / "src"
PARTS = ("imports", "localize", "plans")


def seconds(command: list[str]) -> float:
    start = perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - start


def imports(rounds: int) -> dict[str, Any]:
    times = [{name: seconds(command) for name, command in COMMANDS.items()} for _ in range(rounds + 1)][1:]
    return {
        name: {
            "seconds": statistics.median(round_[name] for round_ in times),
            "x import torch": statistics.median(round_[name] / round_["import torch"] for round_ in times),
        }
        for name in COMMANDS
    }


def localizing(source: Path) -> dict[str, float]:
    """Seconds that `localize` takes with the package of a folder, in a process of its own."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("_localize_seconds.py"))]
    environment = os.environ | {"PYTHONPATH": str(source.resolve())}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def localize_rows(rounds: int, other: Path | None) -> dict[str, Any]:
    sources = {"seconds": SOURCE} | ({} if other is None else {"before": other / "src"})
    times = [{name: localizing(source) for name, source in sources.items()} for _ in range(rounds)]
    rows = {
        case: {name: min(round_[name][case] for round_ in times) for name in sources} for case in times[0]["seconds"]
    }
    return {case: row | ({"speed-up": row["before"] / row["seconds"]} if other else {}) for case, row in rows.items()}


def planning(model: str, rule: ll.Rule) -> float:
    """Seconds that it takes to find what a step in `lean` computes again."""
    net = ll.localize(find("models", model)(), rule, input_shape=(3, 32, 32), memory="lean")
    batch = example_batch(net, 128)
    start = perf_counter()
    net.step(*batch)
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="processes for each import")
    parser.add_argument("--localize-rounds", type=int, default=3, help="processes for localize")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; all by default")
    parser.add_argument("--against", type=Path, help="the root of another checkout, whose localize is measured too")
    parser.add_argument("--out", type=Path, help="a JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parts = arguments.only or PARTS
    result: dict[str, Any] = {"machine": machine(torch.device("cpu"))}
    if "imports" in parts:
        result |= {"rounds": arguments.rounds, "rows": imports(arguments.rounds)}
        show(f"median of {arguments.rounds} processes", result["rows"])
    if "localize" in parts:
        result["localize"] = localize_rows(arguments.localize_rounds, arguments.against)
        show("localize, seconds of one core", result["localize"])
    if "plans" in parts:
        cases = ((model, name, rule) for model in ("resnet32", "resnet110") for name, rule in RULES.items())
        result["plans"] = {f"{model}, {name}": planning(model, rule) for model, name, rule in cases}
        show("before the first step in lean", {name: {"seconds": value} for name, value in result["plans"].items()})
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    table = Table(title=title)
    table.add_column("")
    for column in next(iter(rows.values())):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(f"{value:.2f}" for value in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
