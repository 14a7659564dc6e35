"""What forward code does in Python that a graph does not repeat: random numbers drawn and attributes written."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from locallearn._nn.attributes import changed, fingerprints
from locallearn._utils.host_random import host_random_state, set_host_random_state


class CannotTraceError(Exception):
    """Forward code that cannot be written as a graph; the message says why."""


class DrewRandomNumbersError(CannotTraceError):
    """Random numbers were drawn while code was traced, by that code or by another thread."""


class PlainForward:
    """While active, forward code may neither draw random numbers in Python nor change what attributes hold.

    A graph would repeat what they were while it was traced.

    Args:
        modules: the modules whose own code is traced, each with its path; attributes are restored.
    """

    def __init__(self, modules: Sequence[tuple[str, nn.Module]]) -> None:
        self._modules = modules

    def __enter__(self) -> None:
        self._attributes = [dict(vars(module)) for _, module in self._modules]
        self._fingerprints = [fingerprints(module) for _, module in self._modules]
        self._random = host_random_state()
        self._seed = torch.initial_seed()

    def __exit__(self, error: object, *_: object) -> None:
        drew = self._drew()
        set_host_random_state(self._random)
        written = self._written()
        if error is not None:
            return
        remedy = "put that code into a module of its own, which runs as it is"
        if drew:
            raise DrewRandomNumbersError(f"it draws random numbers from {drew}: {remedy}")
        if written:
            raise CannotTraceError(f"it changes the attribute {written!r}: {remedy}")

    def _drew(self) -> str | None:
        if torch.initial_seed() != self._seed:
            return "PyTorch after torch.manual_seed"
        if random.getstate() != self._random[0]:
            return "Python's random"
        state, before = np.random.get_state(legacy=False), self._random[1]
        now = state["state"]  # pyright: ignore[reportArgumentType, reportCallIssue]
        return "NumPy" if now["pos"] != before[2] or (now["key"] != before[1]).any() else None

    def _written(self) -> str | None:
        written = None
        each = zip(self._modules, self._attributes, self._fingerprints, strict=True)
        for (path, module), attributes, before in each:
            names = changed(before, fingerprints(module))
            written = written or next((f"{path}.{name}" if path else name for name in names), None)
            vars(module).clear()
            vars(module).update(attributes)
        return written
