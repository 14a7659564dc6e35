"""Random numbers that depend on given numbers alone."""

from __future__ import annotations

import numpy as np
import torch


def seed_of(*numbers: int) -> int:
    """A seed from any whole numbers that are not negative."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def generator_of(*numbers: int) -> torch.Generator:
    """A CPU generator with that seed."""
    return torch.Generator().manual_seed(seed_of(*numbers))


def order_of(count: int, *, seed: int | None, epoch: int) -> np.ndarray:
    """The order of an epoch's images, (count,); without a seed, that of their numbers."""
    order = np.arange(count)
    if seed is not None:
        np.random.default_rng([seed, epoch]).shuffle(order)
    return order
