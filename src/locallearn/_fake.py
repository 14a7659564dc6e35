"""Fake tensors: shapes, devices and autograd without data.

The only module that touches PyTorch's private names, which may differ between versions.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["TorchDispatchMode", "fake_copy", "fake_mode"]

Module = TypeVar("Module", bound=nn.Module)


@contextmanager
def fake_mode() -> Iterator[FakeTensorMode]:
    """Operations inside compute shapes only; real tensors may enter and are never written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # autograd notes that apply to data, which there is none of
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            yield mode


def fake_copy(module: Module, mode: FakeTensorMode) -> Module:
    """A deep copy whose parameters and buffers are fake: it takes no memory and shares nothing."""
    fakes: dict[int, object] = {id(buffer): mode.from_tensor(buffer) for buffer in module.buffers()}
    for parameter in module.parameters():
        fakes[id(parameter)] = nn.Parameter(mode.from_tensor(parameter.detach()), parameter.requires_grad)
    with unset_fake_temporarily():  # tensors that are not registered are few, and copied as they are
        return copy.deepcopy(module, fakes)
