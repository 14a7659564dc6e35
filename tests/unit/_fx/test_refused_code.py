"""Forward code of the model's own that a graph would not repeat is refused; as a module of its own it runs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import locallearn as ll
from locallearn import LocalLearnError

SHAPE = (3, 8, 8)


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        return -gradients[0]


def reverse(x: Tensor) -> Tensor:
    return Reversed.apply(x)


def without_gradient(x: Tensor) -> Tensor:
    with torch.no_grad():
        mean = x.mean()
    return x + mean


def in_bfloat16(x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return x * 2


class Inline(nn.Module):
    """Calls a function between its layers."""

    def __init__(self, function) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.second(self.function(self.first(x).relu()) * self.scale).mean((2, 3)))


class Own(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1)), torch.arange(4) % 3


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (reverse, "it calls Reversed, an autograd.Function, whose own backward a graph does not repeat"),
        (without_gradient, "it runs operators under torch.no_grad"),
        (in_bfloat16, "it runs operators under torch.no_grad, set_grad_enabled or autocast"),
    ],
)
def test_what_a_graph_does_not_repeat_is_refused_with_the_remedy(function, sentence):
    with pytest.raises(LocalLearnError, match=f"{sentence}.*put that code into a module of its own"):
        ll.localize(Inline(function), ll.BP(), input_shape=SHAPE)
    torch.manual_seed(0)
    model = Inline(Own(function))
    loss = nn.functional.cross_entropy(model(batch()[0]), batch()[1])
    expected = torch.autograd.grad(loss, list(model.parameters()))
    ll.localize(model, ll.BP(), input_shape=SHAPE).backward(*batch())
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_parameter_of_followed_code_that_is_replaced_is_told():
    net = ll.localize(Inline(nn.Identity()), ll.DGL(hidden=1), input_shape=SHAPE)
    net.model.scale = nn.Parameter(torch.zeros(4, 1, 1))
    with pytest.raises(LocalLearnError, match="'scale' was replaced after localize"):
        net.backward(*batch())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_layers_under_weight_norm_train_as_in_the_model():
    model = nn.Sequential(
        nn.utils.weight_norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3)
    )
    loss = nn.functional.cross_entropy(model(batch()[0]), batch()[1])
    expected = torch.autograd.grad(loss, list(model.parameters()))
    ll.localize(model, ll.BP(), input_shape=SHAPE).backward(*batch())
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (
            lambda logits, labels: nn.functional.cross_entropy(logits.detach(), labels),
            "has no gradient, so nothing trains",
        ),
        (lambda logits, labels: nn.functional.mse_loss(logits, labels), "cannot be computed on labels of shape"),
        (lambda labels, logits: nn.functional.cross_entropy(logits, labels), "cannot be computed on labels of shape"),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_loss_that_trains_nothing_or_fails_is_told(loss, sentence):
    net = ll.localize(Inline(nn.Identity()), ll.BP(), input_shape=SHAPE, loss=loss)
    with pytest.raises(LocalLearnError, match=sentence):
        net.backward(*batch())
