"""Checks of a rule whose auxiliary networks have dropout."""

from dataclasses import dataclass

import pytest
from torch import nn

import locallearn as ll
from locallearn.testing import CHECKS, Case


@dataclass(frozen=True, kw_only=True)
class Dropping(ll.Rule):
    """A linear head after dropout."""

    def auxiliary(self, site: ll.Site) -> ll.Auxiliary:
        pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5))
        return ll.Head(nn.Sequential(*pool, nn.Linear(site.shape[0], site.classes)), site.loss)


CASE = Case(rule=Dropping()).quick
NAMES = ("gradients_are_those_of_each_objective", "accumulation_adds_up", "scale_multiplies_gradients")


@pytest.mark.parametrize("check", [check for check in CHECKS if check.__name__ in NAMES])
def test_a_right_rule_with_dropout_in_its_heads_passes(check):
    check(CASE)
