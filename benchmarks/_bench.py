"""What `step.py` measures with: steps of a rule and of BP on the same batch, their peaks and arithmetic."""

from __future__ import annotations

import argparse
import gc
import statistics
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import locallearn as ll
from locallearn._engine.cuda_graphs import WARM_UP, CapturedSteps
from locallearn._engine.recompute_plan import Memory
from locallearn._engine.stepper import Stepper
from locallearn._nn.upsampled_conv import UpsampledConv
from locallearn._planning.prediction import example_batch
from locallearn._torch import private_api
from locallearn._torch.device import device_name, mixed
from locallearn._utils.registry import find
from locallearn.cost import peak_memory
from locallearn.training import SGD

Step = Callable[[], object]


class Bench:
    """A model, a batch and the precision that all steps share.

    Args:
        arguments: those of `step.py`: model, image, batch, modules, precision, device, cuda_graphs, overlap.
    """

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
        options = {"memory": memory, "overlap": self.arguments.overlap, "input_shape": shape}
        net = ll.localize(model, rule, modules=self.arguments.modules, **options)
        net = net.to(self.device)
        return net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def precision(self) -> Any:
        return mixed(self.device, self.autocast)

    def local_step(self, net: ll.LocalNet) -> Step:
        stepper = Stepper(net, SGD(lr=0.01).make)
        if self.arguments.cuda_graphs:
            captured = CapturedSteps(net, stepper, autocast=self.autocast)
            return partial(captured, self.images, self.labels)

        def step() -> None:
            with self.precision():
                net.backward(self.images, self.labels)
            stepper.finish()

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

    def peak(self, rule: ll.Rule, memory: Memory = "fast") -> dict[str, int]:
        """Bytes of a step: counted on the CPU, activations alone; read from the allocator on a GPU.

        There `allocated` and `reserved` are all that the network, its optimizer and its steps took, and `peak_bytes` is
        what a step took beyond what stays between steps.
        """
        if self.device.type != "cuda":
            found = peak_memory(self.net(rule, memory), self.arguments.batch, autocast=self.autocast)
            return {"peak_bytes": found.activations}
        self.clean()
        allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
        step = self.local_step(self.net(rule, memory))
        for _ in range(WARM_UP + 2):
            step()
        staying = torch.cuda.memory_allocated()
        peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        del step
        self.clean()
        return {
            "peak_bytes": peaks[0] - staying,
            "allocated": peaks[0] - allocated,
            "reserved": peaks[1] - reserved,
        }

    def clean(self) -> None:
        """Give the allocator's memory back, and begin new peaks."""
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def method_macs(net: ll.LocalNet, batch: int) -> int:
    """Multiply-accumulates of a step as the papers write it."""
    with (
        private_api.fake_mode() as mode,
        patch.object(UpsampledConv, "saves_arithmetic", lambda *_: False),
        FlopCounterMode(display=False) as counter,
    ):
        net = private_api.fake_copy(net, mode).train()
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
    """Times of both in turn, after warm-up rounds."""
    warm_up = WARM_UP + 2 if bench.arguments.cuda_graphs else 2
    times = [(bench.seconds(reference), bench.seconds(step)) for _ in range(rounds + warm_up)][warm_up:]
    ratios = [own / other for other, own in times]
    return {
        "bp_seconds": statistics.median(other for other, _ in times),
        "seconds": statistics.median(own for _, own in times),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
    }


def machine(device: torch.device) -> dict[str, Any]:
    name = device_name(device)
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
