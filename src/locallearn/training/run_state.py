"""What a run's checkpoint holds, and whether that fits the run: a right hash alone does not say so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from locallearn._utils.errors import LocalLearnError
from locallearn.training.checkpoint import load_checkpoint

FORMAT = 1
"""Version of the entries; raise it when they change. Checkpoints without a version have those of version 1."""

_SET_IN_TRAINING = ("lr", "capturable")
_BUFFERS = ("momentum_buffer", "exp_avg", "exp_avg_sq")
"""State of SGD and AdamW that has the shape of its parameter."""


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) is float


def _is_list_of(kind: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is list and all(type(part) is kind for part in value)


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(type(name) is str for name in value)


def _is_random_state(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"cpu", "device"}:
        return False
    cpu, device = value["cpu"], value["device"]
    return _is_bytes(cpu) and cpu.shape == torch.get_rng_state().shape and (device is None or _is_bytes(device))


def _is_bytes(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.uint8


_ENTRIES: dict[str, Callable[[Any], bool]] = {
    "format": _is_count,
    "epoch": _is_count,
    "step": _is_count,
    "seconds": _is_number,
    "best": _is_number,
    "sums": _is_list_of(float),
    "seen": _is_count,
    "skipped": _is_list_of(str),
    "net": _is_state_dict,
    "optimizers": lambda value: isinstance(value, list | dict),
    "random": _is_random_state,
}
"""Each entry, with a check of its type; `Loop` says what they mean."""


def load_state(file: Path) -> dict[str, Any]:
    """Read and verify a checkpoint of a run.

    Raises:
        LocalLearnError: there is none, it is damaged, or its entries are not those of a run.
    """
    state: Any = load_checkpoint(file)
    if not isinstance(state, dict):
        raise LocalLearnError(f"{file} is no checkpoint of a run: it holds a {type(state).__name__}.")
    state = {"format": FORMAT, **state}
    if state["format"] != FORMAT:
        raise LocalLearnError(
            f"the checkpoint {file} has format {state['format']!r}, and this version of locallearn reads {FORMAT}."
        )
    if missing := _ENTRIES.keys() - state.keys():
        raise LocalLearnError(f"{file} is no checkpoint of a run: it has no {min(missing)}.")
    if unknown := state.keys() - _ENTRIES.keys():
        raise LocalLearnError(f"{file} is no checkpoint of a run: it has an unknown entry {min(unknown, key=str)!r}.")
    if wrong := [name for name, is_right in _ENTRIES.items() if not is_right(state[name])]:
        raise LocalLearnError(f"{file} is no checkpoint of a run: its {wrong[0]} is of another type.")
    return state


def refuse_other_progress(state: dict[str, Any], file: Path, *, epochs: int, steps: int) -> None:
    """Refuse a checkpoint whose epoch or step is not one of the run.

    Args:
        state: of `load_state`.
        file: the checkpoint, for the error.
        epochs: of the run.
        steps: in an epoch.
    """
    epoch, step = state["epoch"], state["step"]
    if not 1 <= epoch <= epochs + 1 or not 0 <= step <= (steps if epoch <= epochs else 0):
        raise LocalLearnError(
            f"the checkpoint {file} is of epoch {epoch}, step {step}; the run has {epochs} epochs of {steps} steps."
        )
    if not (step > 0) == (state["seen"] > 0) == bool(state["sums"]):
        raise LocalLearnError(f"the checkpoint {file} is of step {step}, but its sums are not of so many steps.")


def load_optimizers(stepper: Any, saved: Any, file: Path) -> None:
    """Load the state of optimizers.

    Args:
        stepper: a stepper of several optimizers, or one optimizer.
        saved: its state in a checkpoint.
        file: the checkpoint, for the error.

    Raises:
        LocalLearnError: it is the state of another kind of optimizer, has other settings, or other shapes.
    """
    optimizers = getattr(stepper, "optimizers", [stepper])
    try:
        fits = _groups(saved) == _groups(stepper.state_dict())
        if fits:
            stepper.load_state_dict(saved)
            fits = all(
                entries[name].shape == parameter.shape
                for optimizer in optimizers
                for parameter, entries in optimizer.state.items()
                for name in _BUFFERS
                if entries.get(name) is not None
            )
    except Exception:  # PyTorch does not check the types of what it loads
        fits = False
    if not fits:
        kinds = ", ".join(sorted({type(optimizer).__name__ for optimizer in optimizers}))
        raise LocalLearnError(f"the checkpoint {file} holds no state of the run's optimizer ({kinds}).")


def _groups(optimizers: Any) -> list[list[dict[str, Any]]]:
    """Parameter groups of each optimizer, whose names and values tell its kind, without what training changes."""
    parts = optimizers if isinstance(optimizers, list) else [optimizers]
    changing = dict.fromkeys(_SET_IN_TRAINING)
    return [[group | changing for group in part["param_groups"]] for part in parts]
