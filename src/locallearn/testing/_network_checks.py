"""What every network must pass under a rule, and `check_network`, which runs it for a network of your own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from locallearn._chain import Shape
from locallearn._local_net import LocalNet
from locallearn._localize import localize
from locallearn.rules import DGL, Rule
from locallearn.testing import _alike
from locallearn.testing._networks import assert_close, batch_for, gradients, recomputing_step, sgd

DOUBLE = torch.float64


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, its images, and a rule to train it by.

    Attributes:
        make: makes the network, always with the same weights; what is random in its forward (dropout) must be off.
        image_shape: channels, height, width of one image.
        rule: the rule.
        layers: as for `localize`.
    """

    make: Callable[[], nn.Module]
    image_shape: Shape
    rule: Rule = field(default_factory=DGL)
    layers: tuple[str, ...] | None = None

    def net(self, *, modules: str | int = "all", dtype: torch.dtype = torch.float32) -> LocalNet:
        """The localized network."""
        model = self.make().to(dtype)
        return localize(model, self.rule, modules=modules, input_shape=self.image_shape, layers=self.layers)

    def batch(self, net: LocalNet, images: int = 4, *, seed: int = 1) -> tuple[Tensor, Tensor]:
        """Random images and labels, of the network's type."""
        return batch_for(net, images, seed=seed)


def the_network_is_left_alone(case: Case) -> None:
    """`localize` changes no weight, buffer, key, output or random state; each tensor is in the state dict once."""
    plain, model = case.make().eval(), case.make().eval()
    build = partial(localize, model, case.rule, input_shape=case.image_shape, layers=case.layers)
    net = _alike.is_left_alone(model, plain, build)
    net.backward(*case.batch(net))
    missing = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert not missing, f"{missing[:3]} have no gradient"


def the_chain_computes_what_the_network_computes(case: Case) -> None:
    """Bit for bit, in training and in evaluation."""
    for training in (True, False):
        model = case.make().train(training)
        net = localize(case.make(), case.rule, input_shape=case.image_shape, layers=case.layers).train(training)
        features, _ = case.batch(net)
        expected = model(features)
        for module in net.local_modules:
            features = module(features)
        found = net.objectives[-1].logits(features)
        assert found is not None
        assert torch.equal(found, expected), f"the chain computes something else, training={training}"


def one_module_is_backpropagation(case: Case) -> None:
    """K = 1 is plain backpropagation, but for the order in which some sums are taken."""
    net, plain = case.net(modules=1, dtype=DOUBLE), case.make().to(DOUBLE)
    optimizers = sgd(net), sgd(plain)
    for seed in range(2):
        images, labels = case.batch(net, seed=seed)
        net.backward(images, labels)
        F.cross_entropy(plain(images), labels).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    expected = plain.state_dict()
    for name, value in net.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-11, msg=f"{name} differs")


def gradients_are_those_of_each_objective(case: Case) -> None:
    """Losses and gradients are those of running every objective by itself, in float64."""
    net = case.net(dtype=DOUBLE)
    reference = copy.deepcopy(net)
    losses = net.backward(*case.batch(net))
    expected = recomputing_step(reference, *case.batch(net))
    torch.testing.assert_close(losses, expected, rtol=1e-9, atol=1e-9)
    assert_close(gradients(net), gradients(reference), "gradients", relative=1e-6, absolute=1e-11)


def peak_is_below_one_summed_backward(case: Case) -> None:
    """The peak of live bytes is no higher than that of one backward of the sum, nor than predicted without running."""
    net = case.net(modules=3)
    _alike.has_a_low_peak(net, *case.batch(net, 8), within=0.02)


def resuming_is_exact(case: Case) -> None:
    """Saving and loading in the middle of training changes no bit."""
    _alike.resumes(case.net(modules=3), case.net(modules=3), case.net(modules=3), steps=3)


def stepping_each_module_at_once_changes_nothing(case: Case) -> None:
    """A module stepped as soon as it is complete gets the weights of stepping all together, bit for bit."""
    _alike.steps_at_once(partial(case.net, modules=3), steps=2)


def mixed_precision_trains(case: Case) -> None:
    """Under bfloat16 autocast losses are those of float32 but for rounding, and gradients are float32 and finite."""
    net = case.net(modules=3)
    _alike.trains_in_bf16(net, *case.batch(net, 8), rtol=0.15, atol=0.1)


def compiled_trains(case: Case) -> None:
    """Compiled parts give the same gradients."""
    _alike.compiles(case.net(modules=3, dtype=DOUBLE), losses=1e-8, relative=1e-6, absolute=1e-11)


NETWORK_CHECKS: tuple[Callable[[Case], None], ...] = (
    the_network_is_left_alone,
    the_chain_computes_what_the_network_computes,
    one_module_is_backpropagation,
    gradients_are_those_of_each_objective,
    peak_is_below_one_summed_backward,
    resuming_is_exact,
    stepping_each_module_at_once_changes_nothing,
    mixed_precision_trains,
    compiled_trains,
)
"""What every network must pass, each a function of a case."""


def check_network(
    make: Callable[[], nn.Module], image_shape: Shape, rule: Rule | None = None, layers: tuple[str, ...] | None = None
) -> None:
    """Run a network through all checks under a rule.

    Args:
        make: makes the network, always with the same weights; what is random in its forward (dropout) must be off.
        image_shape: channels, height, width of one image; small ones are enough.
        rule: `DGL()` by default.
        layers: as for `localize`.

    Raises:
        AssertionError: with the name of the check and what failed.
    """
    case = Case(make=make, image_shape=image_shape, rule=rule or DGL(), layers=layers)
    for check in NETWORK_CHECKS:
        try:
            check(case)
        except AssertionError as error:
            raise AssertionError(f"{check.__name__}: {error}") from error
