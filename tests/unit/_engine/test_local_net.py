"""What a local network holds, and the losses that it takes."""

import copy
import functools
import io
import pickle
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import locallearn as ll
from locallearn.cost import peak_memory
from networks import (
    LOCAL_RULES,
    RULES,
    SMALL,
    assert_same,
    batch,
    conv_net,
    fresh_net,
    gradients,
    resnet20,
    small_net,
)


@pytest.mark.parametrize("rule", RULES)
def test_localize_leaves_weights_buffers_flags_and_random_states_alone(rule):
    model = resnet20()
    model.layer2.eval()
    state = copy.deepcopy(model.state_dict())
    flags = [part.training for part in model.modules()]
    parts = list(model.modules())
    random_states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    ll.localize(model, RULES[rule], input_shape=SMALL)
    assert torch.equal(torch.get_rng_state(), random_states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == random_states[1:]
    assert_same(model.state_dict(), state)
    assert [part.training for part in model.modules()] == flags
    assert list(model.modules()) == parts
    assert all(type(t) in (torch.Tensor, nn.Parameter) for t in (*model.parameters(), *model.buffers()))


class Counted(nn.Conv2d):
    """A layer that counts its calls in a buffer."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


def test_localize_leaves_a_buffer_alone_that_every_forward_changes():
    model = nn.Sequential(Counted(3, 4, 1), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    net = ll.localize(model, ll.DGL(), input_shape=SMALL)
    assert type(model[0].calls) is torch.Tensor
    assert model[0].calls == 0
    net.backward(*batch(classes=5))
    assert model[0].calls == 1


@pytest.mark.parametrize("rule", RULES)
def test_localizing_a_network_with_dropout_draws_no_random_numbers(rule):
    model = conv_net(dropout=0.5)
    before = torch.get_rng_state()
    ll.localize(model, RULES[rule], input_shape=SMALL)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("rule", LOCAL_RULES)
def test_auxiliary_weights_depend_on_the_seed_alone(rule):
    def weights(seed: int, noise: int) -> list[torch.Tensor]:
        model = resnet20(0)
        torch.manual_seed(noise)
        net = ll.localize(model, RULES[rule], modules=4, input_shape=SMALL, seed=seed)
        return [p.detach() for p in net.auxiliary.parameters() if p.dim() > 1]

    first, again, other = weights(0, 1), weights(0, 2), weights(1, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("rule", RULES)
def test_net_holds_the_model_and_each_tensor_once(rule):
    model = resnet20()
    keys = list(model.state_dict())
    net = ll.localize(model, RULES[rule], input_shape=SMALL)
    assert net.model is model
    assert list(model.state_dict()) == keys
    state = net.state_dict()
    assert [key.removeprefix("model.") for key in state if key.startswith("model.")] == keys
    assert all(key.startswith(("model.", "auxiliary.")) for key in state)
    pointers = [tensor.data_ptr() for tensor in state.values()]
    assert len(set(pointers)) == len(pointers)
    everything = {id(p) for o in net.objectives for p in o.auxiliary.parameters()} | {id(p) for p in model.parameters()}
    assert sorted(id(p) for p in net.parameters()) == sorted(everything)
    assert len({name for name, _ in net.named_parameters()}) == len(everything)


WEIGHTS = torch.linspace(1, 2, 10)


WEIGHTED = {
    "module": nn.CrossEntropyLoss(weight=WEIGHTS),
    "partial": functools.partial(F.cross_entropy, weight=WEIGHTS),
}


@pytest.mark.parametrize("loss", WEIGHTED.values(), ids=WEIGHTED)
def test_a_loss_with_weights_of_its_own(loss):
    net = fresh_net("AugLocal d=3", modules=4, loss=loss)
    pointers = [tensor.data_ptr() for tensor in net.state_dict().values()]
    assert len(set(pointers)) == len(pointers)
    images, labels = batch()
    assert torch.equal(net.backward(images, labels)[-1], loss(resnet20()(images), labels).detach())
    assert net.backward(*batch(1)).isfinite().all()
    assert peak_memory(net, 4).activations > 0


class Scaled(nn.Conv2d):
    """A layer with a tensor that is neither parameter nor buffer."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.scale = torch.full((), 2.0)

    def forward(self, x):
        return super().forward(x) * self.scale


def test_a_layer_may_hold_a_tensor_that_is_not_registered():
    model = nn.Sequential(Scaled(3, 4, 1), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    assert ll.localize(model, ll.DGL(), input_shape=SMALL).backward(*batch(classes=5)).isfinite().all()
    assert model[0].scale == 2


@pytest.mark.parametrize("rule", RULES)
def test_the_last_objective_is_the_backbones_classifier_with_its_loss(rule):
    net = small_net(rule).eval()
    images, labels = batch()
    assert len(net(images)) == len(images)
    logits = net.logits(images)
    assert len(logits) == len(net.objectives)
    assert all(found.shape == (len(images), 10) for found in logits)
    assert torch.equal(logits[-1], net(images))
    assert torch.equal(net(images), net.model(images))
    assert torch.equal(net.backward(images, labels)[-1], F.cross_entropy(net(images), labels).detach())


@pytest.mark.parametrize("rule", ["BP", "Checkpoint", "DGL", "AugLocal d=2"])
def test_a_deep_copy_is_independent_and_complete(rule):
    net = fresh_net(rule)
    before = copy.deepcopy(net.state_dict())
    twin = copy.deepcopy(net)
    twin.backward(*batch())
    torch.optim.SGD(twin.parameters(), lr=0.1).step()
    assert_same(net.state_dict(), before)
    assert all(p.grad is None for p in net.parameters())
    changed = [name for name, p in twin.model.named_parameters() if not torch.equal(p, before[f"model.{name}"])]
    assert len(changed) == len(list(twin.model.parameters()))


@pytest.mark.parametrize("rule", ["BP", "Checkpoint", "DGL", "AugLocal d=2"])
def test_state_dicts_survive_saving_and_pickling(rule):
    net, other = small_net(rule, seed=0), small_net(rule, seed=5)
    net.backward(*batch())
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_same(other.state_dict(), pickle.loads(pickle.dumps(net.state_dict())))
    assert torch.equal(other.backward(*batch(seed=2)), net.backward(*batch(seed=2)))


@pytest.mark.parametrize("rule", RULES)
def test_parameters_of_all_modules_are_all_parameters_once(rule):
    net = small_net(rule, modules=4)
    found = [id(p) for module in range(len(net.partition)) for p in net.parameters_of(module)]
    assert sorted(found) == sorted(id(p) for p in net.parameters())


def test_a_custom_loss_reaches_every_objective():
    def loss(logits, targets):
        return F.mse_loss(logits.softmax(1), targets)

    net = small_net("DGL", loss=loss)
    twin = copy.deepcopy(net).eval()
    images, labels = batch()
    targets = F.one_hot(labels, 10).float()
    expected = torch.stack([loss(found, targets) for found in twin.logits(images)])
    torch.testing.assert_close(net.eval().backward(images, targets), expected)
    assert all(p.grad is not None for p in net.parameters())


def test_targets_are_the_custom_losss_own_affair():
    net = small_net("DGL", loss=lambda logits, targets: F.mse_loss(logits[:, 0], targets.float()))
    assert net.backward(batch()[0], torch.tensor([0, 50, -3, 7, 1000, 2])).isfinite().all()


def test_one_class_trains_by_a_custom_loss_on_binary_labels():
    def loss(logits, labels):
        return F.binary_cross_entropy_with_logits(logits[:, 0], labels.float())

    for rule in RULES.values():
        net = ll.localize(resnet20(num_classes=1), rule, modules=4, input_shape=SMALL, loss=loss)
        net.backward(*batch(classes=2))
        assert all(gradient is not None for gradient in gradients(net).values())


@pytest.mark.parametrize("rule", ["BP", "Checkpoint", "DGL", "AugLocal d=2"])
def test_one_class_trains_by_cross_entropy(rule):
    net = ll.localize(resnet20(num_classes=1), RULES[rule], input_shape=SMALL)
    assert torch.equal(net.backward(*batch(classes=1)), torch.zeros(len(net.objectives)))


def test_the_backbones_modules_keep_their_types_and_settings():
    model = conv_net(inplace=True)
    kept = repr(model)
    ll.localize(model, ll.AugLocal(depth=2), input_shape=SMALL).backward(*batch(classes=5))
    assert repr(model) == kept
