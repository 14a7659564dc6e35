"""What a local network refuses: batches that it cannot train on, and losses that are not finite."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import locallearn as ll
from networks import RESNET20_MODULES, RULES, SMALL, assert_same, batch, gradients, mlp, resnet20, small_net


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


def spoil(chosen: int, value: float):
    """A loss whose `chosen`-th call is not finite."""
    calls = -1

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return F.cross_entropy(logits, labels) + (value if calls == chosen else 0.0)

    return loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("rule", "module"), [("BP", 9), ("Checkpoint", 9), ("DGL", 4), ("AugLocal d=3", 7)])
def test_a_loss_that_is_not_finite_stops_with_module_objective_and_step(rule, module, value):
    objectives = len(RESNET20_MODULES[rule])
    objective = min(module, objectives - 1)
    net = small_net(rule, loss=spoil(2 * objectives + objective, value))
    net.backward(*batch())
    net.backward(*batch())
    before = copy.deepcopy([*net.parameters()])
    with pytest.raises(
        ll.NonFiniteLossError, match=rf"objective {objective}\b.*module {module}\b.*step 3\b.*nothing"
    ) as error:
        net.backward(*batch())
    assert re.search(rf"objective {objective}\b.*module {module}\b.*step 3\b", str(error.value))
    assert (error.value.objective, error.value.module, error.value.step) == (objective, module, 3)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    net.zero_grad()
    assert net.backward(*batch()).isfinite().all()


def test_modules_already_stepped_are_named_with_a_nan():
    net = small_net("DGL", modules=4, loss=spoil(2, float("nan")))
    stepped: list[int] = []
    with pytest.raises(ll.NonFiniteLossError) as error:
        net.backward(*batch(), on_complete=stepped.append)
    named = re.search(r"modules ([\d, ]*\d)", str(error.value))
    assert named is not None
    assert [int(i) for i in named[1].split(",")] == stepped
    assert {0, 1} <= set(stepped)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_images_of_another_precision_are_refused_by_name(dtype):
    images, labels = batch()
    with pytest.raises(ll.LocalLearnError, match=f"images are {dtype} and the network's parameters torch.float32"):
        small_net("DGL").backward(images.to(dtype), labels)


def test_a_scale_or_a_module_that_is_none_is_refused():
    net = small_net("DGL")
    with pytest.raises(ll.LocalLearnError, match="scale=nan must be a finite number"):
        net.backward(*batch(), scale=float("nan"))
    for module in (-1, len(net.partition)):
        with pytest.raises(
            ll.LocalLearnError, match=f"module {module}: local modules are 0 to {len(net.partition) - 1}"
        ):
            net.parameters_of(module)
