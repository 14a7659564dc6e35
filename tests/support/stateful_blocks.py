"""Residual blocks of four channels whose forward pass changes what a later one reads, each in another way."""

from __future__ import annotations

import random
from collections import deque
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, spectral_norm, weight_norm


class Block(nn.Module):
    """x + last(changed(relu(convolution(x))))."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.begin()

    def begin(self) -> None:
        """Make the state."""

    def changed(self, y: Tensor) -> Tensor:
        """Change the state, and use it."""
        return y

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.changed(self.convolution(x).relu()))


class Buffer(Block):
    """A buffer advanced in place."""

    def begin(self) -> None:
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def advance(self, y: Tensor) -> None:
        self.scale.lerp_(y.abs().mean() * 3, 0.5)

    def changed(self, y: Tensor) -> Tensor:
        self.advance(y)
        return y / self.scale


class BufferByData(Buffer):
    def advance(self, y: Tensor) -> None:
        self.scale.data.lerp_(y.detach().abs().mean() * 3, 0.5)


class BufferOfNewData(Buffer):
    def advance(self, y: Tensor) -> None:
        self.scale.data = self.scale.data + y.detach().abs().mean()


class ReplacedBuffer(Buffer):
    def advance(self, y: Tensor) -> None:
        self.scale = self.scale + y.detach().abs().mean()


class NoneBuffer(Buffer):
    def begin(self) -> None:
        self.register_buffer("scale", None)

    def advance(self, y: Tensor) -> None:
        self.scale = y.detach().abs().mean() if self.scale is None else self.scale * 2 + 1


class LateBuffer(Buffer):
    def begin(self) -> None:
        """Made by the first run."""

    def advance(self, y: Tensor) -> None:
        if hasattr(self, "scale"):
            self.scale.mul_(2)
        else:
            self.register_buffer("scale", torch.ones(()))


class FrozenWeight(Buffer):
    def begin(self) -> None:
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)


class FrozenWeightByData(FrozenWeight):
    advance = BufferByData.advance


class ReplacedFrozenWeight(FrozenWeight):
    def advance(self, y: Tensor) -> None:
        self.scale = nn.Parameter(self.scale * 0.5 + y.detach().abs().mean(), requires_grad=False)


class PlainTensor(Buffer):
    def begin(self) -> None:
        self.scale = torch.ones(())


class ViewOfBuffer(Buffer):
    """Written as a whole, read through a view."""

    def begin(self) -> None:
        self.register_buffer("both", torch.ones(2))
        self.scale = self.both[1]

    def advance(self, y: Tensor) -> None:
        self.both.mul_(1.5)


class LargeBuffer(Buffer):
    """A codebook that is too large to be copied in each step."""

    def begin(self) -> None:
        self.register_buffer("codes", torch.ones(20_000))

    def advance(self, y: Tensor) -> None:
        self.codes.data.mul_(1.5)

    def changed(self, y: Tensor) -> Tensor:
        self.advance(y)
        return y * self.codes.mean()


class ScaledWeight(Block):
    def changed(self, y: Tensor) -> Tensor:
        with torch.no_grad():
            self.last.weight.mul_(0.5)
        return y


class ScaledWeightByData(Block):
    def changed(self, y: Tensor) -> Tensor:
        self.last.weight.data.mul_(0.5)
        return y


class Count(Block):
    def begin(self) -> None:
        self.runs = 0

    def changed(self, y: Tensor) -> Tensor:
        self.runs += 1
        return y / self.runs


class LateCount(Block):
    def changed(self, y: Tensor) -> Tensor:
        self.runs = getattr(self, "runs", 0) + 1
        return y / self.runs


class EveryThird(Count):
    """Its state changes in every third run alone."""

    def begin(self) -> None:
        self.runs, self.register = 0, {"scale": torch.ones(3)}

    def changed(self, y: Tensor) -> Tensor:
        self.runs += 1
        if self.runs % 3 == 0:
            self.register["scale"].mul_(2)
        return y * self.register["scale"].mean()


class ItemInList(Block):
    def begin(self) -> None:
        self.seen = []

    def changed(self, y: Tensor) -> Tensor:
        self.seen.append(1.0)
        return y / len(self.seen)


class EntryInDict(Block):
    def begin(self) -> None:
        self.counts = {"runs": [0]}

    def changed(self, y: Tensor) -> Tensor:
        self.counts["runs"][0] += 1
        return y / self.counts["runs"][0]


class TensorInTuple(Block):
    def begin(self) -> None:
        self.state = (torch.ones(()), SimpleNamespace(runs=0))

    def changed(self, y: Tensor) -> Tensor:
        self.state[0].mul_(2)
        self.state[1].runs += 1
        return y / self.state[0] / self.state[1].runs


class Deque(Block):
    def begin(self) -> None:
        self.last_scales = deque([1.0], maxlen=3)

    def changed(self, y: Tensor) -> Tensor:
        self.last_scales.append(self.last_scales[-1] * 1.5)
        return y / self.last_scales[-1]


class ListIterator(Block):
    def begin(self) -> None:
        self.scales = iter([0.1 * index for index in range(1, 50)])

    def changed(self, y: Tensor) -> Tensor:
        return y * next(self.scales)


class HiddenModule(Block):
    """The module with the state is no child: it lies in a list."""

    def begin(self) -> None:
        self.hidden = [nn.BatchNorm2d(4)]

    def changed(self, y: Tensor) -> Tensor:
        return self.hidden[0](y) / (1 + self.hidden[0].running_var.mean())


class GlobalNumbers(Block):
    """Stochastic depth by the random numbers of Python, NumPy and PyTorch."""

    def changed(self, y: Tensor) -> Tensor:
        return F.dropout(y, 0.3) * (random.random() + np.random.rand() + torch.rand(()))


class OwnNumbers(Block):
    """The same by generators of its own."""

    def begin(self) -> None:
        self.generators = [torch.Generator().manual_seed(3), np.random.default_rng(3), random.Random(3)]

    def changed(self, y: Tensor) -> Tensor:
        of_torch, of_numpy, of_python = self.generators
        return y * (torch.rand((), generator=of_torch) + of_numpy.random() + of_python.random())


class ReadsStatistics(Block):
    """Reads the running statistics that its batch normalisation has just moved."""

    def begin(self) -> None:
        self.norm = nn.BatchNorm2d(4)

    def changed(self, y: Tensor) -> Tensor:
        y = self.norm(y)
        return y / (1 + self.norm.running_var.mean()) / self.norm.num_batches_tracked


class SpectralHook(Block):
    def begin(self) -> None:
        self.last = spectral_norm(self.last)


class SpectralParametrization(Block):
    def begin(self) -> None:
        self.last = parametrizations.spectral_norm(self.last)


class WeightNorms(Block):
    def begin(self) -> None:
        self.convolution = parametrizations.weight_norm(self.convolution)
        self.last = weight_norm(self.last)


class Grows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, weight: Tensor) -> Tensor:
        if self.training:
            self.scale.mul_(1.3)
        return weight * self.scale


class Parametrized(Block):
    def begin(self) -> None:
        parametrize.register_parametrization(self.last, "weight", Grows())


class HookThatScales(Block):
    """A hook that computes: it must take part in each run."""

    def begin(self) -> None:
        self.convolution.register_forward_hook(lambda module, inputs, output: output * 2)
        self.last.register_forward_pre_hook(_clip)


def _clip(module: nn.Module, inputs: object) -> None:
    module.weight.data.clamp_(-0.1, 0.1)


BLOCKS: dict[str, type[Block]] = {
    block.__name__: block
    for block in (
        *(Buffer, BufferByData, BufferOfNewData, ReplacedBuffer, NoneBuffer, LateBuffer, ViewOfBuffer, LargeBuffer),
        *(FrozenWeight, FrozenWeightByData, ReplacedFrozenWeight, PlainTensor, ScaledWeight, ScaledWeightByData),
        *(Count, LateCount, EveryThird, ItemInList, EntryInDict, TensorInTuple, Deque, ListIterator, HiddenModule),
        *(GlobalNumbers, OwnNumbers, ReadsStatistics, SpectralHook, SpectralParametrization, WeightNorms),
        *(Parametrized, HookThatScales),
    )
}
