"""An auxiliary network applied patch by patch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from locallearn._chain.layout import divided, joined
from locallearn._nn.checkpointed import Checkpointed, Once
from locallearn._objectives.auxiliary import Auxiliary, Outputs


class Patchwise(Auxiliary):
    """One auxiliary network for n x n patches (HPFF, Eq. 7): vectors are averaged, images joined.

    Args:
        auxiliary: the network.
        patches: n.
        one_at_a_time: checkpoint each patch, so that the activations of one are alive at a time.
        copied: whether the network writes on its features, so that it gets copies of the patches.
    """

    def __init__(self, auxiliary: Auxiliary, patches: int, *, one_at_a_time: bool, copied: bool) -> None:
        super().__init__()
        self.patches = patches
        run = Checkpointed if one_at_a_time else Once
        self.run = run(_OutputsOf(auxiliary), copy_input=copied)
        self.copied = copied
        self.prefix = auxiliary.prefix

    @property
    def auxiliary(self) -> Auxiliary:
        """The network."""
        return self.run.layer.auxiliary  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]

    def outputs(self, features: Tensor, images: Tensor) -> Outputs:
        pairs = zip(self._cut(features, cut_once), cut(images, self.patches), strict=True)
        return _joined([self.run(patch, image) for patch, image in pairs], self.patches)

    def loss_of(self, outputs: Outputs, images: Tensor, labels: Tensor) -> Tensor:
        return self.auxiliary.loss_of(outputs, images, labels)

    def logits(self, features: Tensor) -> Tensor | None:
        logits = [self.auxiliary.logits(patch.clone()) for patch in self._cut(features, cut)]
        return None if logits[0] is None else torch.stack([x for x in logits if x is not None]).mean(0)

    def with_parts(self, change: Callable[[Auxiliary], Auxiliary | None]) -> Auxiliary | None:
        changed = self.auxiliary.with_parts(change)
        one_at_a_time = isinstance(self.run, Checkpointed)
        return (
            None
            if changed is None
            else Patchwise(changed, self.patches, one_at_a_time=one_at_a_time, copied=self.copied)
        )

    def _cut(self, features: Tensor, cut_maps: Callable[[Tensor, int], Iterator[Tensor]]) -> Iterator[Tensor]:
        """The patches; each carries all prefix tokens."""
        if not self.prefix:
            return cut_maps(features, self.patches)
        tokens, maps = divided(features, self.prefix)
        return (joined(tokens, patch) for patch in cut_maps(maps, self.patches))


class _OutputsOf(nn.Module):
    """An auxiliary network's outputs."""

    def __init__(self, auxiliary: Auxiliary) -> None:
        super().__init__()
        self.auxiliary = auxiliary

    def forward(self, features: Tensor, images: Tensor) -> Outputs:
        return self.auxiliary.outputs(features, images)


def borders(size: int, patches: int) -> list[int]:
    """Borders of the patches: floor(i * size / n)."""
    return [index * size // patches for index in range(patches + 1)]


def patch_slices(maps: Tensor, patches: int) -> Iterator[tuple[slice, ...]]:
    """Slices of the n x n patches of maps (batch, channels, height, width), row by row."""
    height, width = maps.shape[2:]
    for top, bottom in pairwise(borders(height, patches)):
        for left, right in pairwise(borders(width, patches)):
            yield slice(None), slice(None), slice(top, bottom), slice(left, right)


def cut(maps: Tensor, patches: int) -> Iterator[Tensor]:
    """The patches, as views."""
    return (maps[slices] for slices in patch_slices(maps, patches))


def cut_once(maps: Tensor, patches: int) -> Iterator[Tensor]:
    """The patches, each to be used once before the next is cut. Their gradients are written into one tensor.

    The gradient of a plain slice is a tensor of the whole map's size for each patch.
    """
    gradient = _Gradient()
    for slices in patch_slices(maps, patches):
        yield maps[slices] if torch.compiler.is_compiling() else _Patch.apply(maps, slices, gradient, patches**2)


class _Gradient:
    """The gradient of the maps, while those of its patches arrive."""

    def __init__(self) -> None:
        self.whole: Tensor | None = None
        self.patches = 0


class _Patch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, slices: tuple[slice, ...], gradient: _Gradient, patches: int) -> Tensor:
        ctx.slices, ctx.gradient, ctx.patches = slices, gradient, patches
        ctx.like = maps.shape, maps.stride()
        return maps[slices]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        total: _Gradient = ctx.gradient
        if total.whole is None:
            total.whole = gradients[0].new_empty_strided(*ctx.like)
        total.whole[ctx.slices] = gradients[0]
        total.patches += 1
        if total.patches < ctx.patches:
            return None, None, None, None
        whole, total.whole, total.patches = total.whole, None, 0
        return whole, None, None, None


def _joined(outputs: Sequence[Outputs], patches: int) -> Outputs:
    """The outputs of all patches as one: images joined, all else averaged."""
    first = outputs[0]
    if not isinstance(first, Tensor):
        return tuple(_joined(parts, patches) for parts in zip(*outputs, strict=True))
    tensors = [output for output in outputs if isinstance(output, Tensor)]
    if first.dim() == 2:
        return torch.stack(tensors).mean(0)
    rows = [torch.cat(tensors[i : i + patches], dim=3) for i in range(0, len(tensors), patches)]
    return torch.cat(rows, dim=2)
