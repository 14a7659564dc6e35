"""The checks. Each takes a rule, builds small networks under it, and fails by AssertionError with a sentence."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from locallearn._ema import Follower
from locallearn._errors import LocalLearnError, NonFiniteLossError
from locallearn._live import LiveBytes
from locallearn._localize import localize
from locallearn.rules import Rule
from locallearn.testing import _alike
from locallearn.testing._networks import (
    SMALL,
    TINY,
    assert_close,
    assert_same,
    batch,
    gradients,
    gradients_of,
    plain_chain,
    recomputing_step,
    resnet14,
    sgd,
    small_net,
    train_steps,
)

DOUBLE = torch.float64


def backbone_is_left_alone(rule: Rule) -> None:
    """`localize` changes no weight, buffer, key, output or random state; each tensor is in the state dict once."""
    model = resnet14().eval()
    _alike.is_left_alone(model, resnet14().eval(), lambda: localize(model, rule, input_shape=SMALL))


def one_module_is_backpropagation(rule: Rule) -> None:
    """K = 1 is plain backpropagation bit for bit."""
    net, plain = small_net(rule, modules=1), resnet14()
    assert len(net.objectives) == 1, f"{len(net.objectives)} objectives over one module"
    train_steps(net, sgd(net), range(3))
    optimizer = sgd(plain)
    for seed in range(3):
        images, labels = batch(seed=seed)
        F.cross_entropy(plain(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert_same(net.model.state_dict(), plain.state_dict(), "one module against backpropagation")


def gradients_are_isolated(rule: Rule) -> None:
    """An objective's gradient reaches the modules that it spans and its auxiliary network, and nothing else."""
    net = small_net(rule)
    for chosen, objective in enumerate(net.objectives):
        alone = copy.deepcopy(net)
        weights = [o.weight if index == chosen else 0.0 for index, o in enumerate(alone.objectives)]
        alone.objectives = tuple(replace(o, weight=w) for o, w in zip(alone.objectives, weights, strict=True))
        alone.backward(*batch())
        span = alone.local_modules[objective.first : objective.last + 1]
        parts = (*span, alone.objectives[chosen].auxiliary)
        inside = {id(parameter) for part in parts for parameter in part.parameters()}
        for name, parameter in alone.named_parameters():
            moved = parameter.grad is not None and bool(parameter.grad.any())
            assert not moved or id(parameter) in inside, f"objective {chosen} reaches {name}, outside its span"
        reached = [any(p.grad is not None and bool(p.grad.any()) for p in module.parameters()) for module in span]
        assert len(set(reached)) == 1, f"objective {chosen} reaches some of its modules only: {reached}"


def gradients_are_those_of_each_objective(rule: Rule) -> None:
    """Losses, gradients and running statistics are those of running every objective by itself, in float64."""
    for modules in ("all", 4):
        net = small_net(rule, modules=modules, dtype=DOUBLE)
        reference, model = copy.deepcopy(net), copy.deepcopy(net.model)
        losses = net.backward(*batch(dtype=DOUBLE))
        expected = recomputing_step(reference, *batch(dtype=DOUBLE))
        torch.testing.assert_close(losses, expected, rtol=1e-11, atol=1e-11)
        assert_close(gradients(net), gradients(reference), "gradients", relative=1e-9, absolute=1e-13)
        model(batch(dtype=DOUBLE)[0])
        assert_same(dict(net.model.named_buffers()), dict(model.named_buffers()), "running statistics")


def peak_is_below_one_summed_backward(rule: Rule) -> None:
    """The peak of live bytes is no higher than that of one backward of the sum, nor than predicted without running."""
    net = small_net(rule).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    images, labels = batch(16)
    _alike.has_a_low_peak(net, images.to(memory_format=torch.channels_last), labels, within=0.005)


def memory_does_not_grow(rule: Rule) -> None:
    """Nothing is kept from one step to the next, over 50 steps."""
    net = localize(plain_chain(), rule, input_shape=TINY)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    train_steps(net, optimizer, [0])
    with LiveBytes(known=[*net.parameters(), *net.buffers()], parameters=()) as live:
        train_steps(net, optimizer, range(3))
        before = live.now
        train_steps(net, optimizer, range(50))
        assert live.now <= before, f"{live.now - before} more bytes after 50 steps"


def resuming_is_exact(rule: Rule) -> None:
    """Saving and loading in the middle of training changes no bit."""
    _alike.resumes(small_net(rule), small_net(rule), small_net(rule, seed=7), steps=4)


def stepping_each_module_at_once_changes_nothing(rule: Rule) -> None:
    """A module stepped as soon as it is complete gets the weights of stepping all together, bit for bit."""
    _alike.steps_at_once(partial(small_net, rule), steps=3)


def any_image_and_batch_size_trains(rule: Rule) -> None:
    """Odd image sizes, one class, and a small last batch; one image trains or is refused by name."""
    for shape, classes in (((3, 15, 13), 10), (SMALL, 1)):
        net = small_net(rule, shape=shape, classes=classes)
        assert net.backward(*batch(shape=shape, classes=classes)).isfinite().all(), f"images {shape}, {classes} classes"
        assert net.backward(*batch(2, shape, classes=classes)).isfinite().all(), "a last batch of two"
    net = small_net(rule)
    try:
        assert net.backward(*batch(1)).isfinite().all(), "a batch of one"
    except LocalLearnError as error:
        assert "needs at least two" in str(error), f"a batch of one is refused as {error}"


def mixed_precision_trains(rule: Rule) -> None:
    """Under bfloat16 autocast losses are those of float32 but for rounding, and gradients are float32 and finite."""
    _alike.trains_in_bf16(small_net(rule), *batch(16), rtol=0.1, atol=0.05)


def compiled_trains(rule: Rule) -> None:
    """Compiled parts give the same gradients."""
    net = localize(plain_chain().double(), rule, input_shape=TINY)
    _alike.compiles(net, losses=1e-9, relative=1e-7, absolute=1e-12)


def accumulation_adds_up(rule: Rule) -> None:
    """Gradients of micro-batches add up, and what moves once a step moves in the last one alone."""
    net = small_net(rule, dtype=DOUBLE)
    first, second = batch(6, seed=1, dtype=DOUBLE), batch(4, seed=2, dtype=DOUBLE)
    accumulated = copy.deepcopy(net)
    accumulated.backward(*first, final=False)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    for name, buffer in accumulated.named_buffers():
        still = name.endswith(statistics) or torch.equal(buffer, net.get_buffer(name))
        assert still, f"{name} moved before the last micro-batch"
    one, two = gradients_of(net, *first), gradients_of(net, *second)
    pairs = zip(one.items(), two.values(), strict=True)
    expected = {name: None if a is None or b is None else a + b for (name, a), b in pairs}
    accumulated.backward(*second)
    assert_close(gradients(accumulated), expected, "accumulated gradients", relative=1e-9, absolute=1e-13)


def scale_multiplies_gradients(rule: Rule) -> None:
    """`scale` multiplies every gradient and no loss."""
    net = small_net(rule)
    plain, scaled = gradients_of(net, *batch()), gradients_of(net, *batch(), scale=4.0)
    for name, gradient in plain.items():
        assert gradient is not None, f"{name} has no gradient"
        assert torch.equal(scaled[name], gradient * 4), f"{name}: gradient is not scaled"  # pyright: ignore[reportArgumentType]


def frozen_parts_stay(rule: Rule) -> None:
    """Frozen parameters and wholly frozen modules get no gradient; all others get theirs."""
    net = small_net(rule, dtype=DOUBLE)
    expected = gradients_of(net, *batch(dtype=DOUBLE))
    net.local_modules[0].requires_grad_(False)
    net.local_modules[-1].requires_grad_(False)
    next(net.local_modules[1].parameters()).requires_grad_(False)
    frozen = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    found = gradients_of(net, *batch(dtype=DOUBLE))
    assert all(found[name] is None for name in frozen), "a frozen parameter has a gradient"
    rest = found.keys() - frozen
    pick = {name: found[name] for name in rest}, {name: expected[name] for name in rest}
    assert_close(*pick, "gradients beside frozen parts", relative=1e-9, absolute=1e-13)


def nan_is_named_and_nothing_is_stepped(rule: Rule) -> None:
    """A NaN stops with module, objective and step."""
    net = small_net(rule)
    before = {name: parameter.clone() for name, parameter in net.named_parameters()}
    images, labels = batch()
    images[0, 0, 0, 0] = float("nan")
    try:
        net.backward(images, labels)
    except NonFiniteLossError as error:
        assert error.step == 1, f"step {error.step} is named"
        assert net.objectives[error.objective].last == error.module, "objective and module do not fit"
        follow = {id(p) for part in net.modules() if isinstance(part, Follower) for p in part.parameters()}
        for name, parameter in net.named_parameters():
            assert id(parameter) in follow or torch.equal(parameter, before[name]), f"{name} was stepped"
    else:
        raise AssertionError("a NaN in the images went unnoticed")


def loss_falls_on_digits(rule: Rule) -> None:
    """On 8 x 8 grey images of digits the classifier's loss falls, and so does the sum over objectives."""
    from locallearn.data import TensorBatches, digits

    images = digits(Path("data"))
    net = localize(resnet14(), rule, input_shape=images.image_shape)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    losses = []
    for given in TensorBatches(images.train, images, batch=64).epoch(1):
        losses.append(net.backward(*given))
        optimizer.step()
        optimizer.zero_grad()
    first, last = torch.stack(losses[:4]).mean(0), torch.stack(losses[-4:]).mean(0)
    assert last[-1] < 0.8 * first[-1], f"the classifier's loss went from {first[-1]:.3f} to {last[-1]:.3f}"
    assert last.sum() < first.sum(), f"the sum of losses went from {first.sum():.3f} to {last.sum():.3f}"


CHECKS: tuple[Callable[[Rule], None], ...] = (
    backbone_is_left_alone,
    one_module_is_backpropagation,
    gradients_are_isolated,
    gradients_are_those_of_each_objective,
    peak_is_below_one_summed_backward,
    memory_does_not_grow,
    resuming_is_exact,
    stepping_each_module_at_once_changes_nothing,
    any_image_and_batch_size_trains,
    mixed_precision_trains,
    compiled_trains,
    accumulation_adds_up,
    scale_multiplies_gradients,
    frozen_parts_stay,
    nan_is_named_and_nothing_is_stepped,
    loss_falls_on_digits,
)
"""What every rule must pass, each a function of a rule."""


def check_rule(rule: Rule) -> None:
    """Run a rule through all checks, some 20 seconds on one core.

    Raises:
        AssertionError: with the name of the check and what failed.
    """
    for check in CHECKS:
        try:
            check(rule)
        except (AssertionError, LocalLearnError) as error:
            raise AssertionError(f"{rule}, {check.__name__}: {error}") from error
