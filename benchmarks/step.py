"""Time and peak memory of one training step: each rule against BP and gradient checkpointing.

    python benchmarks/step.py --threads 1 --out benchmarks/results/step-resnet32-1-thread.json
    python benchmarks/step.py --device cuda --out benchmarks/results

Steps are interleaved in one process (BP, rule, BP, rule ...), so that the drift of a shared machine hits both; a ratio
is the median over pairs. With `--memory lean` or `least`, "x fast" is the time over that of the same rule in `fast`.

MACs are those of a whole step, forward and backward, counted by PyTorch's FLOP counter: "done" of all that runs;
"method" of the same step as the papers write it, one forward of each module and for each objective a backward of its
own through all its modules, decoders on upsampled features: the time that arithmetic alone would explain. Peak bytes
are counted on the CPU (tensors that forward and backward create, gradients of parameters left out), and read from the
allocator on a GPU (with them).

On a CUDA GPU, when no model is named, everything is measured: ResNet-32 and ResNet-110 with 1024 images, ResNet-50 with
256 images of 224 pixels, each in fp32 and bf16, plain, as CUDA graphs, and as graphs on two streams; BP likewise. Each
case is a file in the folder `--out`. What a file holds is not measured again, so that a run may be cut short.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console
from rich.table import Table

import locallearn as ll
from _bench import Bench, Step, machine, method_macs, pairs
from locallearn._engine.recompute_plan import Memory
from locallearn._torch.device import device_of
from locallearn.cost import step_macs

TWO = ll.InfoPro.published("hpff")
"""InfoPro with head 2c2f, on which the published runs of HPFF and MAN stand."""

RULES: dict[str, ll.Rule] = {
    "checkpoint": ll.Checkpoint(),
    "predsim": ll.PredSim(),
    "dgl": ll.DGL(),
    "reduced(dgl(channels=128, units=256), grid=7)": ll.Reduced(ll.DGL(channels=128, units=256), grid=7),
    "dgl-original": ll.DGL.original(),
    "infopro": ll.InfoPro(),
    "infopro (2c2f)": TWO,
    **{f"auglocal(depth={depth})": ll.AugLocal(depth=depth) for depth in range(2, 7)},
    "hilo(dgl)": ll.HiLo(ll.DGL()),
    "hpff(dgl, paper)": ll.HPFF(ll.DGL(), fidelity="paper"),
    "hpff(infopro 2c2f)": ll.HPFF(TWO),
    "man(dgl)": ll.MAN(ll.DGL()),
    "man(infopro 2c2f)": ll.MAN(TWO),
    "mlaan": ll.MLAAN(),
    "mlaan(span=2)": ll.MLAAN(span=2),
    "mlaan(dgl)": ll.MLAAN(ll.DGL()),
    "mlaan(infopro)": ll.MLAAN(ll.InfoPro()),
    "hpff(man(auglocal(depth=3)))": ll.HPFF(ll.MAN(ll.AugLocal(depth=3)), fidelity="paper"),
}

GPU_CASES = [
    {"model": model, "image": image, "batch": batch, "precision": precision, "cuda_graphs": graphs, "overlap": overlap}
    for (model, image, batch), precision, (graphs, overlap) in product(
        [("resnet110", 32, 1024), ("resnet32", 32, 1024), ("resnet50", 224, 256)],
        ["fp32", "bf16"],
        [(False, 0), (True, 0), (True, 1)],
    )
]
"""What is measured on a GPU when no model is named."""


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All rows; those that the file has already are taken from it."""
    bench = Bench(arguments)
    settings = {name: value for name, value in vars(arguments).items() if name not in ("out", "rules")}
    result: dict[str, Any] = {"settings": settings, "machine": machine(bench.device), "rows": {}}
    rows = result["rows"]
    if arguments.out is not None and arguments.out.exists():
        before = json.loads(arguments.out.read_text())
        if before["settings"] == settings and before["machine"] == result["machine"]:
            rows.update(before["rows"])
    bp = bench.net(ll.BP())
    bp_macs = step_macs(bp, arguments.batch)
    if "bp" not in rows:
        rows["bp"] = {"method_macs_ratio": 1.0, "macs_ratio": 1.0, **bench.peak(ll.BP()), "peak_ratio": 1.0}
    reference = bench.local_step(bp)
    if "plain PyTorch loop" not in rows:
        rows["plain PyTorch loop"] = pairs(bench, reference, bench.plain_step(), arguments.rounds)
    for name in arguments.rules:
        if name in rows:
            continue
        try:
            rows[name] = measured(bench, RULES[name], reference, bp_macs)
            rows[name]["peak_ratio"] = rows[name]["peak_bytes"] / rows["bp"]["peak_bytes"]
        except (ll.LocalLearnError, torch.OutOfMemoryError) as error:  # the others are measured all the same
            rows[name] = {"refused": str(error)}
        if arguments.out is not None:
            arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    return result


def measured(bench: Bench, rule: ll.Rule, reference: Step, bp_macs: int) -> dict[str, Any]:
    """One rule's row."""
    memory, batch, rounds = bench.arguments.memory, bench.arguments.batch, bench.arguments.rounds
    row: dict[str, Any] = bench.peak(rule, memory)
    net = bench.net(rule, memory)
    macs_ratio, method = (count(net, batch) / bp_macs for count in (step_macs, method_macs))
    step = bench.local_step(net)
    row |= pairs(bench, reference, step, rounds)
    if memory != "fast":
        fast = pairs(bench, bench.local_step(bench.net(rule)), step, rounds)
        row |= {"ratio_to_fast": fast["ratio"], "ratio_to_fast_range": fast["ratio_range"]}
    return row | {"macs_ratio": macs_ratio, "method_macs_ratio": method, "ratio_over_macs": row["ratio"] / method}


def show(result: dict[str, Any]) -> None:
    settings = result["settings"]
    title = f"{settings['model']}, batch {settings['batch']}, {settings['precision']}, {result['machine']['device']}"
    table = Table(title=title)
    for column in (
        "rule",
        "s / step",
        "x BP",
        "range",
        "MACs done",
        "of method",
        "time / method",
        "x fast",
        "peak MiB / image",
        "x BP",
    ):
        table.add_column(column, justify="left" if column == "rule" else "right")
    for name, row in result["rows"].items():
        table.add_row(
            name,
            f"{row['seconds']:.3f}" if "seconds" in row else "refused" if "refused" in row else "",
            f"{row['ratio']:.2f}" if "ratio" in row else "1.00",
            "{:.2f} - {:.2f}".format(*row["ratio_range"]) if "ratio_range" in row else "",
            f"{row['macs_ratio']:.2f}" if "macs_ratio" in row else "",
            f"{row['method_macs_ratio']:.2f}" if "method_macs_ratio" in row else "",
            f"{row['ratio_over_macs']:.2f}" if "ratio_over_macs" in row else "",
            f"{row['ratio_to_fast']:.2f}" if "ratio_to_fast" in row else "",
            f"{row['peak_bytes'] / settings['batch'] / 2**20:.2f}" if "peak_bytes" in row else "",
            f"{row['peak_ratio']:.2f}" if "peak_ratio" in row else "",
        )
    Console(width=140).print(table)


def cases(arguments: argparse.Namespace) -> list[argparse.Namespace]:
    """What to measure: what is asked for, or everything on a GPU."""
    if arguments.device != "cuda" or arguments.model is not None:
        model = arguments.model or "resnet32"
        return [argparse.Namespace(**vars(arguments) | {"model": model})]
    folder = arguments.out or Path()
    folder.mkdir(parents=True, exist_ok=True)
    return [argparse.Namespace(**vars(arguments) | case | {"out": folder / name_of(case)}) for case in GPU_CASES]


def name_of(case: dict[str, Any]) -> str:
    """The file of a case."""
    how = "graphs" if case["cuda_graphs"] else "plain"
    lanes = f"-overlap{case['overlap']}" if case["overlap"] else ""
    return f"step-{case['model']}-{case['precision']}-cuda-{how}{lanes}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="resnet32 by default; on a GPU all, if none is named")
    parser.add_argument("--modules", default="all")
    parser.add_argument("--memory", choices=get_args(Memory), default="fast", help="of the rules; BP stays fast")
    parser.add_argument("--image", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=21, help="pairs of steps for each rule")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cuda-graphs", action="store_true", help="capture steps, BP's too")
    parser.add_argument("--overlap", type=int, default=0, help="modules that go backward beside the next ones' forward")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES), help="which of them")
    parser.add_argument("--out", type=Path, help="a JSON file; a folder where everything is measured on a GPU")
    arguments = parser.parse_args()
    try:
        device_of(arguments.device)
    except ll.LocalLearnError as error:
        parser.error(str(error))
    if arguments.cuda_graphs and not arguments.device.startswith("cuda"):
        parser.error("--cuda-graphs needs --device cuda.")
    torch.set_num_threads(arguments.threads)
    for case in cases(arguments):
        show(measure(case))


if __name__ == "__main__":
    main()
