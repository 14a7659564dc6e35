"""Images read by worker processes, in a given order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from locallearn._errors import LocalLearnError
from locallearn.data._workers import alive, leave_signals_to_the_trainer, processors


def loaded(images: Dataset[Any], batches: Sequence[Sequence[Any]], *, workers: int) -> Iterator[list[Any]]:
    """Batches of what a data set gives.

    Args:
        images: the data set.
        batches: its keys, batch by batch.
        workers: processes, at most as many as there are processors; 0 reads between the steps.

    Raises:
        LocalLearnError: an image cannot be read, or a process died.
    """
    loader = DataLoader(
        _Batches(images),
        batch_size=None,
        sampler=batches,  # pyright: ignore[reportArgumentType]
        num_workers=min(workers, processors()),
        collate_fn=_as_it_is,
        worker_init_fn=leave_signals_to_the_trainer,
        generator=torch.Generator(),  # or the loader would draw from the numbers that training draws from
    )
    for batch in alive(loader):
        if isinstance(batch, LocalLearnError):
            raise batch
        yield batch


class _Batches(Dataset[Any]):
    """Several items at once, or the error of one: raised in a worker, it would come with the worker's traceback."""

    def __init__(self, images: Dataset[Any]) -> None:
        self.images = images

    def __getitem__(self, keys: Sequence[Any]) -> list[Any] | LocalLearnError:
        try:
            return [self.images[key] for key in keys]
        except LocalLearnError as error:
            return error


def _as_it_is(batch: Any) -> Any:
    return batch
