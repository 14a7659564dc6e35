"""Auxiliary networks are tried out once for each structure."""

import copy

import pytest
import torch
from torch import nn

import locallearn as ll
from locallearn._objectives import trial
from locallearn._objectives.structure import structure
from networks import SMALL


class Rectified(nn.Module):
    """Writes on its input, or not."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 4, 3)
        self.inplace = inplace

    def forward(self, x):
        return self.conv(x.relu_() if self.inplace else x.relu())


def changed(change) -> nn.Module:
    module = nn.Sequential(Rectified(False), nn.BatchNorm2d(4))
    change(module)
    return module


CHANGES = {
    "attribute": lambda module: setattr(module[0], "inplace", True),
    "number of another type": lambda module: setattr(module[0], "inplace", 0),
    "function": lambda module: setattr(module[0], "forward", lambda x: x.add_(1)),
    "hook": lambda module: module[0].register_forward_pre_hook(lambda _, inputs: inputs[0].add_(1)),
    "tensor outside of parameters and buffers": lambda module: setattr(module[0], "limits", (torch.ones(1),)),
    "type": lambda module: module.__setitem__(1, nn.Identity()),
    "shape": lambda module: setattr(module[0], "conv", nn.Conv2d(16, 4, 1)),
    "dtype": lambda module: module[0].double(),
    "frozen": lambda module: module.requires_grad_(False),
    "mode": lambda module: module[1].eval(),
    "shared parameter": lambda module: setattr(module[1], "bias", module[1].weight),
}


@pytest.mark.parametrize("name", CHANGES)
def test_modules_that_may_differ_have_different_structures(name):
    plain, other = changed(lambda _: None), changed(CHANGES[name])
    assert structure(plain) != structure(other)


def test_weights_are_no_part_of_a_structure():
    module = changed(lambda _: None)
    other = copy.deepcopy(module)
    nn.init.zeros_(other[0].conv.weight)
    assert structure(module) == structure(other)


class InPlaceAtTheSecondSite(ll.DGL):
    """Heads of one structure but for an attribute of the second."""

    def auxiliary(self, site):
        front = nn.Sequential(Rectified(site.module == 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
        return ll.Head(front, site.loss)


def test_one_network_in_place_among_equal_ones_gets_a_copy_of_its_features():
    net = ll.localize(ll.models.resnet20(), InPlaceAtTheSecondSite(), modules=["stem", "layer1.0", "layer1.1"],
                      input_shape=SMALL)  # fmt: skip
    assert [objective.copy_features for objective in net.objectives] == [False, True, False, False]


def test_networks_of_equal_structure_are_run_once(monkeypatch):
    runs = []
    run_once = trial._writes
    monkeypatch.setattr(trial, "_writes", lambda *arguments: runs.append(arguments) or run_once(*arguments))
    net = ll.localize(ll.models.resnet20(), ll.DGL(), input_shape=SMALL)
    assert len(net.objectives) == 10
    assert len(runs) == 3  # one for each width
