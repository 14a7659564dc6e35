"""What the parts of a network do without keeping for their backward pass, in exchange for computing it again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import ceil

from torch import nn

from locallearn._recompute.activations import Remade
from locallearn._recompute.tape import Tape, taping, units


@dataclass(frozen=True, kw_only=True)
class Thrift:
    """What a part of a network computes again in its backward pass.

    Attributes:
        remake: normalised and activated tensors.
        sliced: these a few images at a time, for activations and convolutions.
        rerun: a stretch of modules as a whole, from its input; an auxiliary network block by block, from theirs: this
            share of its blocks, from the first on. Its last ones are seldom worth it: they go backward while nothing
            else is alive, and behind a stride they are small.
    """

    remake: bool = False
    sliced: bool = False
    rerun: float = 0

    def remaking(self) -> AbstractContextManager[Remade | None]:
        """Around what runs forward, so that it keeps no more than it must."""
        return Remade(sliced=self.sliced) if self.remake else nullcontext()

    @contextmanager
    def around(self, auxiliary: nn.Module) -> Iterator[Tape]:
        """While active, an auxiliary network that runs forward keeps no more than it must.

        What is behind its blocks goes backward first, then the tape.
        """
        blocks = units(auxiliary) if self.rerun else []
        with self.remaking(), taping(blocks[: ceil(self.rerun * len(blocks))], self.remaking) as tape:
            yield tape


KEEP_ALL = Thrift()


@dataclass(frozen=True, kw_only=True)
class ThriftPlan:
    """The thrift of each part.

    Attributes:
        stretches: of each stretch of modules, in order.
        objectives: of each objective's auxiliary network.
    """

    stretches: tuple[Thrift, ...]
    objectives: tuple[Thrift, ...]
