"""Peak memory of a training step, in `fast` and in `lean`, counted on tensors without data: minutes, on any machine.

python benchmarks/memory.py --out benchmarks/results/memory.json

What the file holds is not counted again, so that a run may be cut short.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console
from rich.table import Table

import locallearn as ll
from locallearn._engine.recompute_plan import Memory
from locallearn._utils.registry import find
from locallearn.cost import peak_memory

RULES: dict[str, ll.Rule] = {
    "bp": ll.BP(),
    "checkpoint": ll.Checkpoint(),
    "predsim": ll.PredSim(),
    "dgl": ll.DGL(),
    "infopro": ll.InfoPro(),
    **{f"auglocal(depth={depth})": ll.AugLocal(depth=depth) for depth in range(2, 7)},
    "man(dgl)": ll.MAN(ll.DGL()),
    "hpff(dgl)": ll.HPFF(ll.DGL()),
    "mlaan(dgl)": ll.MLAAN(ll.DGL()),
}
OFFICIAL = {
    "predsim": 0.56,
    "dgl": 0.44,
    "infopro": 0.70,
    "auglocal(depth=2)": 0.75,
    "auglocal(depth=3)": 0.58,
    "auglocal(depth=4)": 0.70,
    "auglocal(depth=5)": 0.89,
    "auglocal(depth=6)": 1.02,
}
"""MiB per image of the official code at batch 128, every layer of ResNet-32 or -110 a module."""

TARGETS = {
    "dgl": 0.38,
    "infopro": 0.44,
    "man(dgl)": 0.50,
    "hpff(dgl)": 0.63,
    **{f"auglocal(depth={depth})": 0.44 for depth in range(2, 7)},
}
"""For `lean`; tests/unit/_recompute asserts the exact peaks."""


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {"batch": arguments.batch, "torch": torch.__version__, "rows": {}}
    if arguments.out is not None and arguments.out.exists():
        result = json.loads(arguments.out.read_text())
        if result["batch"] != arguments.batch:
            raise SystemExit(f"{arguments.out} holds figures of batch {result['batch']}: choose another file.")
    for model in arguments.models:
        for name in arguments.rules:
            if f"{model}, {name}" in result["rows"]:
                continue
            rule = RULES[name]
            row: dict[str, Any] = {"model": model, "rule": name}
            for memory in get_args(Memory):
                net = ll.localize(find("models", model)(), rule, input_shape=(3, 32, 32), memory=memory)
                net = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
                found = peak_memory(net, arguments.batch)
                row[memory], row[f"{memory}, in total"] = found.activations, found.total
                row[f"{memory}, bf16"] = peak_memory(net, arguments.batch, autocast=torch.bfloat16).activations
            result["rows"][f"{model}, {name}"] = row
            if arguments.out is not None:
                arguments.out.write_text(json.dumps(result, indent=2) + "\n")
            print(model, name, flush=True)
    return result


def show(result: dict[str, Any]) -> None:
    table = Table(title=f"peak activations, MiB per image, batch {result['batch']}")
    for column in ("model", "rule", "official", "fast", "lean", "target", "fast, bf16", "lean, bf16", "lean in total"):
        table.add_column(column, justify="left" if column in ("model", "rule") else "right")
    for row in result["rows"].values():
        name = row["rule"]
        keys = ("fast", "lean", "fast, bf16", "lean, bf16", "lean, in total")
        fast, lean, *rest = (f"{row[key] / result['batch'] / 2**20:.3f}" for key in keys)
        official, target = (f"{known[name]:.2f}" if name in known else "" for known in (OFFICIAL, TARGETS))
        table.add_row(row["model"], name, official, fast, lean, target, *rest)
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet32", "resnet110"])
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES), help="which of them")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--out", type=Path, help="a JSON file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ll.LocalLearnWarning)
    show(measure(arguments))


if __name__ == "__main__":
    main()
