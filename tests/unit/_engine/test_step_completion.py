"""What a step reports, and what it leaves alone: completed modules, frozen parts, inputs, memory."""

import gc
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import locallearn as ll
from locallearn.testing import Case
from locallearn.testing.networks import TINY, plain_chain
from locallearn.testing.step_checks import auxiliary_networks_are_told_of_each_step
from networks import (
    LOCAL_RULES,
    RESNET20_MODULES,
    RULES,
    SMALL,
    Preactivated,
    assert_same,
    batch,
    conv_net,
    gradients,
    gradients_of,
    local_net,
    small_net,
)


@pytest.mark.parametrize("rule", LOCAL_RULES)
def test_modules_complete_in_order_with_all_their_gradients(rule):
    net = small_net(rule)
    seen: dict[int, list[Tensor]] = {}

    def complete(module: int) -> None:
        seen[module] = [p.grad.clone() for p in net.parameters_of(module)]

    net.backward(*batch(), on_complete=complete)
    assert list(seen) == list(range(len(RESNET20_MODULES[rule])))
    for module, early in seen.items():
        assert all(torch.equal(a, p.grad) for a, p in zip(early, net.parameters_of(module), strict=True))


@pytest.mark.parametrize("rule", ["BP", "Checkpoint"])
def test_under_one_objective_every_module_completes_once_with_all_gradients(rule):
    net = small_net(rule, modules=4)
    seen: dict[int, dict[str, Tensor | None]] = {}
    net.backward(*batch(), on_complete=lambda module: seen.setdefault(module, gradients(net)))
    assert sorted(seen) == [0, 1, 2, 3]
    for early in seen.values():
        assert_same(early, gradients(net))


class Counting(ll.Head):
    calls = 0

    def after_backward(self) -> None:
        self.calls += 1


class CountingRule(ll.Rule):
    def auxiliary(self, site: ll.Site) -> ll.Auxiliary:
        network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(site.shape[0], site.classes))
        return Counting(network, site.loss)


def test_after_backward_is_called_once_and_only_in_the_final_micro_batch():
    net = local_net(CountingRule())
    heads = [objective.auxiliary for objective in net.objectives[:-1]]
    net.backward(*batch(), final=False)
    assert [head.calls for head in heads] == [0] * 9
    net.backward(*batch(), final=True)
    assert [head.calls for head in heads] == [1] * 9


def test_after_backward_is_called_before_any_later_module_can_be_stepped():
    net = local_net(CountingRule())
    heads = [objective.auxiliary for objective in net.objectives[:-1]]
    seen = []
    net.backward(*batch(), on_complete=lambda module: seen.append([head.calls for head in heads]))
    assert seen == [[1] * min(module + 1, 9) + [0] * (8 - module) for module in range(10)]


WRAPPERS = [
    *(ll.HiLo, ll.Reduced, ll.MAN, ll.MANPP, ll.MLM, ll.LAM, ll.MLAAN, ll.InfoProLoss, ll.PFF, ll.HPFF),
    *(partial(wrapper, fidelity="paper") for wrapper in (ll.HiLo, ll.MAN, ll.LAM, ll.MLAAN, ll.PFF, ll.HPFF)),
    lambda rule: ll.HPFF(ll.MAN(rule), fidelity="paper"),
]


@pytest.mark.filterwarnings("ignore:PFF as in the official code:locallearn.LocalLearnWarning")
@pytest.mark.parametrize("wrapped", WRAPPERS)
def test_wrappers_pass_after_backward_on_to_each_network_once(wrapped):
    net = ll.localize(plain_chain(), wrapped(CountingRule()), input_shape=TINY)
    counting = [part for part in net.auxiliary.modules() if isinstance(part, Counting)]
    net.backward(*batch(shape=TINY))
    assert counting
    assert {part.calls for part in counting} == {1}


class Deaf(CountingRule):
    def auxiliary(self, site: ll.Site) -> ll.Auxiliary:
        outer = ll.WeightedSum([(1.0, super().auxiliary(site))])
        vars(outer)["after_backward"] = lambda: None
        return outer


def test_the_suite_notices_a_network_that_is_not_told():
    case = Case(rule=Deaf(), make=plain_chain, image_shape=TINY)
    with pytest.raises(AssertionError, match=r"0\.terms\.0 is told 0 times of a step: does an after_backward"):
        auxiliary_networks_are_told_of_each_step(case)


@pytest.mark.parametrize("rule", RULES)
def test_frozen_parameters_get_no_gradient_and_the_others_theirs(rule):
    expected = gradients_of(small_net(rule), *batch())
    net = small_net(rule)
    frozen = {name for name, p in net.named_parameters() if "layer2.1" in name or name.endswith("fc.bias")}
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name not in frozen)
    found = gradients_of(net, *batch())
    assert_same(found, {name: None if name in frozen else gradient for name, gradient in expected.items()})


@pytest.mark.parametrize("rule", LOCAL_RULES)
def test_wholly_frozen_modules_are_passed_through(rule):
    expected = gradients_of(small_net(rule), *batch())
    net = small_net(rule)
    frozen = {id(p) for module in (0, 2, 3) for p in net.parameters_of(module)}
    for parameter in net.parameters():
        parameter.requires_grad_(id(parameter) not in frozen)
    completed: list[int] = []
    net.backward(*batch(), on_complete=completed.append)
    assert completed == list(range(len(net.partition)))
    kept = {name: None if id(p) in frozen else expected[name] for name, p in net.named_parameters()}
    assert_same(gradients(net), kept)


@pytest.mark.parametrize("rule", RULES)
def test_a_wholly_frozen_network_is_refused(rule):
    net = small_net(rule).requires_grad_(False)
    with pytest.raises(ll.LocalLearnError, match="all parameters are frozen at step 1, so nothing would be trained"):
        net.backward(*batch())
    assert net.steps == 0


@pytest.mark.parametrize("modules", ["all", 2, 1])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("build", [conv_net, Preactivated], ids=["first layer", "every layer"])
def test_layers_that_begin_in_place_train_like_others(build, rule, modules):
    images, labels = batch(classes=5)
    kept = images.clone()
    nets = [ll.localize(build(inplace=x), RULES[rule], modules=modules, input_shape=SMALL) for x in (True, False)]
    losses = [net.backward(images, labels) for net in nets]
    assert torch.equal(images, kept)
    assert torch.equal(losses[0], losses[1])
    assert_same(gradients(nets[0]), gradients(nets[1]))
    assert {part.inplace for part in nets[0].model.modules() if isinstance(part, nn.LeakyReLU)} == {True}


@pytest.mark.parametrize("rule", RULES)
def test_dropout_in_place_as_the_first_layer_leaves_the_images_unchanged(rule):
    model = nn.Sequential(nn.Dropout(0.5, inplace=True), *conv_net())
    net = ll.localize(model, RULES[rule], input_shape=SMALL)
    images, labels = batch(classes=5)
    kept = images.clone()
    net.backward(images, labels)
    assert torch.equal(images, kept)


def live_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize("rule", ["BP", "Checkpoint", "DGL", "AugLocal d=2"])
def test_no_memory_growth_over_50_steps(rule):
    net = ll.localize(conv_net(), RULES[rule], input_shape=(3, 6, 6))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    counts = []
    for step in range(53):
        net.backward(*batch(2, (3, 6, 6), 5, seed=step))
        optimizer.step()
        optimizer.zero_grad()
        if step in (2, 52):
            counts.append(live_tensors())
    assert counts[1] <= counts[0]
