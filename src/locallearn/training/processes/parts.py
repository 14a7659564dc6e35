"""Whether every batch can be cut into parts for processes and micro-batches."""

from __future__ import annotations

from locallearn._engine.micro_batches import refuse_single_image
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted


def drops_single_image(
    count: int,
    batch: int,
    *,
    processes: int,
    micro_batches: int,
    needs_several: str | None,
    synchronised: bool = False,
) -> bool:
    """Whether to leave out the last batch of an epoch, because it is a single image and some part needs several.

    Args:
        count: images in an epoch.
        batch: images in a batch.
        processes: which share each batch.
        micro_batches: into which each process cuts its part, as far as it has the images.
        needs_several: a part of the network that normalises over several images, or None.
        synchronised: whether processes wait for each other in every micro-batch, so that each needs as many.

    Raises:
        LocalLearnError: of another batch, a process has no image; or one alone in a micro-batch, and some part needs
            several; or fewer micro-batches than another process.
    """
    last = count % batch
    sizes = {min(batch, count), last} - {0}
    drops = last == 1 and len(sizes) == 2 and needs_several is not None
    for size in sizes - {1} if drops else sizes:
        fewest = size // processes
        if not fewest:
            raise LocalLearnError(
                f"{'the last' if size == last else 'a'} batch of {counted(size, 'image')} cannot be cut among"
                f" {processes} processes: choose another batch, or fewer processes."
            )
        refuse_single_image(size, micro_batches, needs_several, processes=processes)
        if synchronised and size % processes and fewest < micro_batches:
            raise LocalLearnError(
                f"a batch of {size} images among {processes} processes makes {counted(fewest, 'micro-batch')} in some"
                f" and {fewest + 1} in others, which cannot share statistics: choose another batch or accumulate."
            )
    return drops
