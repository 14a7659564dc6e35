"""Training rules: settings that answer which modules, which objectives, which auxiliary networks."""

from __future__ import annotations

from typing import Literal

from locallearn._chain.partition import Partition
from locallearn._objectives.auxiliary import Auxiliary
from locallearn._objectives.objective import Site, Span
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.typed_settings import TypedSettings

Fidelity = Literal["official", "paper"]
"""`"official"`: what the released code does, which made the published numbers; `"paper"`: what the text says."""


class Rule(TypedSettings):
    """Settings that turn a chain and its partition into objectives; subclasses are frozen dataclasses.

    By default a rule takes the user's partition, with one objective per module. The last objective ends in the
    backbone's own classifier, so `auxiliary` is called only for the others.
    """

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
        """A new auxiliary network for a site; it shares no parameter with the backbone or with another site's."""
        raise LocalLearnError(
            f"{type(self).__name__} defines no auxiliary(site), which its objectives need: return a new"
            " locallearn.Auxiliary, as locallearn.Head(network, site.loss)."
        )
