import pytest
import torch
from torch import nn

from locallearn import LocalLearnError
from locallearn.training import SGD, AdamW


def some_parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    return list(model.parameters())


@pytest.mark.parametrize("settings", [SGD(lr=0.1), AdamW(lr=0.1)])
def test_everything_decays_by_default_as_published(settings):
    parameters = some_parameters()
    optimizer = settings.make(parameters)
    before = [p.detach().clone() for p in parameters]
    for p in parameters:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    moved = [not torch.equal(a, p) for a, p in zip(before, parameters, strict=True)]
    assert moved == [bool(a.any()) for a in before], "with no gradient only decay moves a parameter, unless it is zero"


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_norms_and_biases_can_be_spared(kind):
    parameters = some_parameters()
    optimizer = kind(lr=0.1, decay_norms_and_biases=False).make(parameters)
    before = [p.detach().clone() for p in parameters]
    for p in parameters:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for old, new in zip(before, parameters, strict=True):
        assert torch.equal(old, new) == (new.dim() == 1)


def test_sgd_is_nesterovs_worked_out_by_hand():
    (p,) = parameters = [nn.Parameter(torch.tensor([[2.0]]))]
    optimizer = SGD(lr=0.1, momentum=0.9, weight_decay=0.5).make(parameters)
    velocity, x = 0.0, 2.0
    for _ in range(3):
        p.grad = torch.ones_like(p)
        optimizer.step()
        gradient = 1 + 0.5 * x
        velocity = 0.9 * velocity + gradient
        x -= 0.1 * (gradient + 0.9 * velocity)
        assert p.item() == pytest.approx(x, rel=1e-6)


def test_optimizers_are_fused():
    assert all(kind().make(some_parameters()).defaults["fused"] for kind in (SGD, AdamW))


def test_a_negative_learning_rate_is_refused():
    with pytest.raises(LocalLearnError, match="lr and weight_decay must not be negative"):
        SGD(lr=-1)
