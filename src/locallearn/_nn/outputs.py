"""Outputs of networks that are no single tensor: dictionaries, tuples, and the dataclasses of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn


def main_output(output: Any, kind: type = Tensor) -> Any:
    """The entry `logits` of an output, else its first tensor; a tensor is its own. None where there is none.

    Args:
        output: a tensor, a mapping, a tuple, a named tuple or a dataclass, such as a ModelOutput of transformers.
        kind: type of the tensors in it.
    """
    if isinstance(output, kind):
        return output
    parts = _parts(output)
    values = [parts["logits"]] if "logits" in parts else parts.values()
    return next((main for value in values if (main := main_output(value, kind)) is not None), None)


def _parts(output: Any) -> Mapping[Any, Any]:
    if isinstance(output, Mapping):
        return output
    if isinstance(output, tuple):
        return dict(zip(getattr(output, "_fields", range(len(output))), output, strict=True))
    if is_dataclass(output):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    return {}


class MainOutput(nn.Module):
    """Passes on the main tensor of an output."""

    def forward(self, output: Any) -> Tensor:
        return main_output(output)
