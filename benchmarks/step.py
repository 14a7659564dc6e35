"""Time and peak memory of one training step: each rule against BP and gradient checkpointing.

    python benchmarks/step.py --threads 1 --out benchmarks/results/step-resnet32-1-thread.json

Steps are interleaved in one process (BP, rule, BP, rule ...), so that the drift of a shared machine hits both; a ratio
is the median over pairs. With `--memory lean`, "x fast" is the time over that of the same rule in `fast`.

MACs are those of a whole step, forward and backward, counted by PyTorch's FLOP counter: "done" of all that runs;
"method" of the same step as the papers write it, one forward of each module and for each objective a backward of its
own through all its modules, decoders on upsampled features: the time that arithmetic alone would explain. Peak bytes
are counted on the CPU (tensors that forward and backward create, gradients of parameters left out), and read from the
allocator on a GPU (with them).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any, get_args
from unittest.mock import patch

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

import locallearn as ll
from locallearn import _private
from locallearn._economy import Memory
from locallearn._names import find
from locallearn._upsampling import UpsampledConv
from locallearn.cost import peak_memory, step_macs
from locallearn.cost._memory import example_batch
from locallearn.training import SGD

TWO = ll.InfoPro.published("hpff")
"""InfoPro with head 2c2f, on which the published runs of HPFF and MAN stand."""

RULES: dict[str, ll.Rule] = {
    "checkpoint": ll.Checkpoint(),
    "predsim": ll.PredSim(),
    "dgl": ll.DGL(),
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
Step = Callable[[], None]


class Bench:
    """A model, a batch and the precision that all steps share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.device = torch.device(arguments.device)
        self.autocast = torch.bfloat16 if arguments.precision == "bf16" else None
        size = arguments.image
        images = torch.randn(arguments.batch, 3, size, size, device=self.device)
        self.images = images.to(memory_format=torch.channels_last)
        self.labels = torch.randint(0, 10, (arguments.batch,), device=self.device)

    def net(self, rule: ll.Rule, memory: Memory = "fast") -> ll.LocalNet:
        model = find("models", self.arguments.model)()
        shape = 3, self.arguments.image, self.arguments.image
        net = ll.localize(model, rule, modules=self.arguments.modules, memory=memory, input_shape=shape)
        net = net.to(self.device)
        return net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def precision(self) -> Any:
        return nullcontext() if self.autocast is None else torch.autocast(self.device.type, dtype=self.autocast)

    def local_step(self, net: ll.LocalNet) -> Step:
        optimizer = SGD(lr=0.01).make(list(net.parameters()))

        def step() -> None:
            with self.precision():
                net.backward(self.images, self.labels)
            optimizer.step()
            optimizer.zero_grad()

        return step

    def plain_step(self) -> Step:
        """BP as anyone would write it, without locallearn's engine."""
        model = self.net(ll.BP()).model
        optimizer = SGD(lr=0.01).make(list(model.parameters()))

        def step() -> None:
            with self.precision():
                loss = F.cross_entropy(model(self.images), self.labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    def seconds(self, step: Step) -> float:
        self.wait()
        start = perf_counter()
        step()
        self.wait()
        return perf_counter() - start

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak(self, net: ll.LocalNet, step: Step) -> int:
        if self.device.type != "cuda":
            return peak_memory(net, self.arguments.batch, autocast=self.autocast).activations
        step()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before


def method_macs(net: ll.LocalNet, batch: int) -> int:
    """Multiply-accumulates of a step as the papers write it."""
    with (
        _private.fake_mode() as mode,
        patch.object(UpsampledConv, "saves_arithmetic", lambda *_: False),
        FlopCounterMode(display=False) as counter,
    ):
        net = _private.fake_copy(net, mode).train()
        images, labels = example_batch(net, batch)
        inputs, forwards = [images], []
        for module in net.local_modules:
            before = counter.get_total_flops()
            inputs.append(module(inputs[-1]).detach())
            forwards.append(counter.get_total_flops() - before)
        for objective in net.objectives:
            features = inputs[objective.first].detach()
            for module in net.local_modules[objective.first : objective.last + 1]:
                features = module(features)
            objective.loss(features, images, labels).backward()
        again = sum(sum(forwards[objective.first : objective.last + 1]) for objective in net.objectives)
        return (counter.get_total_flops() - again) // 2


def pairs(bench: Bench, reference: Step, step: Step, rounds: int) -> dict[str, Any]:
    """Times of both in turn, after two warm-up rounds."""
    times = [(bench.seconds(reference), bench.seconds(step)) for _ in range(rounds + 2)][2:]
    ratios = [own / other for other, own in times]
    return {
        "bp_seconds": statistics.median(other for other, _ in times),
        "seconds": statistics.median(own for _, own in times),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    bench = Bench(arguments)
    bp = bench.net(ll.BP())
    reference, bp_macs = bench.local_step(bp), step_macs(bp, arguments.batch)
    bp_peak = bench.peak(bp, reference)
    rows: dict[str, Any] = {
        "bp": {"method_macs_ratio": 1.0, "macs_ratio": 1.0, "peak_bytes": bp_peak, "peak_ratio": 1.0}
    }
    rows["plain PyTorch loop"] = pairs(bench, reference, bench.plain_step(), arguments.rounds)
    for name in arguments.rules:
        net = bench.net(RULES[name], arguments.memory)
        step = bench.local_step(net)
        macs_ratio, method = (count(net, arguments.batch) / bp_macs for count in (step_macs, method_macs))
        row = pairs(bench, reference, step, arguments.rounds)
        peak = bench.peak(net, step)
        if arguments.memory == "lean":
            fast = pairs(bench, bench.local_step(bench.net(RULES[name])), step, arguments.rounds)
            row |= {"ratio_to_fast": fast["ratio"], "ratio_to_fast_range": fast["ratio_range"]}
        row |= {"macs_ratio": macs_ratio, "method_macs_ratio": method, "ratio_over_macs": row["ratio"] / method}
        rows[name] = row | {"peak_bytes": peak, "peak_ratio": peak / bp_peak}
    settings = {name: value for name, value in vars(arguments).items() if name != "out"}
    return {"settings": settings, "machine": machine(bench.device), "rows": rows}


def machine(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


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
            f"{row['seconds']:.3f}" if "seconds" in row else "",
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet32")
    parser.add_argument("--modules", default="all")
    parser.add_argument("--memory", choices=get_args(Memory), default="fast", help="of the rules; BP stays fast")
    parser.add_argument("--image", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=21, help="pairs of steps for each rule")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES), help="which of them")
    parser.add_argument("--out", type=Path, help="a JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = measure(arguments)
    show(result)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
