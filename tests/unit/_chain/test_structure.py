"""Modules of one structure do the same to tensors without data."""

import copy
import functools

import pytest
import torch
from torch import nn

import locallearn as ll
from locallearn._chain import trace
from locallearn._chain.structure import Remembered, structure
from locallearn.models.cifar_resnet import CifarResNet


class Block(nn.Module):
    """A user's own."""

    stride = 1

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 4, 3)
        self.inplace = False

    def forward(self, x):
        return self.conv(x)[:, :, :: self.stride]


def changed(change) -> nn.Module:
    module = nn.Sequential(Block(), nn.BatchNorm2d(4))
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


def resnet8() -> nn.Module:
    return CifarResNet(8)


def test_chains_of_libraries_are_traced_once_in_a_process(monkeypatch):
    runs = []
    trace_once = trace._traced
    monkeypatch.setattr(trace, "_TRACED", Remembered())
    monkeypatch.setattr(trace, "_traced", lambda *arguments: runs.append(arguments) or trace_once(*arguments))

    def shapes(model, size=16):
        return ll.localize(model, ll.BP(), input_shape=(3, size, size)).chain.shapes

    first = shapes(resnet8())
    assert shapes(resnet8()) == first
    assert len(runs) == 1
    assert shapes(resnet8(), 8) != first
    shapes(resnet8().double())
    model = resnet8()
    model.bn1.register_forward_hook(lambda *_: None)
    assert shapes(model) == first
    with torch.autocast("cpu", torch.bfloat16):
        assert ll.localize(resnet8(), ll.BP(), input_shape=(3, 16, 16)).chain.types[0] == torch.bfloat16
    assert len(runs) == 5


def test_a_users_own_code_may_change(monkeypatch):
    def shapes():
        layers = nn.Conv2d(3, 16, 3), Block(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        return ll.localize(nn.Sequential(*layers), ll.BP(), input_shape=(3, 12, 12)).chain.shapes

    assert shapes()[-1] == (4, 8, 8)
    monkeypatch.setattr(Block, "stride", 2)
    assert shapes()[-1] == (4, 4, 8)


@pytest.mark.parametrize("disguise", [lambda function: function, functools.wraps(nn.ReLU.forward)], ids=["", "wraps"])
def test_a_user_may_replace_a_librarys_method(monkeypatch, disguise):
    def localized():
        return ll.localize(resnet8(), ll.BP(), input_shape=(3, 16, 16))

    localized()
    monkeypatch.setattr(nn.ReLU, "forward", disguise(lambda _, x: x[:, :, ::2]))
    with pytest.raises(ll.LocalLearnError, match="cannot take a feature of shape 16x8x16"):
        localized()
