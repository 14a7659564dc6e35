"""Optimizers that step all modules together, or each module as soon as its gradient is complete."""

import copy
from functools import partial

import pytest
import torch

import locallearn as ll
from locallearn._engine.stepper import ModuleStepper, Stepper
from networks import RULES, assert_same, batch, small_net

SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)


def train(net: ll.LocalNet, stepper: Stepper, steps: int) -> None:
    for seed in range(steps):
        net.backward(*batch(seed=seed), on_complete=stepper.on_complete)
        stepper.finish()


@pytest.mark.parametrize("rule", RULES)
def test_stepping_each_module_as_it_completes_gives_the_same_weights(rule):
    together, by_module = small_net(rule), small_net(rule)
    train(together, Stepper(together, SGD), 3)
    train(by_module, ModuleStepper(by_module, SGD), 3)
    assert_same(by_module.state_dict(), together.state_dict())


def test_gradients_are_freed_as_each_module_is_stepped():
    net = small_net("DGL")
    stepper = ModuleStepper(net, SGD)

    def step(module: int) -> None:
        assert all(p.grad is not None for p in net.parameters_of(module))
        stepper.on_complete(module)
        assert all(p.grad is None for p in net.parameters_of(module))

    net.backward(*batch(), on_complete=step)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("kind", [Stepper, ModuleStepper])
def test_frozen_parameters_get_no_optimizer(kind):
    net = small_net("DGL", modules=4)
    frozen = {id(p) for p in net.parameters_of(1)}
    for parameter in net.parameters_of(1):
        parameter.requires_grad_(False)
    stepper = kind(net, SGD)
    stepped = {id(p) for optimizer in stepper.optimizers for group in optimizer.param_groups for p in group["params"]}
    assert stepped == {id(p) for p in net.parameters()} - frozen
    train(net, stepper, 1)


@pytest.mark.parametrize("kind", [Stepper, ModuleStepper])
def test_the_learning_rate_is_set_for_all_parameters(kind):
    net = small_net("DGL", modules=4)
    before = copy.deepcopy(net.state_dict())
    stepper = kind(net, torch.optim.SGD)
    stepper.set_lr(0.0)
    train(net, stepper, 1)
    weights = [name for name, _ in net.named_parameters()]
    assert all(torch.equal(net.state_dict()[name], before[name]) for name in weights)


def test_the_norm_of_the_whole_gradient_is_clipped():
    net = small_net("DGL", modules=4)
    before = torch.cat([p.detach().flatten().clone() for p in net.parameters()])
    train(net, Stepper(net, partial(torch.optim.SGD, lr=1.0), clip_norm=0.01), 1)
    after = torch.cat([p.detach().flatten() for p in net.parameters()])
    torch.testing.assert_close((after - before).norm(), torch.tensor(0.01), rtol=1e-2, atol=0)


@pytest.mark.parametrize("kind", [Stepper, ModuleStepper])
def test_groups_of_an_optimizer_keep_their_share_of_the_learning_rate(kind):
    def biases_slower(parameters, *, lr=0.5):
        sizes = ([p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() == 1])
        groups = [{"params": part, "lr": rate} for part, rate in zip(sizes, (0.5, 0.05), strict=True)]
        return torch.optim.SGD(groups, lr=lr)

    net = small_net("DGL", modules=4)
    stepper = kind(net, biases_slower)
    stepper.set_lr(0.2)
    rates = {group["lr"] for optimizer in stepper.optimizers for group in optimizer.param_groups}
    assert sorted(rates) == pytest.approx([0.02, 0.2])
    with pytest.raises(ll.LocalLearnError, match=r"rates \[0.05, 0.5\], and it was made with 0.1, which is that of no"):
        kind(net, partial(biases_slower, lr=0.1))
