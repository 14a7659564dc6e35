"""Tensors kept for a backward pass, and recipes that make them instead."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from locallearn._recompute.sliced import Pieces
from locallearn._torch import private_api

Make = Callable[[Tensor, bool], Tensor]
"""From a source, and whether it may be written on, to what was made of it."""


class Kept:
    """A tensor kept for the backward pass, or how to make it."""

    def __init__(self, tensor: Tensor) -> None:
        self._recipe: Recipe | None = None
        self.keep(tensor)

    def keep(self, tensor: Tensor) -> None:
        self._tensor: Tensor | None = tensor.detach()
        self._version = private_api.version_of(tensor)

    def become(self, recipe: Recipe) -> None:
        self._tensor, self._recipe = None, recipe
        recipe.uses += 1

    def is_of(self, tensor: Tensor) -> bool:
        return self._tensor is not None and self._tensor.untyped_storage() is tensor.untyped_storage()

    def is_like(self, tensor: Tensor) -> bool:
        return self._tensor is not None and self._tensor.shape == tensor.shape

    def tensor(self) -> Tensor:
        if self._recipe is not None:
            return self._recipe.take()
        assert self._tensor is not None
        refuse_changed(self._tensor, self._version)
        return self._tensor


class Recipe:
    """How to make a tensor: from a tensor that is kept anyway, or from what another recipe makes."""

    def __init__(self, source: Tensor | Recipe, make: Make, result: Tensor, pieces: Pieces | None) -> None:
        self.uses = 0
        self.pieces = pieces
        self._source, self._make = source, make
        self._source_version = private_api.version_of(source) if isinstance(source, Tensor) else 0
        self._layout = result.shape, result.stride(), result.dtype, result.storage_offset()
        self._version = private_api.version_of(result)
        self._made: Tensor | None = None
        self._taken = 0

    def makes(self, tensor: Tensor) -> bool:
        layout = tensor.shape, tensor.stride(), tensor.dtype, tensor.storage_offset()
        return layout == self._layout and private_api.version_of(tensor) == self._version

    def take(self) -> Tensor:
        """The tensor; it is held until it was taken as often as it would have been kept."""
        made = self._made = self._again() if self._made is None else self._made
        self._taken += 1
        if self._taken >= self.uses:
            self._made, self._taken = None, 0
        return made

    @torch.no_grad()
    def _again(self) -> Tensor:
        if isinstance(self._source, Tensor):
            refuse_changed(self._source, self._source_version)
            return self._make(self._source, False)
        if self._source._made is not None:
            return self._make(self._source._made, False)
        return self._make(self._source._again(), True)


def refuse_changed(tensor: Tensor, version: int) -> None:
    if private_api.version_of(tensor) != version:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation:"
            f" a tensor of shape {tuple(tensor.shape)}"
        )
