"""Checks of training over steps, sizes and precisions. Each raises an AssertionError that says what differs."""

from __future__ import annotations

import copy
import io
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from locallearn._engine.local_net import LocalNet
from locallearn._engine.stepper import ModuleStepper, Stepper
from locallearn._torch.device import channels_last
from locallearn._torch.live_bytes import LiveBytes
from locallearn._utils.errors import LocalLearnError
from locallearn.cost import peak_memory
from locallearn.testing.case import Case
from locallearn.testing.networks import (
    DOUBLE,
    assert_close,
    assert_same,
    batch_for,
    gradients,
    peak_of,
    sgd,
    summed_step,
    train_steps,
)


def peak_is_below_one_summed_backward(case: Case) -> None:
    """The peak of live bytes is at most that of one summed backward pass, and `peak_memory` predicts it."""
    net = channels_last(case.net())
    images, labels = batch_for(net, 16)
    images = images.to(memory_format=torch.channels_last)
    engine = peak_of(net, net.backward, images, labels)
    summed = peak_of(net, partial(summed_step, net), images, labels)
    assert engine <= summed + 64, f"peak of {engine} bytes, {summed} by one summed backward"
    make_stepper = partial(Stepper, make_optimizer=partial(torch.optim.SGD, lr=0.1))
    predicted = peak_memory(net, len(images), make_stepper=make_stepper).activations
    assert abs(predicted - engine) <= 0.005 * engine, f"peak {engine}, predicted {predicted}"


def memory_does_not_grow(case: Case) -> None:
    """No tensor outlives its step, over 50 steps."""
    net = case.quick.net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    train_steps(net, optimizer, [0])
    with LiveBytes(known=[*net.parameters(), *net.buffers()], parameters=()) as live:
        train_steps(net, optimizer, range(3))
        before = live.now
        train_steps(net, optimizer, range(50))
        assert live.now <= before, f"{live.now - before} more bytes after 50 steps"


def resuming_is_exact(case: Case) -> None:
    """Saving and loading in the middle of training does not change a bit."""
    through, first, second = case.net(), case.net(), case.net()
    train_steps(second, sgd(second), [9])  # other weights, which loading must replace
    train_steps(through, sgd(through), range(4))
    optimizer = sgd(first)
    train_steps(first, optimizer, range(2))
    file = io.BytesIO()
    torch.save((first.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    state, optimizer_state = torch.load(file)
    second.load_state_dict(state)
    optimizer = sgd(second)
    optimizer.load_state_dict(optimizer_state)
    train_steps(second, optimizer, range(2, 4))
    assert_same(second.state_dict(), through.state_dict(), "resumed against uninterrupted")


def stepping_each_module_at_once_changes_nothing(case: Case) -> None:
    """Stepping each module as soon as it is complete gives the bits of stepping all together."""
    states = []
    for kind in (Stepper, ModuleStepper):
        net = case.net()
        stepper = kind(net, partial(torch.optim.SGD, lr=0.05, momentum=0.9))
        for seed in range(3):
            net.backward(*batch_for(net, seed=seed), on_complete=stepper.on_complete)
            stepper.finish()
        states.append(net.state_dict())
    assert_same(states[1], states[0], "modules stepped at once")


def any_image_and_batch_size_trains(case: Case) -> None:
    """Odd image sizes, one class, and a small last batch; one image trains or is refused by name.

    Networks that are bound to one image size skip the odd size; networks without a linear layer skip the one class.
    """
    channels, height, width = case.image_shape
    odd = (channels, height - 1, width - 3)
    nets = {f"images {odd}": case.net(image_shape=odd)} if case.takes(odd) else {}
    if one_class := _with_one_class(case.make()):
        nets["one class"] = case.localized(one_class)
    for what, net in nets.items():
        _assert_trains(net, 6, what)
        _assert_trains(net, 2, f"{what}, a last batch of two")
    try:
        _assert_trains(case.net(), 1, "a batch of one")
    except LocalLearnError as error:
        assert "needs at least two" in str(error), f"a batch of one is refused as {error}"


def mixed_precision_trains(case: Case) -> None:
    """Under bfloat16 autocast, losses equal those of float32 up to rounding; gradients are finite and in float32."""
    net = case.net()
    given = batch_for(net, 16)
    expected = copy.deepcopy(net).backward(*given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = net.backward(*given)
    torch.testing.assert_close(losses.float(), expected, rtol=0.1, atol=0.05)
    for name, gradient in gradients(net).items():
        if gradient is None:  # of a part that did not run; the checks of a step say where one is missing
            continue
        assert gradient.dtype == torch.float32, f"{name}: gradient in {gradient.dtype}"
        assert gradient.isfinite().all(), f"{name}: gradient is not finite"


def compiled_trains(case: Case) -> None:
    """Compiled modules give the same losses and gradients."""
    torch.compiler.reset()
    net = case.quick.net(dtype=DOUBLE)
    compiled = copy.deepcopy(net)
    compiled.compile(backend="aot_eager")
    given = batch_for(net)
    torch.testing.assert_close(compiled.backward(*given), net.backward(*given), rtol=1e-9, atol=1e-9)
    assert_close(gradients(compiled), gradients(net), "compiled gradients", relative=1e-7, absolute=1e-12)


def loss_falls_on_digits(case: Case) -> None:
    """In a few epochs on images of digits, the classifier's loss falls by a fifth, and the sum of all losses falls.

    A network of fewer than ten classes sees the first digits only. Images are resized to the network's size.
    """
    from locallearn.data import Feed, TensorBatches, digits

    data = digits(Path("data"))
    batches = TensorBatches(
        images=data.train.images,
        labels=data.train.labels,
        mean=data.mean,
        std=data.std,
        feed=Feed(batch=64),
        augmentation=data.augmentation,
    )
    net = case.net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    channels, *size = case.image_shape
    losses, first, last = [], torch.tensor([]), torch.tensor([])
    for epoch in range(1, 9):
        for images, labels in batches.epoch(epoch):
            known = labels < net.chain.classes
            resized = F.interpolate(images[known], size=size)[:, :1].expand(-1, channels, -1, -1)
            losses.append(net.backward(resized, labels[known]))
            optimizer.step()
            optimizer.zero_grad()
        first, last = torch.stack(losses[:4]).mean(0), torch.stack(losses[-4:]).mean(0)
        if last[-1] < 0.8 * first[-1] and last.sum() < first.sum():
            return
    raise AssertionError(f"losses went from {first} to {last} only, the classifier's last")


def _with_one_class(model: nn.Module) -> nn.Module | None:
    """The network with one output of its last linear layer, or None without a linear layer."""
    linear = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    if not linear:
        return None
    name, last = linear[-1]
    with torch.random.fork_rng(devices=[]):
        model.set_submodule(name, nn.Linear(last.in_features, 1))
    return model


def _assert_trains(net: LocalNet, images: int, what: str) -> None:
    assert net.backward(*batch_for(net, images)).isfinite().all(), f"{what}: a loss is not finite"
