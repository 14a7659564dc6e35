"""What a part of a network recomputes in its backward pass instead of storing it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import ceil

from torch import nn

from locallearn._recompute.activations import CHEAP, PRODUCTS, RecomputeActivations
from locallearn._recompute.tape import CheckpointTape, checkpointing


@dataclass(frozen=True, kw_only=True)
class RecomputePolicy:
    """What a graph segment or an auxiliary network recomputes.

    Attributes:
        activations: normalised and activated tensors.
        products: what convolutions and linear layers give as well, so that a residual block stores its input alone.
            Most are recomputed several times.
        output: the segment's output, where all its objectives span just its modules. It is freed in the backward pass
            and computed again for the next segment. Not with `blocks`.
        blocks: a segment as a whole, from its input, where this is not 0; of an auxiliary network this share of its
            blocks, each from its own input, from the first on. The last ones are seldom worth it: they go backward
            while nothing else is alive, and after a stride they are small.
    """

    activations: bool = False
    products: bool = False
    output: bool = False
    blocks: float = 0

    def saving(self) -> AbstractContextManager[RecomputeActivations | None]:
        """The context of a forward pass, in which it saves no more than it must."""
        functions = (CHEAP if self.activations else {}) | (PRODUCTS if self.products else {})
        return RecomputeActivations(functions) if functions else nullcontext()

    @contextmanager
    def forward_of(self, blocks: Sequence[nn.Module]) -> Iterator[CheckpointTape]:
        """The context of an auxiliary network's forward pass.

        Args:
            blocks: the network's blocks, in order.

        Yields:
            The tape of the recomputed blocks, to be unwound after the backward pass of the rest.
        """
        recomputed = blocks[: ceil(self.blocks * len(blocks))]
        with self.saving(), checkpointing(recomputed, self.saving) as tape:
            yield tape


STORE_ALL = RecomputePolicy()
"""Recomputes nothing."""


@dataclass(frozen=True, kw_only=True)
class RecomputePlan:
    """The policy of each part of a network.

    Attributes:
        segments: of each graph segment, in order.
        objectives: of each objective's auxiliary network.
    """

    segments: tuple[RecomputePolicy, ...]
    objectives: tuple[RecomputePolicy, ...]
