"""Losses of the user's own, and the batches that a step takes or refuses."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import locallearn as ll
from networks import RULES, SMALL, assert_same, batch, conv_net, gradients, mlp, resnet20, small_net


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


@pytest.mark.parametrize("rule", ["BP", "Checkpoint", "DGL", "AugLocal d=2"])
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
@pytest.mark.parametrize("shape", [(3, 17, 13), (3, 5, 7)])
def test_odd_image_sizes_train(rule, shape):
    net = ll.localize(resnet20(), RULES[rule], input_shape=shape)
    assert net.backward(*batch(4, shape)).isfinite().all()
    assert all(gradient is not None for gradient in gradients(net).values())


def test_the_backbones_modules_keep_their_types_and_settings():
    model = conv_net(inplace=True)
    kept = repr(model)
    ll.localize(model, ll.AugLocal(depth=2), input_shape=SMALL).backward(*batch(classes=5))
    assert repr(model) == kept
