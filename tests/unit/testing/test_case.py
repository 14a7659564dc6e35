"""Checks of a rule whose auxiliary networks have dropout, and of a network that runs a part of its layers."""

from dataclasses import dataclass

import pytest
import torch
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


class Choosing(nn.Module):
    """Runs one of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.one(x) if x.mean() > 0 else self.other(x))


def choosing() -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [part for _ in range(3) for part in (Choosing(), nn.ReLU())]
    return nn.Sequential(nn.Conv2d(3, 8, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


CASES = [Case(rule=rule).quick for rule in (Dropping(), DroppingByFunction())]
CASES.append(Case(make=choosing, image_shape=(3, 8, 8)))
NAMES = ("gradients_are_those_of_each_objective", "accumulation_adds_up", "scale_multiplies_gradients")


@pytest.mark.parametrize("case", CASES, ids=["modules", "functions", "a branch"])
@pytest.mark.parametrize("check", [check for check in CHECKS if check.__name__ in NAMES])
def test_a_rule_with_dropout_in_its_heads_and_a_network_with_a_branch_pass(check, case):
    check(case)


class Unused(Dropping):
    def auxiliary(self, site: ll.Site) -> ll.Auxiliary:
        head = super().auxiliary(site)
        head.forgotten = nn.Linear(2, 2)
        return head


def test_a_part_that_never_trains_is_noticed():
    check = next(check for check in CHECKS if check.__name__ == NAMES[0])
    with pytest.raises(AssertionError, match=r"'auxiliary\.0\.forgotten\.bias', .* have no gradient"):
        check(Case(rule=Unused()).quick)
