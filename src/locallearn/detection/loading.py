"""Images read by worker processes, in a given order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import Dataset

from locallearn._utils.errors import LocalLearnError
from locallearn.data.files.workers import in_order


def loaded(images: Dataset[Any], batches: Sequence[Sequence[Any]], *, workers: int) -> Iterator[list[Any]]:
    """Batches of what a data set gives.

    Args:
        images: the data set.
        batches: its keys, batch by batch.
        workers: processes, at most as many as there are processors; 0 reads between the steps.

    Raises:
        LocalLearnError: an image cannot be read, or a process died.
    """
    for batch in in_order(_Batches(images), batches, workers=workers):
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
