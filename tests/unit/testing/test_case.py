"""Checks of a rule whose auxiliary networks have dropout."""

from dataclasses import dataclass

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

import locallearn as ll
from locallearn.testing import CHECKS, Case


@dataclass(frozen=True, kw_only=True)
class Dropping(ll.Rule):
    """A linear head after dropout."""

    def auxiliary(self, site: ll.Site) -> ll.Auxiliary:
        pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5))
        return ll.Head(nn.Sequential(*pool, nn.Linear(site.shape[0], site.classes)), site.loss)


class Drops(nn.Module):
    """Dropout by the function."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(F.dropout2d(x, 0.3, self.training), 0.5, training=self.training)


@dataclass(frozen=True, kw_only=True)
class DroppingByFunction(ll.Rule):
    """The same head, with functions of dropout."""

    def auxiliary(self, site: ll.Site) -> ll.Auxiliary:
        pool = (Drops(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return ll.Head(nn.Sequential(*pool, nn.Linear(site.shape[0], site.classes)), site.loss)


CASES = [Case(rule=rule).quick for rule in (Dropping(), DroppingByFunction())]
NAMES = ("gradients_are_those_of_each_objective", "accumulation_adds_up", "scale_multiplies_gradients")


@pytest.mark.parametrize("case", CASES, ids=["modules", "functions"])
@pytest.mark.parametrize("check", [check for check in CHECKS if check.__name__ in NAMES])
def test_a_right_rule_with_dropout_in_its_heads_passes(check, case):
    check(case)
