"""HPFF: Hierarchical Locally Supervised Learning with Patch Feature Fusion (Su et al., ECCV 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from locallearn.rules.base import Fidelity, Rule
from locallearn.rules.hilo import HiLo
from locallearn.rules.pff import PFF
from locallearn.rules.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class HPFF(Wrapper):
    """`HiLo(PFF(rule))`: two levels of objectives, and auxiliary networks applied patch by patch.

    The published runs stand on `InfoPro.published("hpff")` and the splits `hpff-K`.

    Args:
        span: modules in a cascade, as in `HiLo`.
        patches: n, for n x n patches, as in `PFF`.
        fidelity: of both; their docstrings list where the paper and the official code differ.
    """

    does = HiLo.does | PFF.does

    span: int = 2
    patches: int = 2
    fidelity: Fidelity = "official"

    @property
    def inner(self) -> Rule:
        patched = PFF(self.rule, patches=self.patches, fidelity=self.fidelity)
        return HiLo(patched, span=self.span, fidelity=self.fidelity)
