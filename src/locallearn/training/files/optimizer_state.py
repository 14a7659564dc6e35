"""State of optimizers by the names of parameters, so that it fits whichever optimizers hold these.

`torch.distributed.checkpoint.state_dict` has the same form. It is not used, because it steps optimizers by zero
gradients to make the state that is not there yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


def optimizers_of(stepper: Any) -> Sequence[Optimizer]:
    """All optimizers of a stepper; one that has none is an optimizer itself."""
    return getattr(stepper, "optimizers", [stepper])


def named_state(net: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Any]:
    """State and settings of optimizers.

    Args:
        net: names the parameters.
        optimizers: over parameters of it.

    Returns:
        `state`, from a parameter's name to its entries, with tensors on the CPU; `param_groups`, each with its settings
        and the names of its parameters (`params`).
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in net.named_parameters()}
    return {
        "state": {
            names[parameter]: {name: _on_cpu(value) for name, value in entries.items()}
            for optimizer in optimizers
            for parameter, entries in optimizer.state.items()
        },
        "param_groups": [
            {**group, "params": [names[parameter] for parameter in group["params"]]}
            for optimizer in optimizers
            for group in optimizer.param_groups
        ],
    }


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value


def joined_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The states of several processes, each with parameters of its own, as one."""
    return {
        "state": {name: entries for state in states for name, entries in state["state"].items()},
        "param_groups": [group for state in states for group in state["param_groups"]],
    }


def load_named_state(net: nn.Module, optimizers: Sequence[Optimizer], saved: Mapping[str, Any]) -> None:
    """Load what `named_state` returned for these parameters, and maybe more; whichever optimizers held them.

    Raises:
        KeyError: a parameter is missing.
        ValueError, RuntimeError, TypeError: the state does not fit.
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in net.named_parameters()}
    settings = {name: group for group in saved["param_groups"] for name in group["params"]}
    for optimizer in optimizers:
        now = optimizer.param_groups
        own = [[names[parameter] for parameter in group["params"]] for group in now]
        numbers = {name: number for number, name in enumerate(name for group in own for name in group)}
        if missing := sorted(numbers.keys() - settings.keys()):
            raise KeyError(missing[0])
        state = {numbers[name]: dict(entries) for name, entries in saved["state"].items() if name in numbers}
        groups = [  # one without parameters keeps its settings
            {**(settings[group[0]] if group else before), "params": [numbers[name] for name in group]}
            for group, before in zip(own, now, strict=True)
        ]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        for group in optimizer.param_groups:
            group["lr"] = float(group["lr"])  # of a captured step, a tensor
    _refuse_other_shapes(optimizers)


def _refuse_other_shapes(optimizers: Sequence[Optimizer]) -> None:
    """Refuse state of SGD and AdamW that does not fit its parameter: fused optimizers would write outside of it.

    Raises:
        ValueError: a tensor has another shape.
    """
    for optimizer in optimizers:
        for parameter, entries in optimizer.state.items():
            for name in ("momentum_buffer", "exp_avg", "exp_avg_sq", "step"):
                if (buffer := entries.get(name)) is None:
                    continue
                if not isinstance(buffer, Tensor) or not buffer.is_floating_point():
                    raise ValueError(f"{name} is no tensor of floating-point numbers")
                if buffer.shape != (() if name == "step" else parameter.shape):
                    raise ValueError(f"{name} has another shape than its parameter")
                entries[name] = buffer.clone()  # whose elements do not overlap, as those of a file may


def group_settings(optimizers: Sequence[Optimizer]) -> list[set[str]]:
    """Names of the settings of each group of parameters, by which kinds of optimizer differ."""
    return [set(group) for optimizer in optimizers for group in optimizer.param_groups]
