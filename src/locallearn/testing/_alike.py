"""What rules and networks are checked for alike. Each fails by AssertionError."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from locallearn._local_net import LocalNet
from locallearn._stepping import ModuleStepper, Stepper
from locallearn.cost import peak_memory
from locallearn.testing._networks import (
    assert_close,
    assert_same,
    batch_for,
    gradients,
    peak_of,
    sgd,
    summed_step,
    train_steps,
)


def is_left_alone(model: nn.Module, plain: nn.Module, build: Callable[[], LocalNet]) -> LocalNet:
    """`build` localizes `model` without changing it, and training keeps its keys; `plain` is one like it."""
    state = torch.get_rng_state()
    net = build()
    assert torch.equal(state, torch.get_rng_state()), "localize drew from the global random state"
    assert net.model is model, "net.model is another module"
    assert_same(model.state_dict(), plain.state_dict(), "the network after localize")
    images, _ = batch_for(net, 4)
    assert torch.equal(net(images), plain(images)), "inference gives another output"
    tensors = [tensor.data_ptr() for tensor in net.state_dict().values() if tensor.numel()]
    assert len(tensors) == len(set(tensors)), "a tensor is in the state dict twice"
    train_steps(net.train(), sgd(net), [1])
    assert list(model.state_dict()) == list(plain.state_dict()), "training changed the state dict's keys"
    return net


def has_a_low_peak(net: LocalNet, images: Tensor, labels: Tensor, *, within: float) -> None:
    """A step's peak is no higher than that of one summed backward, and is predicted but for a share of it."""
    engine = peak_of(net, net.backward, images, labels)
    summed = peak_of(net, partial(summed_step, net), images, labels)
    assert engine <= summed + 64, f"peak of {engine} bytes, {summed} by one summed backward"
    make_stepper = partial(Stepper, make_optimizer=partial(torch.optim.SGD, lr=0.1))
    predicted = peak_memory(net, len(images), make_stepper=make_stepper).activations
    assert abs(predicted - engine) <= within * engine, f"peak {engine}, predicted {predicted}"


def resumes(through: LocalNet, first: LocalNet, second: LocalNet, *, steps: int) -> None:
    """After two steps `first` is saved and loaded into `second`, which ends as `through` does."""
    train_steps(through, sgd(through), range(steps))
    optimizer = sgd(first)
    train_steps(first, optimizer, range(2))
    file = io.BytesIO()
    torch.save((first.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    state, optimizer_state = torch.load(file)
    second.load_state_dict(state)
    optimizer = sgd(second)
    optimizer.load_state_dict(optimizer_state)
    train_steps(second, optimizer, range(2, steps))
    assert_same(second.state_dict(), through.state_dict(), "resumed against uninterrupted")


def steps_at_once(make: Callable[[], LocalNet], *, steps: int) -> None:
    """Modules stepped as soon as they are complete get the weights of stepping all together."""
    found = []
    for kind in (Stepper, ModuleStepper):
        net = make()
        stepper = kind(net, partial(torch.optim.SGD, lr=0.05, momentum=0.9))
        for seed in range(steps):
            net.backward(*batch_for(net, seed=seed), on_complete=stepper.on_complete)
            stepper.finish()
        found.append(net.state_dict())
    assert_same(found[1], found[0], "modules stepped at once")


def trains_in_bf16(net: LocalNet, images: Tensor, labels: Tensor, *, rtol: float, atol: float) -> None:
    """Under autocast, losses are near those of float32, and gradients are float32 and finite."""
    expected = copy.deepcopy(net).backward(images, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = net.backward(images, labels)
    torch.testing.assert_close(losses.float(), expected, rtol=rtol, atol=atol)
    for name, gradient in gradients(net).items():
        assert gradient is not None, f"{name} has no gradient"
        assert gradient.dtype == torch.float32, f"{name}: gradient in {gradient.dtype}"
        assert gradient.isfinite().all(), f"{name}: gradient is not finite"


def compiles(net: LocalNet, *, losses: float, relative: float, absolute: float) -> None:
    """Compiled parts give the same losses and gradients, up to these limits."""
    torch.compiler.reset()
    compiled = copy.deepcopy(net)
    compiled.compile(backend="aot_eager")
    given = batch_for(net)
    torch.testing.assert_close(compiled.backward(*given), net.backward(*given), rtol=losses, atol=losses)
    assert_close(gradients(compiled), gradients(net), "compiled gradients", relative=relative, absolute=absolute)
