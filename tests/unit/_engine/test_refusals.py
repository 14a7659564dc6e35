"""What `backward` refuses, in one sentence and before anything moves."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import locallearn as ll
from locallearn._torch.private_api import fake_copy, fake_mode

IMAGES, LABELS = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])


@pytest.fixture(scope="module")
def made():
    parts = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    return ll.localize(nn.Sequential(*parts), ll.Pooling(), input_shape=(3, 8, 8))


@pytest.fixture
def net(made):
    return copy.deepcopy(made)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_step_without_gradients_is_refused_and_moves_nothing(net, mode):
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ll.LocalLearnError, match=f"torch.{mode.__name__}"), mode():
        net.backward(IMAGES, LABELS)
    assert net.steps == 0
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (IMAGES.numpy(), LABELS, "images are a ndarray: give a tensor"),
        (
            IMAGES.double(),
            LABELS,
            r"images are torch.float64 and the network's parameters torch.float32: give images.to",
        ),
        ((IMAGES * 255).to(torch.uint8), LABELS, r"images.to\(torch.float32\) / 255"),
        (IMAGES[:, :, :7], LABELS, "images are 3 x 7 x 8, but localize was told input_shape 3 x 8 x 8"),
        (IMAGES[:0], LABELS[:0], "without images"),
        (IMAGES, LABELS.tolist(), "labels are a list: give a tensor"),
        (IMAGES, np.array([0, 1, 2, 0]), "labels are a ndarray"),
        (IMAGES, LABELS.int(), r"labels are torch.int32: class indices are torch.int64, labels.long\(\)"),
        (IMAGES, LABELS.float(), r"labels are torch.float32.*labels.long\(\)"),
        (IMAGES, LABELS[:3], "3 labels for 4 images"),
        (IMAGES, torch.tensor(1), "one number of labels for 4 images"),
        (IMAGES, LABELS + 1, "labels run from 1 to 3, but the network has 3 classes"),
        (IMAGES, LABELS - 1, "labels run from -1"),
        (IMAGES, torch.full((4,), -100), "all labels are -100"),
        (IMAGES, LABELS[:, None], r"of shape \(4, 1\), .*: give labels.squeeze\(1\)\.$"),
        (IMAGES, LABELS[:, None].float(), r"give labels.squeeze\(1\).long\(\)\.$"),
        (IMAGES, torch.eye(4, 3).long(), r"of shape \(4, 3\), .*one-hot, give labels.argmax\(1\)\.$"),
        (IMAGES, torch.rand(4, 5), r"give class indices of shape \(4,\), or probabilities of shape \(4, 3\)\.$"),
        (IMAGES, torch.rand(4, 3, 2), r"labels are torch.float32 of shape \(4, 3, 2\), which cross entropy"),
        (IMAGES, LABELS.to_sparse(), r"labels are a torch.sparse_coo tensor: give labels.to_dense\(\)"),
        (IMAGES.to_sparse(), LABELS, r"images are a torch.sparse_coo tensor: give images.to_dense\(\)"),
        (IMAGES.to(torch.complex64), LABELS, r"images are torch.complex64 .*: give real numbers"),
        (torch.nested.nested_tensor(list(IMAGES[:2]), layout=torch.jagged), LABELS, "images are a nested tensor"),
    ],
)
def test_other_images_and_labels_are_refused_in_one_sentence(net, images, labels, sentence):
    with pytest.raises(ll.LocalLearnError, match=sentence):
        net.backward(images, labels)
    assert net.steps == 0


def test_labels_of_another_shape_are_refused_for_a_loss_that_is_a_module():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    net = ll.localize(model, ll.BP(), input_shape=(3, 8, 8), loss=nn.CrossEntropyLoss(label_smoothing=0.1))
    with pytest.raises(ll.LocalLearnError, match=r"give labels.squeeze\(1\)"):
        net.backward(IMAGES, LABELS[:, None])
    assert net.to("meta").steps == 0
    with pytest.raises(ll.LocalLearnError, match=r"on the meta device.*model\.to_empty.*and localize it again"):
        net.backward(IMAGES, LABELS)


def test_a_network_that_converts_its_images_takes_other_types():
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float() / 255

    model = nn.Sequential(Scaled(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    net = ll.localize(model, ll.BP(), input_shape=(3, 8, 8))
    assert net.backward((IMAGES.clamp(0, 1) * 255).to(torch.uint8), LABELS).isfinite().all()


@pytest.mark.parametrize("rule", [ll.BP(), ll.DGL(), ll.PredSim(), ll.InfoPro(task_loss="contrastive")], ids=str)
def test_the_label_that_cross_entropy_ignores_leaves_an_image_out(rule):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    net = ll.localize(model, rule, input_shape=(3, 8, 8))
    labels = LABELS.clone()
    labels[1] = -100
    assert net.backward(IMAGES, labels).isfinite().all()
    plain = torch.nn.functional.cross_entropy(model(IMAGES), labels)
    assert torch.equal(net.backward(IMAGES, labels)[-1], plain.detach())


def test_soft_labels_are_taken(net):
    assert net.backward(IMAGES, torch.full((4, 3), 1 / 3)).isfinite().all()


def test_a_loss_that_is_no_number_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    for loss, sentence in (
        (lambda logits, labels: (logits.sum(), 1), "is a tuple: return one number"),
        (lambda logits, labels: logits.sum(1), r"has shape \(4,\): it must be one number"),
    ):
        net = ll.localize(model, ll.BP(), input_shape=(3, 8, 8), loss=loss)
        with pytest.raises(ll.LocalLearnError, match=sentence):
            net.backward(IMAGES, LABELS)


def test_a_network_with_a_loss_module_can_be_pickled():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    net = ll.localize(model, ll.DGL(), input_shape=(3, 8, 8), loss=nn.CrossEntropyLoss(label_smoothing=0.1))
    copied = pickle.loads(pickle.dumps(net))
    assert torch.equal(copied.backward(IMAGES, LABELS), net.backward(IMAGES, LABELS))
    assert not any("loss" in name for name in net.state_dict())


@pytest.mark.parametrize("name", ["1", "5"])
def test_a_part_that_was_replaced_is_told_at_the_next_step(net, name):
    net.backward(IMAGES, LABELS)
    net.model[int(name)] = copy.deepcopy(net.model[int(name)])
    with pytest.raises(ll.LocalLearnError, match=f"'{name}' was replaced after localize"):
        net.backward(IMAGES, LABELS)


def test_hooks_on_layers_fire_and_silent_ones_are_named_once():
    calls = []
    model = ll.models.resnet20()
    model.register_forward_hook(lambda *_: calls.append("model"))
    model.layer1.register_forward_hook(lambda *_: calls.append("layer1"))
    model.layer1[0].conv1.register_forward_hook(lambda _, inputs, output: calls.append(type(output).__name__))
    net = ll.localize(model, ll.DGL(), input_shape=(3, 8, 8))
    assert not calls, "no hook sees a tensor without data"
    with pytest.warns(ll.LocalLearnWarning, match="hooks on the model itself, layer1 do not fire in backward"):
        net.backward(IMAGES, LABELS)
    assert calls == ["Tensor"]
    net.backward(IMAGES, LABELS)  # told once


def test_on_complete_fires_with_the_final_micro_batch_alone(net):
    completed = []
    net.backward(IMAGES, LABELS, final=False, on_complete=completed.append)
    assert completed == []
    net.backward(IMAGES, LABELS, on_complete=completed.append)
    assert completed == [0, 1]


def test_gradient_scalers_scale_by_scale(net):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    other = copy.deepcopy(net)
    net.backward(IMAGES, LABELS, scale=scaler.scale(torch.ones(())))
    scaler.unscale_(optimizer)
    other.backward(IMAGES, LABELS)
    for scaled, plain in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(scaled.grad, plain.grad)
    scaler.step(optimizer)
    scaler.update()


@pytest.fixture
def seen():
    """Types of what hooks on every module were given, by the class of the module; the hooks are removed at the end."""
    types = []

    def note(module, *given):
        types.append(
            (type(module).__name__, type(given[-1][0] if isinstance(given[-1], tuple) else given[-1]).__name__)
        )

    hooks = nn.modules.module
    handles = [hooks.register_module_forward_hook(note), hooks.register_module_forward_pre_hook(note)]
    yield types
    for handle in handles:
        handle.remove()


def convolutions(inplace: bool = False) -> nn.Sequential:
    layers = [nn.Conv2d(3, 4, 3, padding=1), *(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))]
    parts = [part for layer in layers for part in (layer, nn.ReLU(inplace))]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(256, 3))


@pytest.mark.parametrize(("rule", "memory"), [(ll.BP(), "lean"), (ll.Checkpoint(), "fast"), (ll.DGL(), "fast")])
def test_hooks_on_every_module_fire_once_a_step_and_see_data(rule, memory, seen):
    net = ll.localize(convolutions(), rule, input_shape=(3, 8, 8), memory=memory)
    assert not seen
    for _ in range(2):
        net.backward(IMAGES, LABELS)
        layers = [kind for name, kind in seen if name == "Conv2d"]
        in_heads = sum(isinstance(part, nn.Conv2d) for part in net.auxiliary.modules())
        assert len(layers) == 2 * (4 + in_heads)
        assert {kind for _, kind in seen} <= {"Tensor", "Parameter"}
        seen.clear()


def test_arithmetic_of_a_checkpointed_module_can_be_counted_on_tensors_without_data():
    net = ll.localize(convolutions(), ll.Checkpoint(), input_shape=(3, 8, 8))
    with fake_mode() as mode, FlopCounterMode(display=False) as counter:
        fake_copy(net.local_modules[0], mode)(mode.from_tensor(IMAGES)).sum().backward()
    assert counter.get_total_flops() > 0


@pytest.mark.parametrize(("rule", "memory"), [(ll.BP(), "lean"), (ll.Checkpoint(), "fast")])
def test_hooks_on_recomputed_layers_fire_once_unless_they_compute(rule, memory):
    calls: list[str] = []
    results = []
    model = convolutions()
    for how in ((ll.BP(), "fast"), (rule, memory)):
        own = copy.deepcopy(model)
        own[2].register_forward_hook(lambda *_: calls.append("after"))
        own[2].register_forward_pre_hook(lambda module, inputs, settings: calls.append("before"), with_kwargs=True)
        own[4].register_forward_hook(lambda module, inputs, output: output * 2)
        own[4].register_full_backward_hook(lambda *_: calls.append("backward"))
        net = ll.localize(own, how[0], input_shape=(3, 8, 8), memory=how[1])
        net.backward(IMAGES, LABELS)
        results.append([p.grad for p in own.parameters()])
    assert calls == ["before", "after", "backward"] * 2
    for plain, recomputed in zip(*results, strict=True):
        assert torch.equal(plain, recomputed)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_backward_hooks_on_every_module_fire_beside_heads_that_work_in_place():
    fired = set()
    net = ll.localize(convolutions(), ll.DGL(), input_shape=(3, 8, 8))
    handle = nn.modules.module.register_module_full_backward_hook(lambda module, *_: fired.add(id(module)))
    try:
        net.backward(IMAGES.clone().requires_grad_(), LABELS)
        assert all(id(part) in fired for part in net.model)
        in_place = ll.localize(convolutions(inplace=True), ll.DGL(), input_shape=(3, 8, 8))
        with pytest.raises(ll.LocalLearnError, match="set inplace=False in the network, or remove the hook"):
            in_place.backward(IMAGES, LABELS)
    finally:
        handle.remove()


def test_a_model_of_another_type_than_its_heads_is_named():
    net = ll.localize(convolutions(), ll.DGL(), input_shape=(3, 8, 8))
    net.model.double()
    with pytest.raises(ll.LocalLearnError, match=r"features are torch.float64 and .* network is torch.float32"):
        net.backward(IMAGES.double(), LABELS)
    net.double()
    assert net.backward(IMAGES.double(), LABELS).isfinite().all()


class TwoTypes(nn.Module):
    """A layer whose second convolution computes in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1).double()

    def forward(self, x):
        return x + self.last(self.first(x).relu().double()).float()


@pytest.mark.parametrize("rule", [ll.DGL(), ll.AugLocal(depth=2), ll.MAN(ll.DGL())], ids=str)
def test_layers_of_two_types_train(rule):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), TwoTypes(), TwoTypes(), nn.Flatten(), nn.Linear(144, 3))
    net = ll.localize(model, rule, input_shape=(3, 8, 8))
    assert net.backward(IMAGES, LABELS).isfinite().all()
    assert all(parameter.grad is not None for parameter in net.model.parameters())
