"""AugLocal on networks other than ResNets."""

import pytest
import torch
from torch import nn

import locallearn as ll
from networks import mlp


def sequential(norm: bool = True) -> nn.Sequential:
    parts: list[nn.Module] = []
    for before, after in ((3, 8), (8, 8), (8, 16), (16, 16), (16, 32)):
        parts += [nn.Conv2d(before, after, 3, padding=1, bias=not norm)]
        parts += [nn.BatchNorm2d(after)] if norm else []
        parts += [nn.ReLU(), *([nn.MaxPool2d(2)] if after > before > 3 else [])]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))


@pytest.mark.parametrize("norm", [True, False])
def test_a_sequential_gets_new_layers_like_its_own(norm):
    net = ll.localize(sequential(norm), ll.AugLocal(depth=3), input_shape=(3, 16, 16))
    built = []
    for objective in net.objectives[:-1]:
        convolutions = [part for part in objective.auxiliary.modules() if isinstance(part, nn.Conv2d)]
        built.append([(c.in_channels, c.out_channels, c.stride[0]) for c in convolutions])
        assert all((c.bias is None) == norm and c.kernel_size == (3, 3) for c in convolutions)
        assert sum(isinstance(part, nn.BatchNorm2d) for part in objective.auxiliary.modules()) == 2 * norm
        assert sum(isinstance(part, nn.ReLU) for part in objective.auxiliary.modules()) == 2
        assert not any(isinstance(part, nn.MaxPool2d) for part in objective.auxiliary.modules())
    # L = 5, k = 2, M = 3; after layer 0: layers 2 and 4; after layer 1: 1 + 1.5 rounds to 2, and 4
    assert built == [[(8, 16, 2), (16, 32, 2)], [(8, 16, 2), (16, 32, 2)]]


def test_norms_of_new_layers_start_fresh():
    model = sequential()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.constant_(part.weight, 7.0)
            nn.init.constant_(part.running_mean, 7.0)
    for part in ll.localize(model, ll.AugLocal(depth=3), input_shape=(3, 16, 16)).auxiliary.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert torch.equal(part.weight, torch.ones_like(part.weight))
            assert torch.equal(part.running_mean, torch.zeros_like(part.running_mean))


@pytest.mark.parametrize(("depth", "norm"), [(2, True), (3, False)])
def test_an_mlp_gets_new_linear_layers(depth, norm):
    net = ll.localize(mlp(widths=(10, 11, 12, 13, 14, 15)), ll.AugLocal(depth=depth), input_shape=(3, 6, 6))
    built = []
    for objective in net.objectives[:-1]:
        parts = list(objective.auxiliary.modules())
        built.append([(part.in_features, part.out_features) for part in parts if isinstance(part, nn.Linear)])
        assert any(isinstance(part, nn.BatchNorm1d) for part in parts) == norm
    if depth == 2:  # L = 6, k = 1, M = 5: always the last layer
        assert built == [[(width, 15), (15, 5)] for width in (10, 11, 12, 13)]
    else:  # k = 2, M = 4: round(0 + 2.5) = 2, round(1 + 2) = 3, round(2 + 1.5) = 4, then the last layer
        assert built == [
            [(10, 12), (12, 15), (15, 5)],
            [(11, 13), (13, 15), (15, 5)],
            [(12, 14), (14, 15), (15, 5)],
        ]


class Strange(nn.Module):
    """A layer that nobody said how to build anew."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return self.conv(x).tanh()


class StrangeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle, self.top = nn.Conv2d(3, 8, 1), Strange(), Strange()
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))

    def forward(self, x):
        return self.head(self.top(self.middle(self.stem(x))))

    def chain(self):
        return ll.Chain(layers={"stem": self.stem, "middle": self.middle, "top": self.top}, classifier=self.head)


def test_a_layer_of_an_unknown_type_is_copied_and_adapted():
    model = StrangeNet()
    net = ll.localize(model, ll.AugLocal(depth=2), input_shape=(3, 8, 8))
    (new,) = [part for part in net.auxiliary.modules() if isinstance(part, Strange)]
    assert not any(new.conv.weight is part.weight for part in (model.middle.conv, model.top.conv))
    assert not torch.equal(new.conv.weight, model.top.conv.weight)
    assert net.backward(torch.randn(4, 3, 8, 8), torch.arange(4)).isfinite().all()
