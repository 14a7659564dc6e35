"""What depends on the device: which one, its name, its random state."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from locallearn._utils.errors import LocalLearnError, OutOfMemoryError
from locallearn._utils.host_random import host_random_state, seed_host, set_host_random_state
from locallearn._utils.quantities import there_are

Module = TypeVar("Module", bound=nn.Module)
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
"""What PyTorch's errors say, and those of CUDA and its libraries."""


def device_of(name: str) -> torch.device:
    """The device that a name means; `auto` is a GPU where there is one.

    Raises:
        LocalLearnError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise LocalLearnError(f"unknown device {name!r}: give auto, cpu, cuda or cuda:0.") from error
    if device.type == "meta":
        raise LocalLearnError("device 'meta' computes nothing: give auto, cpu, cuda or cuda:0.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise LocalLearnError(f"device {name!r} is asked for, but PyTorch finds no CUDA GPU here: use --device cpu.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise LocalLearnError(f"device {name!r} is asked for, but {there_are(torch.cuda.device_count(), 'GPU')}.")
    try:
        torch.empty(1, device=device).add_(1)
    except (RuntimeError, NotImplementedError, AssertionError, ImportError) as error:
        raise LocalLearnError(
            f"this PyTorch cannot compute on device {name!r}: give auto, cpu, cuda or cuda:0."
        ) from error
    return device


def device_name(device: torch.device) -> str:
    """The name of the hardware, such as `Intel(R) Xeon(R) Processor` or `NVIDIA H100 80GB HBM3`."""
    if device.type != "cpu":
        return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def mixed(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Autocast to a dtype; None changes nothing."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def mixed_now(device: torch.device) -> torch.dtype | None:
    """The dtype of autocast where it is active, else None."""
    is_active = device.type != "meta" and torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if is_active else None


def channels_last(module: Module) -> Module:
    """The module with its weights in memory as convolutions on channels-last images read them."""
    return module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def is_capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured on the device, while its random state cannot be read."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def random_state(device: torch.device) -> dict[str, Any]:
    """PyTorch's global random state on the CPU and on the training device."""
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "device": on_device}


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore a state that `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["device"] is not None:
        torch.cuda.set_rng_state(state["device"], device)


def seed_all(seed: int) -> None:
    """Begin PyTorch's, Python's and NumPy's global random numbers anew."""
    torch.manual_seed(seed)
    seed_host(seed)


def all_random_states(device: torch.device) -> dict[str, Any]:
    """`random_state`, and those of Python and NumPy, for a checkpoint: tensors, numbers and lists of them."""
    python, (kind, keys, *rest) = host_random_state()
    return random_state(device) | {"python": python, "numpy": (kind, keys.tolist(), *rest)}


def set_all_random_states(state: dict[str, Any], device: torch.device) -> None:
    """Restore states that `all_random_states` returned."""
    set_random_state(state, device)
    set_host_random_state((state["python"], state["numpy"]))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on an accelerator or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError | OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
