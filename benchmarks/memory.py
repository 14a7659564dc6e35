"""Peak memory of a training step, in `fast`, `lean` and `least`, counted on tensors without data, on any machine.

python benchmarks/memory.py --out benchmarks/results/memory.json

Prints the table of docs/performance.md, in MiB per image. What the file holds is not counted again, so that a run may
be cut short.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any, get_args

import torch

import locallearn as ll
from locallearn._engine.recompute_plan import Memory
from locallearn._utils.atomic_files import read_json, write_json
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
_AT_ANY_DEPTH = {
    "predsim": 0.56,
    "dgl": 0.44,
    "infopro": 0.70,
    "auglocal(depth=2)": 0.75,
    "auglocal(depth=3)": 0.58,
    "auglocal(depth=4)": 0.70,
    "auglocal(depth=5)": 0.89,
    "auglocal(depth=6)": 1.02,
}
OFFICIAL = {"resnet32": {"bp": 2.39, "checkpoint": 0.70, **_AT_ANY_DEPTH}, "resnet110": {"bp": 8.08, **_AT_ANY_DEPTH}}
"""MiB per image of the official code, or of the usual PyTorch loop, at batch 128 and with every layer a module."""


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {"batch": arguments.batch, "torch": torch.__version__, "rows": {}}
    if arguments.out is not None and arguments.out.exists():
        result = read_json(arguments.out)
        if result["batch"] != arguments.batch:
            raise SystemExit(f"{arguments.out} holds figures of batch {result['batch']}: choose another file.")
    for model in arguments.models:
        for name in arguments.rules:
            row = result["rows"].setdefault(f"{model}, {name}", {"model": model, "rule": name})
            for memory in get_args(Memory):
                if memory in row:
                    continue
                net = ll.localize(find("models", model)(), RULES[name], input_shape=(3, 32, 32), memory=memory)
                net = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
                found = peak_memory(net, arguments.batch)
                row[memory], row[f"{memory}, in total"] = found.activations, found.total
                row[f"{memory}, bf16"] = peak_memory(net, arguments.batch, autocast=torch.bfloat16).activations
                if arguments.out is not None:
                    write_json(arguments.out, result)
                print(model, name, memory, flush=True)
    return result


def table(result: dict[str, Any]) -> str:
    """The peaks as Markdown: of activations in fp32 and in bf16, and in total in fp32."""
    endings = ("", ", bf16", ", in total")
    kinds = [f"{memory}{ending}" for ending in endings for memory in get_args(Memory)]
    heads = [f"`{memory}`{ending}" for ending in endings for memory in get_args(Memory)]
    lines = ["| network | rule | official code | " + " | ".join(heads) + " |", "|---|---|" + "---:|" * (1 + len(kinds))]
    for row in result["rows"].values():
        figures = [f"{row[kind] / result['batch'] / 2**20:.3f}" if kind in row else "" for kind in kinds]
        official = OFFICIAL.get(row["model"], {}).get(row["rule"])
        cells = (row["model"], row["rule"], "" if official is None else f"{official:.2f}", *figures)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(OFFICIAL))
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES), help="which of them")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--out", type=Path, help="a JSON file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ll.LocalLearnWarning)
    print(table(measure(arguments)))


if __name__ == "__main__":
    main()
