"""The global random numbers of Python and NumPy, which layers of a user's own may draw."""

from __future__ import annotations

import random
from typing import Any

import numpy as np


def host_random_state() -> tuple[Any, Any]:
    """State of Python's and of NumPy's random numbers."""
    return random.getstate(), np.random.get_state()


def set_host_random_state(state: tuple[Any, Any]) -> None:
    """Restore a state that `host_random_state` returned, or one with lists in place of arrays."""
    random.setstate(state[0])
    np.random.set_state(state[1])


def seed_host(seed: int) -> None:
    """Begin both anew."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
