"""Maps cut into patches, and an auxiliary network applied to one patch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from locallearn._nn.checkpointed import Checkpointed, Once
from locallearn._objectives.auxiliary import Auxiliary, Outputs


class Patchwise(Auxiliary):
    """One auxiliary network for n x n patches: its outputs are averaged, or put together where they are images.

    The gradient is that of the average in one graph (Eq. 7).

    Args:
        auxiliary: the network.
        patches: n.
        one_at_a_time: compute each patch without keeping anything and once more in the backward pass, so that one is
            alive at a time.
        copied: whether the network writes on its features, so that it must be given copies of patches.
    """

    def __init__(self, auxiliary: Auxiliary, patches: int, *, one_at_a_time: bool, copied: bool) -> None:
        super().__init__()
        self.patches = patches
        run = Checkpointed if one_at_a_time else Once
        self.run = run(_OutputsOf(auxiliary), copy_input=copied)
        self.copied = copied

    @property
    def auxiliary(self) -> Auxiliary:
        """The network."""
        return self.run.layer.auxiliary  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]

    def outputs(self, features: Tensor, images: Tensor) -> Outputs:
        pairs = zip(cut_once(features, self.patches), cut(images, self.patches), strict=True)
        return _fused([self.run(patch, image) for patch, image in pairs], self.patches)

    def loss_of(self, outputs: Outputs, images: Tensor, labels: Tensor) -> Tensor:
        return self.auxiliary.loss_of(outputs, images, labels)

    def logits(self, features: Tensor) -> Tensor | None:
        found = [self.auxiliary.logits(patch.clone()) for patch in cut(features, self.patches)]
        return None if found[0] is None else torch.stack([x for x in found if x is not None]).mean(0)

    def with_parts(self, change: Callable[[Auxiliary], Auxiliary | None]) -> Auxiliary | None:
        changed = self.auxiliary.with_parts(change)
        one_at_a_time = isinstance(self.run, Checkpointed)
        return (
            None
            if changed is None
            else Patchwise(changed, self.patches, one_at_a_time=one_at_a_time, copied=self.copied)
        )


class _OutputsOf(nn.Module):
    """An auxiliary network's outputs."""

    def __init__(self, auxiliary: Auxiliary) -> None:
        super().__init__()
        self.auxiliary = auxiliary

    def forward(self, features: Tensor, images: Tensor) -> Outputs:
        return self.auxiliary.outputs(features, images)


def borders(size: int, patches: int) -> list[int]:
    """Where patches begin and end."""
    return [index * size // patches for index in range(patches + 1)]


def places(maps: Tensor, patches: int) -> Iterator[tuple[slice, ...]]:
    """Where the n x n patches of maps (batch, channels, height, width) are, row by row."""
    height, width = maps.shape[2:]
    for top, bottom in pairwise(borders(height, patches)):
        for left, right in pairwise(borders(width, patches)):
            yield slice(None), slice(None), slice(top, bottom), slice(left, right)


def cut(maps: Tensor, patches: int) -> Iterator[Tensor]:
    """The patches, as views."""
    return (maps[place] for place in places(maps, patches))


def cut_once(maps: Tensor, patches: int) -> Iterator[Tensor]:
    """The patches, each to be used once before the next is cut; their gradients are put into one tensor as they come.

    By slicing, each would become a tensor of the maps' whole size, and they would be added up.
    """
    gradient = _Gradient()
    for place in places(maps, patches):
        yield maps[place] if torch.compiler.is_compiling() else _Patch.apply(maps, place, gradient, patches**2)


class _Gradient:
    """Of the maps, while its patches come."""

    def __init__(self) -> None:
        self.whole: Tensor | None = None
        self.patches = 0


class _Patch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, place: tuple[slice, ...], gradient: _Gradient, patches: int) -> Tensor:
        ctx.place, ctx.gradient, ctx.patches = place, gradient, patches
        ctx.like = maps.shape, maps.stride()
        return maps[place]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        found: _Gradient = ctx.gradient
        if found.whole is None:
            found.whole = gradients[0].new_empty_strided(*ctx.like)
        found.whole[ctx.place] = gradients[0]
        found.patches += 1
        if found.patches < ctx.patches:
            return None, None, None, None
        whole, found.whole, found.patches = found.whole, None, 0
        return whole, None, None, None


def _fused(outputs: Sequence[Outputs], patches: int) -> Outputs:
    """The outputs of all patches as one: images put together, all else averaged."""
    first = outputs[0]
    if not isinstance(first, Tensor):
        return tuple(_fused(parts, patches) for parts in zip(*outputs, strict=True))
    tensors = [output for output in outputs if isinstance(output, Tensor)]
    if first.dim() == 2:
        return torch.stack(tensors).mean(0)
    rows = [torch.cat(tensors[i : i + patches], dim=3) for i in range(0, len(tensors), patches)]
    return torch.cat(rows, dim=2)
