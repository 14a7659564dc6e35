"""What `localize` leaves alone, what `net` holds, and what a step refuses."""

import copy
import io
import pickle
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import locallearn as ll
from networks import (
    LOCAL_RULES,
    RULES,
    SMALL,
    assert_same,
    batch,
    conv_net,
    fresh_net,
    gradients,
    mlp,
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


@pytest.mark.parametrize("rule", LOCAL_RULES)
def test_auxiliary_weights_depend_on_the_seed_alone(rule):
    def weights(seed: int, noise: int) -> list[torch.Tensor]:
        model = resnet20(0)
        torch.manual_seed(noise)
        net = ll.localize(model, RULES[rule], input_shape=SMALL, seed=seed)
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


def test_a_loss_with_weights_of_its_own_is_in_the_state_once():
    net = small_net("DGL", loss=nn.CrossEntropyLoss(weight=torch.linspace(1, 2, 10)))
    pointers = [tensor.data_ptr() for tensor in net.state_dict().values()]
    assert len(set(pointers)) == len(pointers)
    assert net.backward(*batch()).isfinite().all()


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


@pytest.mark.parametrize("rule", RULES)
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


@pytest.mark.parametrize("rule", RULES)
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
        net = ll.localize(resnet20(num_classes=1), rule, input_shape=SMALL, loss=loss)
        net.backward(*batch(classes=2))
        assert all(gradient is not None for gradient in gradients(net).values())


@pytest.mark.parametrize("rule", RULES)
def test_one_class_trains_by_cross_entropy(rule):
    net = ll.localize(resnet20(num_classes=1), RULES[rule], input_shape=SMALL)
    assert torch.equal(net.backward(*batch(classes=1)), torch.zeros(len(net.objectives)))


@pytest.mark.parametrize("label", [-1, 10, 255])
def test_labels_outside_the_classes_are_refused(label):
    net = small_net("DGL")
    with pytest.raises(ll.LocalLearnError, match=rf"{label}.*10 classes"):
        net.backward(batch()[0], torch.tensor([0, 1, label, 3, 4, 5]))
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 16, 15), (1, 16, 16)])
def test_images_of_another_size_are_refused(shape):
    sizes = f"{' x '.join(map(str, shape))}.*3 x 16 x 16"
    with pytest.raises(ll.LocalLearnError, match=sizes):
        small_net("DGL").backward(*batch(shape=shape))


@pytest.mark.parametrize("rule", ["DGL", "DGL.original", "AugLocal d=2"])
def test_one_image_is_refused_by_name_where_vectors_are_normalised(rule):
    net = small_net(rule)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ll.LocalLearnError, match=r"auxiliary network of local module 0\b"):
        net.backward(*batch(1))
    assert_same(net.state_dict(), before)
    assert net.backward(*batch(2)).isfinite().all()


@pytest.mark.parametrize("rule", ["BP", "Checkpoint", "AugLocal d=3", "AugLocal paper"])
def test_one_image_is_accepted_where_no_vectors_are_normalised(rule):
    assert small_net(rule).backward(*batch(1)).isfinite().all()


def test_one_image_is_accepted_in_evaluation_mode():
    assert small_net("DGL").eval().backward(*batch(1)).isfinite().all()


class Linear(ll.Rule):
    def auxiliary(self, site):
        return ll.Head(nn.Linear(site.shape[0], site.classes), site.loss)


def test_one_image_is_refused_by_the_name_of_the_backbones_module_that_normalises_vectors():
    hidden = [nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8)]
    net = ll.localize(nn.Sequential(nn.Flatten(), *hidden, nn.Linear(8, 5)), Linear(), input_shape=SMALL)
    with pytest.raises(ll.LocalLearnError, match=r": local module 1\b"):
        net.backward(*batch(1, classes=5))


def test_one_image_is_accepted_whatever_the_custom_loss_takes():
    net = ll.localize(
        mlp(inputs=3 * 16 * 16), ll.AugLocal(depth=3), input_shape=SMALL, loss=F.binary_cross_entropy_with_logits
    )
    assert net.backward(batch(1)[0], torch.rand(1, 5)).isfinite().all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(3, 17, 13), (3, 5, 7), (3, 9, 32)])
def test_odd_image_sizes_train(rule, shape):
    net = ll.localize(resnet20(), RULES[rule], input_shape=shape)
    assert net.backward(*batch(4, shape)).isfinite().all()
    assert all(gradient is not None for gradient in gradients(net).values())


def test_the_backbones_modules_keep_their_types_and_settings():
    model = conv_net(inplace=True)
    kept = repr(model)
    ll.localize(model, ll.AugLocal(depth=2), input_shape=SMALL).backward(*batch(classes=5))
    assert repr(model) == kept
