"""Python state in a network's own forward code: refused with the remedy, repeated in each step, or told."""

from __future__ import annotations

import copy
import itertools
import random
import secrets
import threading
import time
import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import locallearn as ll

IMAGES, LABELS = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])


class Block(nn.Module):
    """Reads values, draws random numbers, counts: a block runs as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4, momentum=None)
        self.last = nn.Conv2d(4, 4, 1)
        self.runs = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        y = self.norm(self.convolution(x))
        if y.mean() > 0 and not torch.equal(x, y):
            y = y * 2
        return x + self.last(y) * random.random() * np.random.rand()


class Network(nn.Module):
    def __init__(self, change=lambda self, x: x) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), Block(), Block()
        self.fc = nn.Linear(4, 3)
        self.change, self.alpha, self.calls = change, 2.0, 0
        self.writer = Writer()
        self.generators = {"python": random.Random(0), "numpy": np.random.default_rng(0)}
        self.values, self.table, self.torch = [], {}, torch.Generator()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.change(self, self.stem(x))
        return self.fc(self.two(self.one(x)).mean((2, 3)))


class Silent(Block):
    """The same without random numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.last(self.norm(self.convolution(x)))


class Followed(nn.Module):
    """Layers in a list, whose code is followed."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def counts(self, x):
    self.calls += 1
    return x


def stores(self, x):
    self.last = x
    return x


OWN = types.SimpleNamespace(python=random.Random(0), numpy=np.random.default_rng(0), count=itertools.count(1), calls=0)


def draws(self, x):
    return x * self.generators["python"].random() * self.generators["numpy"].random()


class Writer(nn.Module):
    """Writes to the list that it is given."""

    def forward(self, xs):
        xs[0] = xs[0] * 2
        return xs[0]


def seeds(self, x):
    torch.manual_seed(torch.initial_seed() + 1)
    return x * torch.rand(1)


def counts_outside(self, x):
    OWN.calls += 1
    return x * OWN.calls


def fills(self, x):
    self.table["last"] = x
    return x


def assigns(self, x):
    x = x * 1
    x[:, 0] = 0
    return x


TWICE = "when it runs twice, mul.* is mul.* the second time"
REFUSED = {
    "an own generator of Python": (draws, "changes the attribute 'generators'"),
    "a generator elsewhere": (lambda self, x: x * OWN.python.random(), TWICE),
    "a generator of NumPy elsewhere": (lambda self, x: x * float(OWN.numpy.random()), TWICE),
    "a count": (lambda self, x: x * next(OWN.count), TWICE),
    "a count elsewhere": (counts_outside, TWICE),
    "time": (lambda self, x: x * time.perf_counter(), TWICE),
    "random numbers of the system": (lambda self, x: x * secrets.randbelow(10**9), TWICE),
    "a list that grows": (lambda self, x: self.values.append(x) or x, "changes the attribute 'values'"),
    "a dictionary": (fills, "changes the attribute 'table'"),
    "a generator of PyTorch": (lambda self, x: x * torch.rand(1, generator=self.torch), "torch.Generator of its own"),
    "data": (lambda self, x: x * torch.from_numpy(np.ones(1, np.float32)), "a tensor that is no attribute"),
    "all parameters": (lambda self, x: x + sum(p.mean() for p in self.parameters()), "name each parameter"),
    "a hook": (lambda self, x: x.register_hook(print) and x, "gives a builtin_function_or_method to an operator"),
    "a seed": (seeds, "draws random numbers from PyTorch after torch.manual_seed"),
    "a list given to a module": (lambda self, x: self.writer([x]), "a module writes to a list that it is given"),
    "a part written": (assigns, r"assigns to a part of a tensor"),
    "random numbers of Python": (lambda self, x: x * random.random(), "draws random numbers from Python's random"),
    "random numbers of NumPy": (lambda self, x: x * np.random.rand(), "draws random numbers from NumPy"),
    "an attribute counted": (counts, "changes the attribute 'calls'"),
    "an attribute stored": (stores, "changes the attribute 'last'"),
    "a choice by values": (lambda self, x: x * 2 if x.mean() > 0 else x, "reads the values of"),
    "a number read": (lambda self, x: x * x.mean().item(), "reads a number from a tensor"),
}


@pytest.mark.parametrize("code", REFUSED)
def test_what_a_graph_would_repeat_is_refused_with_the_remedy(code):
    change, sentence = REFUSED[code]
    states = random.getstate(), np.random.get_state()[2]
    model = Network(change)
    with pytest.raises(ll.LocalLearnError, match=f"{sentence}.*put that code into a module of its own"):
        ll.localize(model, ll.DGL(), input_shape=(3, 8, 8))
    assert (random.getstate(), np.random.get_state()[2]) == states
    assert model.calls == 0


@pytest.mark.parametrize("memory", ["fast", "lean", "least"])
@pytest.mark.parametrize("rule", [ll.BP(), ll.DGL(), ll.MAN(ll.DGL())], ids=str)
def test_blocks_that_read_values_draw_and_count_run_as_they_are(rule, memory):
    model = Network()
    net = ll.localize(model, rule, input_shape=(3, 8, 8), memory=memory)
    assert net.chain.names == ("stem", "one", "two")
    assert model.one.runs == 0
    assert net.backward(IMAGES, LABELS).isfinite().all()
    assert model.one.runs == 1


def test_tensors_made_in_forward_are_made_anew_in_each_step():
    model = Network(lambda self, x: x * torch.rand(1) + torch.arange(4)[None, :, None, None])
    model.one = model.two = nn.Sequential()
    model.extra = nn.Conv2d(4, 4, 1)
    net = ll.localize(model, ll.BP(), input_shape=(3, 8, 8))
    torch.manual_seed(0)
    expected = [torch.nn.functional.cross_entropy(model(IMAGES), LABELS) for _ in range(2)]
    torch.manual_seed(0)
    losses = [net.backward(IMAGES, LABELS)[0] for _ in range(2)]
    assert losses[0] != losses[1]
    assert torch.equal(torch.stack(losses), torch.stack(expected).detach())


CHANGED_LATER = {
    "a number": lambda model: setattr(model, "alpha", 3.0),
    "a private number": lambda model: setattr(model, "_beta", 3.0),
    "None": lambda model: setattr(model, "option", 3.0),
    "a list": lambda model: model.values.__setitem__(0, 3.0),
    "a dictionary": lambda model: model.table.update(a=3.0),
    "an object": lambda model: setattr(model.settings, "alpha", 3.0),
    "an array": lambda model: model.array.__setitem__(0, 3.0),
    "a function": lambda model: setattr(model, "change", torch.relu),
    "an attribute of a later day": lambda model: setattr(model, "extra", 3.0),
}


@pytest.mark.parametrize("what", CHANGED_LATER)
def test_an_attribute_that_changes_later_is_told_once(what):
    model = Network(lambda self, x: x * self.alpha)
    model._beta, model.option, model.values, model.table = 2.0, None, [2.0], {"a": 2.0}
    model.settings, model.array, model.tensor = types.SimpleNamespace(alpha=2.0), np.ones(2), torch.ones(1)
    net = copy.deepcopy(ll.localize(model, ll.BP(), input_shape=(3, 8, 8)))
    CHANGED_LATER[what](net.model)
    with pytest.warns(ll.LocalLearnWarning, match=r"the attribute '\w+' changed after localize"):
        net.backward(IMAGES, LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.backward(IMAGES, LABELS)


def test_attributes_that_stay_are_not_told():
    model = Network()
    model.generator, model.words, model.names = torch.Generator(), {"a", "b"}, [len, model.stem, (1, "a")]
    net = ll.localize(model, ll.BP(), input_shape=(3, 8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.backward(IMAGES, LABELS)


def test_a_plain_tensor_of_the_network_is_read_in_each_step():
    model = Network(lambda self, x: x * self.scale)
    model.one, model.two, model.scale = Silent(), Silent(), torch.tensor(2.0)
    net = ll.localize(model, ll.BP(), input_shape=(3, 8, 8))
    for scale in (2.0, 3.0):
        net.model.scale.fill_(scale)
        expected = torch.nn.functional.cross_entropy(model(IMAGES), LABELS)
        assert net.backward(IMAGES, LABELS)[0] == expected


def test_several_threads_localize_at_once_and_leave_modules_as_they_were():
    call, errors = nn.Module.__call__, []

    def work() -> None:
        try:
            for _ in range(2):
                ll.localize(Network(), ll.DGL(), input_shape=(3, 8, 8)).backward(IMAGES, LABELS)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert nn.Module.__call__ is call
    nn.Linear(2, 2)(torch.randn(1, 2))


def test_fake_quantisation_trains():
    quantise = torch.ao.quantization.FakeQuantize()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), quantise, nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    net = ll.localize(model, ll.DGL(), input_shape=(3, 8, 8))
    assert net.backward(IMAGES, LABELS).isfinite().all()
