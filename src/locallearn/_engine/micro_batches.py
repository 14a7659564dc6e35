"""A batch in micro-batches, whose gradients are summed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """A part of a batch.

    Attributes:
        images, targets: views of the batch's.
        share: images in it, as a share of the batch's: the scale of its losses.
        final: whether it is the last one, after which optimizers step.
    """

    images: Tensor
    targets: Tensor
    share: float
    final: bool


def micro_batches(images: Tensor, targets: Tensor, count: int) -> list[MicroBatch]:
    """Cut a batch into `count` parts, the first ones an image larger where it does not divide; each has an image."""
    count = min(count, len(targets))
    parts = zip(images.tensor_split(count), targets.tensor_split(count), strict=True)
    return [
        MicroBatch(images=part, targets=own, share=len(own) / len(targets), final=number == count - 1)
        for number, (part, own) in enumerate(parts)
    ]


def with_times(parts: Sequence[MicroBatch]) -> list[tuple[MicroBatch, float]]:
    """Three micro-batches that stand for all: the first, one between and the last, each with how many it counts as.

    Before the first there are no gradients, and after the last one optimizers step. Those between are alike.
    """
    between = parts[1:-1]
    stand_in = [(one, sum(part.share for part in between) / one.share) for one in between[:1]]
    last = [(parts[-1], 1.0)] if len(parts) > 1 else []
    return [(parts[0], 1.0), *stand_in, *last]
