"""Training rules: settings that answer which modules, which objectives, which auxiliary networks."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from math import isfinite
from numbers import Integral, Real
from typing import Literal, get_args

from locallearn._chain.partition import Partition
from locallearn._objectives.auxiliary import Auxiliary
from locallearn._objectives.objective import Site, Span
from locallearn._utils.errors import LocalLearnError, refuse_unknown

Fidelity = Literal["official", "paper"]
"""`"official"`: what the released code does, which made the published numbers; `"paper"`: what the text says."""


class Rule:
    """Settings that turn a chain and its partition into objectives; subclasses are frozen dataclasses.

    By default a rule takes the user's partition, with one objective per module. The last objective ends in the
    backbone's own classifier, so `auxiliary` is called only for the others.
    """

    def __post_init__(self) -> None:
        """Refuse settings whose type is not that of their annotation, int, float or bool, and an unknown fidelity."""
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
            if setting.type in ("Fidelity", Fidelity):
                refuse_unknown(setting.name, value, get_args(Fidelity))

    def __str__(self) -> str:
        """The name, without settings."""
        return type(self).__name__

    def partition(self, partition: Partition) -> Partition:
        """The modules that remain of those the user asked for."""
        return partition

    def spans(self, modules: int) -> list[Span]:
        """The objectives over `modules` local modules, in any order."""
        return [Span(first=module, last=module) for module in range(modules)]

    def auxiliary(self, site: Site) -> Auxiliary:
        """A new auxiliary network for a site."""
        raise NotImplementedError
