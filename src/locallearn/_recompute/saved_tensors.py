"""What the backward pass finds where the forward pass saved a tensor: the tensor, or a function that recomputes it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from locallearn._torch import private_api

Recompute = Callable[[Tensor, bool], Tensor]
"""From a source, and whether it may be overwritten, to the tensor that was computed from it."""


class SavedTensor:
    """A tensor saved for the backward pass, or its recomputation."""

    def __init__(self, tensor: Tensor) -> None:
        self._recomputation: Recomputation | None = None
        self.store(tensor)

    def store(self, tensor: Tensor) -> None:
        """Save a tensor."""
        self._tensor: Tensor | None = tensor.detach()
        self._version = private_api.version_of(tensor)

    def replace_by(self, recomputation: Recomputation) -> None:
        """Drop the tensor; `unpack` recomputes it."""
        self._tensor, self._recomputation = None, recomputation
        recomputation.uses += 1

    def shares_storage_with(self, tensor: Tensor) -> bool:
        """Whether the tensor is stored, in the same memory as another."""
        return self._tensor is not None and self._tensor.untyped_storage() is tensor.untyped_storage()

    def has_shape_of(self, tensor: Tensor) -> bool:
        """Whether the tensor is stored, and has the shape of another."""
        return self._tensor is not None and self._tensor.shape == tensor.shape

    def unpack(self) -> Tensor:
        """The tensor, for the backward pass."""
        if self._recomputation is not None:
            return self._recomputation.take()
        assert self._tensor is not None
        refuse_changed(self._tensor, self._version)
        return self._tensor


class Recomputation:
    """How to recompute a tensor: from a source that is stored anyway, or from what another recomputation gives.

    Attributes:
        products: convolutions and linear layers that run for it.
        uses: of the tensor in the backward pass.
    """

    def __init__(self, source: Tensor | Recomputation, recompute: Recompute, result: Tensor, products: int = 0) -> None:
        self.products = products
        self.uses = 0
        self._source, self._recompute = source, recompute
        self._source_version = private_api.version_of(source) if isinstance(source, Tensor) else 0
        self._layout = result.shape, result.stride(), result.dtype, result.storage_offset()
        self._version = private_api.version_of(result)
        self._result: Tensor | None = None
        self._taken = 0

    def gives(self, tensor: Tensor) -> bool:
        """Whether a tensor in the result's memory is the result, unchanged."""
        layout = tensor.shape, tensor.stride(), tensor.dtype, tensor.storage_offset()
        return layout == self._layout and private_api.version_of(tensor) == self._version

    def take(self) -> Tensor:
        """The tensor; it stays alive until every `SavedTensor` that needs it has taken it."""
        result = self._result = self._run() if self._result is None else self._result
        self._taken += 1
        if self._taken >= self.uses:
            self._result, self._taken = None, 0
        return result

    @torch.no_grad()
    def _run(self) -> Tensor:
        if isinstance(self._source, Tensor):
            refuse_changed(self._source, self._source_version)
            return self._recompute(self._source, False)
        if self._source._result is not None:
            return self._recompute(self._source._result, False)
        return self._recompute(self._source._run(), True)


def refuse_changed(tensor: Tensor, version: int) -> None:
    """Raise PyTorch's own error where a tensor was written on since it was saved."""
    if private_api.version_of(tensor) != version:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation:"
            f" a tensor of shape {tuple(tensor.shape)}"
        )
