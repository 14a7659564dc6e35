"""What a module's own attributes hold, in a form that shows whether they changed."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Generator, Tensor, nn

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Equal to another as long as a value, and all that lists, dictionaries and objects in it hold, stays as it is.

    Attributes:
        values: the numbers, texts and such in it.
        parts: the tensors, modules, generators, functions and classes in it. Which they are counts, not what they hold.
    """

    values: object
    parts: tuple[object, ...] = ()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Fingerprint)
            and self.values == other.values
            and len(self.parts) == len(other.parts)
            and all(one is another for one, another in zip(self.parts, other.parts, strict=True))
        )

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def fingerprints(module: nn.Module) -> dict[str, Fingerprint]:
    """The fingerprints of the attributes that are not PyTorch's: settings, lists, counters, generators, functions."""
    return {name: _fingerprint(value) for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}


def changed(before: Mapping[str, Fingerprint], now: Mapping[str, Fingerprint]) -> Iterator[str]:
    """Names of attributes whose fingerprints differ, or that one side lacks, in alphabetical order."""
    return (name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name))


def _fingerprint(value: object) -> Fingerprint:
    if value is None or isinstance(value, bool | int | float | str):
        return Fingerprint(repr(value))
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, protocol=4)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kinds of objects that will not be pickled one day
            pickler.dump(value)
    except Exception:  # whatever an object of the user's raises
        members = value.values() if isinstance(value, dict) else value if isinstance(value, list | set | tuple) else ()
        return Fingerprint(None, (value, *members))
    return Fingerprint(buffer.getvalue(), tuple(pickler.parts))


class _Pickler(pickle.Pickler):
    """Sets tensors, modules and functions apart."""

    def __init__(self, buffer: io.BytesIO, protocol: int) -> None:
        super().__init__(buffer, protocol)
        self.parts: list[object] = []

    def persistent_id(self, obj: object) -> object:
        if not (isinstance(obj, Tensor | nn.Module | Generator) or callable(obj)):
            return None
        self.parts.append(obj)
        return len(self.parts)
