"""Other ways to build AugLocal's auxiliary networks, with which its paper compares it (Tables 5, 9 and 10).

====================== ==================================================================
name in the paper      here
====================== ==================================================================
Seq. (Table 5)         `SequentialAugLocal`
Repe. (Table 5)        `RepetitiveAugLocal`
C1x1, C3x3 (Table 5)   `ConvolutionalAugLocal(kernel=1)`, `(kernel=3)`
DGL (Table 9)          `ConvolutionalAugLocal(kernel=3)`: its cells are those of C3x3
Table 10               `table10`
====================== ==================================================================

No code is published for these.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from locallearn._chain.layout import Carry, carrying_shape
from locallearn._chain.partition import Partition
from locallearn._nn.global_pool import GlobalAverage
from locallearn._objectives.auxiliary import Auxiliary
from locallearn._objectives.lookahead import stage
from locallearn._objectives.objective import Site, Span
from locallearn._torch import private_api
from locallearn._torch.op_counter import counted_macs
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted
from locallearn.rules.auglocal import AugLocal, like_layers
from locallearn.rules.base import Rule
from locallearn.rules.dgl import DGL


@dataclass(frozen=True, kw_only=True)
class SequentialAugLocal(AugLocal):
    """AugLocal with new layers like those that come next, l + 1 ... l + d - 1, instead of a uniform selection (Seq.).

    Modules, depths and strides are AugLocal's.
    """

    def selected(self, site: Site) -> list[int]:
        return list(range(site.layer + 1, len(site.chain)))[: self.hidden(site)]


@dataclass(frozen=True, kw_only=True)
class RepetitiveAugLocal(AugLocal):
    """AugLocal with new layers that repeat the module's own last layer (Repe.).

    Modules and depths are AugLocal's. After the first layer, the second one is repeated if it is as wide, because a
    residual network's stem is no block (Table 10 has blocks in all of stage 1).

    Args:
        depth, tau, fidelity, narrow: as in `AugLocal`.
        downsample: whether the first of the new layers has stride 2 (Table 10, "repe. and ds.").
    """

    downsample: bool = False

    def selected(self, site: Site) -> list[int]:
        chain, layer = site.chain, site.layer
        if layer == 0 and len(chain) > 1 and chain.width(1) == chain.width(0):
            layer = 1
        return [layer] * self.hidden(site)

    def strides(self, site: Site, selected: list[int]) -> list[int]:
        return [2 if self.downsample and i == 0 else 1 for i in range(len(selected))]


@dataclass(frozen=True, kw_only=True)
class ConvolutionalAugLocal(AugLocal):
    """AugLocal with plain convolutions of the same depth, widened to the same cost (C1x1, C3x3).

    Each of AugLocal's new layers becomes convolution - BN - ReLU with its stride, and its width times a multiplier: the
    one with which the head comes nearest to AugLocal's multiply-accumulates. The paper gives no multipliers.

    Args:
        depth, tau, fidelity, narrow: as in `AugLocal`.
        kernel: height and width of the convolutions, odd.
    """

    kernel: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise LocalLearnError(f"ConvolutionalAugLocal: kernel={self.kernel} must be odd.")

    def layers(self, site: Site) -> tuple[list[nn.Module], int]:
        if site.is_vector:
            raise LocalLearnError("ConvolutionalAugLocal needs maps: choose modules that end before the vectors begin.")
        selected = self.selected(site)
        strides = self.strides(site, selected)
        widths = [site.chain.width(i) for i in selected]
        same, end = like_layers(site, selected, strides, self.narrow)
        target = _macs([*same, GlobalAverage(), *self.classifier(site, end)], site)
        low, high = 0.0, 1.0
        while self._cost(site, widths, strides, high) < target:
            low, high = high, 2 * high
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if self._cost(site, widths, strides, middle) < target else (low, middle)
        multiplier = min((low, high), key=lambda m: abs(self._cost(site, widths, strides, m) - target))
        before = site.shape[0]
        parts: list[nn.Module] = [Carry(site.prefix)] if site.prefix else []
        for width, stride in zip(_widened(widths, multiplier), strides, strict=True):
            parts += [nn.Conv2d(before, width, self.kernel, stride, self.kernel // 2, bias=False)]
            parts += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            before = width
        return parts, before

    def _cost(self, site: Site, widths: list[int], strides: list[int], multiplier: float) -> int:
        """Multiply-accumulates of a head with such widths, for one image."""
        before, height, width = site.shape
        total = 0
        for after, stride in zip(_widened(widths, multiplier), strides, strict=True):
            height, width = -(-height // stride), -(-width // stride)
            total += height * width * self.kernel**2 * before * after
            before = after
        return total + before * site.classes


@dataclass(frozen=True, kw_only=True)
class ByStage(Rule):
    """Another rule for each stage of the network; modules and weights are those of the last stage's rule.

    Args:
        rules: one for each stage; a stage ends where height or width shrinks.
    """

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        rules = tuple(self.rules) if isinstance(self.rules, list | tuple) else ()
        object.__setattr__(self, "rules", rules)
        if not rules or not all(isinstance(rule, Rule) for rule in rules):
            raise LocalLearnError("ByStage: give a training rule for each stage, as in rules=(DGL(), AugLocal()).")
        for rule in rules:
            if type(rule).auxiliary is Rule.auxiliary or any(
                span.first != span.last for modules in (8, 9) for span in rule.spans(modules)
            ):
                raise LocalLearnError(
                    f"ByStage: {rule} changes which objectives there are, for all stages: put rules with one objective"
                    " per module into ByStage, and wrappers with cascades around it."
                )

    def partition(self, partition: Partition) -> Partition:
        return self.rules[-1].partition(partition)

    def spans(self, modules: int) -> list[Span]:
        return self.rules[-1].spans(modules)

    def auxiliary(self, site: Site) -> Auxiliary:
        number = stage(site.chain, site.layer)
        if number > len(self.rules):
            raise LocalLearnError(
                f"ByStage has {counted(len(self.rules), 'rule')}, but the network has a stage {number}."
            )
        return self.rules[number - 1].auxiliary(site)


def table10(depth: int = 6) -> dict[str, Rule]:
    """The auxiliary networks of AugLocal's Table 10, from AugLocal step by step to DGL; stages as in CIFAR ResNets."""
    uniform = AugLocal(depth=depth)
    repeated = RepetitiveAugLocal(depth=depth, tau=0.0)
    downsampled = replace(repeated, downsample=True)
    convolutions = DGL(convolutions=depth - 1, kernel=3, hidden=0, pooled=1)
    return {
        "AugLocal": uniform,
        "repeat and downsample in stage 2": ByStage(rules=(uniform, downsampled, uniform)),
        "repeat in stage 2": ByStage(rules=(uniform, repeated, uniform)),
        "repeat and downsample in stages 1 and 2": ByStage(rules=(downsampled, downsampled, uniform)),
        "repeat in stages 1 and 2, downsample in 1": ByStage(rules=(downsampled, repeated, uniform)),
        "3x3 convolutions in all stages": convolutions,
        "DGL": DGL(),
    }


def _widened(widths: list[int], multiplier: float) -> list[int]:
    return [max(1, round(multiplier * width)) for width in widths]


def _macs(parts: list[nn.Module], site: Site) -> int:
    """Multiply-accumulates of a head for one image, counted on fake tensors."""
    with private_api.fake_mode() as mode, torch.no_grad():
        network = private_api.fake_copy(nn.Sequential(*parts).cpu(), mode).eval()
        return counted_macs(network, torch.empty(1, *carrying_shape(site.shape, site.prefix)))[0]
