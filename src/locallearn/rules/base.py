"""What a training rule is."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from math import isfinite
from numbers import Integral, Real
from typing import Literal

from locallearn._chain.partition import Partition
from locallearn._objectives.auxiliary import Auxiliary
from locallearn._objectives.objective import Site, Span
from locallearn._utils.errors import LocalLearnError

Fidelity = Literal["official", "paper"]
"""`"official"`: what the released code does, which made the published numbers; `"paper"`: what the text says."""


class Rule:
    """Settings that turn a chain and its partition into objectives; subclasses are frozen dataclasses.

    The defaults are those of most rules: the user's partition, one objective per module. The last objective always ends
    in the backbone's own classifier, so a rule is asked for auxiliary networks only before it.
    """

    def __post_init__(self) -> None:
        """Refuse settings of another type than their annotation, where that is int, float or bool."""
        for setting in fields(self) if is_dataclass(self) else ():
            value, kind = getattr(self, setting.name), str(getattr(setting.type, "__name__", setting.type))
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            fits = {
                "int": is_number and isinstance(value, Integral),
                "float": is_number and isfinite(value),
                "bool": isinstance(value, bool),
            }
            if not fits.get(kind, True):
                kinds = {"int": "a whole number", "float": "a finite number", "bool": "true or false"}
                raise LocalLearnError(f"{type(self).__name__}: {setting.name}={value!r} is not {kinds[kind]}.")

    def __str__(self) -> str:
        """The name, without settings."""
        return type(self).__name__

    def partition(self, partition: Partition) -> Partition:
        """Which modules remain of those the user asked for."""
        return partition

    def spans(self, modules: int) -> list[Span]:
        """Which objectives stand over `modules` local modules, in order of `last`, narrow ones first."""
        return [Span(first=module, last=module) for module in range(modules)]

    def auxiliary(self, site: Site) -> Auxiliary:
        """A fresh auxiliary network for a site."""
        raise NotImplementedError
