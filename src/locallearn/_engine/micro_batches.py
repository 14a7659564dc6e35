"""A batch in micro-batches, whose gradients are summed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted


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


def refuse_single_image(images: int, parts: int, needs_several: str | None, *, processes: int = 1) -> None:
    """Refuse micro-batches of a single image where some part of the network needs several.

    Args:
        images: in a batch.
        parts: into which each process cuts its share of the batch, as far as it has the images.
        needs_several: that part, or None.
        processes: which share the batch.
    """
    fewest = images // processes
    if needs_several is not None and fewest // min(parts, fewest) == 1:
        if images == 1:
            raise LocalLearnError(
                f"a batch has one image, but {needs_several} normalises over several: give more images."
            )
        among = f" for each of {processes} processes" if processes > 1 else ""
        raise LocalLearnError(
            f"a batch of {images} images in {counted(parts, 'part')}{among} leaves a single image in one, but"
            f" {needs_several} normalises over several: choose another batch or accumulate."
        )


def with_times(parts: Sequence[MicroBatch]) -> list[tuple[MicroBatch, float]]:
    """Three micro-batches that stand for all: the first, one between and the last, each with how many it counts as.

    Before the first there are no gradients, and after the last one optimizers step. Those between are alike.
    """
    between = parts[1:-1]
    stand_in = [(one, sum(part.share for part in between) / one.share) for one in between[:1]]
    last = [(parts[-1], 1.0)] if len(parts) > 1 else []
    return [(parts[0], 1.0), *stand_in, *last]
