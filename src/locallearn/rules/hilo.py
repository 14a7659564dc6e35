"""HiLo, one half of HPFF: Hierarchical Locally Supervised Learning with Patch Feature Fusion (Su et al., ECCV 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from locallearn._objectives.auxiliary import Auxiliary
from locallearn._objectives.decoders import Reconstruction
from locallearn._objectives.objective import Level, Site, Span
from locallearn._utils.errors import LocalLearnError, refuse_unknown
from locallearn.rules.base import Fidelity
from locallearn.rules.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class HiLo(Wrapper):
    r"""Any rule at two levels: an objective for each module, and cascades over `span` neighbouring modules.

    Cascades overlap; each has an auxiliary network of its own behind its last module, of the same kind as those of the
    modules. The learning rates of the two levels in Eq. 3-5 are weights of the losses in the code.

    Where the paper (section 3.2, section 4.1) and the official code (`network/resnetInfoPro_HPFF.py`) differ:

    ==================== ========================================== ============================================
    \                    `fidelity="official"`                      `fidelity="paper"`
    ==================== ========================================== ============================================
    first modules        those that end no cascade have no          every module but the last has one
                         objective of their own
    last module          ends a cascade; both its objectives go     is trained by itself, with weight 1
                         through the one classifier
    reconstruction       of cascades alone; the other level has     at both levels
                         the task loss, with weight 1
    ==================== ========================================== ============================================

    The code runs each module several times, and so updates running statistics several times a step; here it runs once.

    Args:
        span: modules in a cascade, k; at least 2. One module is plain backpropagation; other numbers too small for a
            cascade are refused.
        independent, cascade: weights of the two levels; they multiply the inner rule's own.
        fidelity: see the table.
    """

    does = frozenset({"puts cascades over the modules"})

    span: int = 2
    independent: float = 0.001
    cascade: float = 0.999
    fidelity: Fidelity = "official"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unknown("fidelity", self.fidelity, get_args(Fidelity))
        if self.span < 2:
            raise LocalLearnError(f"{type(self).__name__}: span={self.span}, but a cascade has at least 2 modules.")
        if min(self.independent, self.cascade) < 0:
            raise LocalLearnError(f"{type(self).__name__}: the weights of the levels must be numbers from 0.")

    def spans(self, modules: int) -> list[Span]:
        if modules == 1:
            return [Span(first=0, last=0)]
        begins = 0 if self.fidelity == "paper" else self.span - 1
        behind = modules - 1 if self.fidelity == "paper" else modules
        if behind < self.span:
            least = self.span + modules - behind
            raise LocalLearnError(
                f"{type(self).__name__} puts cascades over {self.span} neighbouring modules"
                f"{', none of them the last' if behind < modules else ''}, and there are {modules}: ask for at least"
                f" {least} modules, or for a smaller span."
            )
        inner = self.rule.spans(modules)
        if sorted((span.first, span.last) for span in inner) != [(m, m) for m in range(modules)]:
            raise LocalLearnError(
                f"{type(self).__name__} puts cascades over a rule with one objective per module, and {self.rule} has"
                " others: use it without."
            )
        own = {span.last: span.weight for span in inner}
        alone = [Span(first=m, last=m, weight=self.independent * own[m]) for m in range(begins, behind)]
        cascades = [
            Span(first=m - self.span + 1, last=m, weight=self.cascade * own[m]) for m in range(self.span - 1, behind)
        ]
        return [*alone, *cascades, *(Span(first=m, last=m, weight=own[m]) for m in range(behind, modules))]

    def auxiliary(self, site: Site) -> Auxiliary:
        auxiliary = self.rule.auxiliary(site)
        if self.fidelity == "official" and site.level is Level.INDEPENDENT:
            return auxiliary.with_parts(lambda part: None if isinstance(part, Reconstruction) else part) or auxiliary
        return auxiliary
