"""Auxiliary networks on features reduced to a few positions."""

import pytest
import torch
import torch.nn.functional as F
from tiny_networks import CLASSES, tiny
from torch import nn

import locallearn as ll
from locallearn._objectives.decoders import Reconstruction
from networks import batch, local_net, mlp, parts

GRID = 4
AT = ("stem", "layer2.0", "layer3.0")  # of 16 x 16, 8 x 8 and 4 x 4 positions


def reduced(rule: ll.Rule) -> ll.LocalNet:
    return local_net(ll.Reduced(rule, grid=GRID), modules=AT)


def heads_of(rule: ll.Rule) -> list[ll.Auxiliary]:
    return [objective.auxiliary for objective in reduced(rule).objectives[:-1]]


@pytest.mark.parametrize("rule", [ll.DGL(), ll.PredSim(), ll.AugLocal(depth=2)], ids=str)
def test_the_loss_is_the_inner_rules_of_averaged_features(rule):
    for auxiliary, channels, side in zip(heads_of(rule), (16, 32, 64), (16, 8, 4), strict=True):
        assert isinstance(auxiliary, ll.WithFront) == (side > GRID)
        inner = auxiliary.auxiliary if isinstance(auxiliary, ll.WithFront) else auxiliary
        features, (images, labels) = torch.randn(6, channels, side, side), batch()
        averaged = F.avg_pool2d(features, side // GRID)
        torch.testing.assert_close(auxiliary(features, images, labels), inner(averaged, images, labels))


def test_the_inner_rule_builds_its_networks_for_the_reduced_maps():
    for predsim in heads_of(ll.PredSim(inputs=256)):
        linear = next(part for part in predsim.modules() if isinstance(part, nn.Linear))
        assert linear.in_features == 256  # of 4 x 4 positions; 16 channels would have 16 x 16 of 16 x 16
    first, *_ = (parts(auxiliary, Reconstruction)[0] for auxiliary in heads_of(ll.InfoPro()))
    assert first.size == (GRID, GRID)


def test_reduced_maps_of_copied_layers_shrink_as_the_layers_do():
    """MAN copies layer2.0, which halves height and width, after the second module of these."""
    net = local_net(ll.Reduced(ll.MAN(ll.InfoPro()), grid=GRID), modules=("stem", "layer1.2"))
    sizes = [parts(objective.auxiliary, Reconstruction)[0].size for objective in net.objectives[:-1]]
    assert sizes == [(4, 4), (2, 2)]
    assert net.backward(*batch()).isfinite().all()


@pytest.mark.parametrize("rule", [ll.DGL(), ll.AugLocal(depth=2), ll.Pooling()], ids=str)
def test_wide_features_are_projected(rule):
    """Features of 16 channels stay as they are, those of 32 and 64 get 24."""
    net = local_net(ll.Reduced(rule, grid=GRID, channels=24), modules=AT)
    fronts = [objective.auxiliary.front for objective in net.objectives[:-1]]
    widths = [[part.out_channels for part in parts(front, nn.Conv2d)] for front in fronts]
    assert widths == [[], [24], [24]]
    losses = net.backward(*batch())
    assert losses.isfinite().all()
    assert all(parameter.grad is not None for parameter in net.auxiliary.parameters())


@pytest.mark.parametrize("around", [ll.MAN, ll.HiLo, ll.MLAAN])
def test_it_composes_inside_and_outside_of_other_wrappers(around):
    for rule in (ll.Reduced(around(ll.Pooling()), grid=GRID), around(ll.Reduced(ll.Pooling(), grid=GRID))):
        assert local_net(rule, modules=4).backward(*batch()).isfinite().all()


@pytest.mark.parametrize("rule", [ll.DGL(), ll.MAN(ll.AugLocal(depth=2))], ids=str)
def test_tokens_are_averaged_as_the_map_of_their_positions(rule):
    """Layers that are copied get the prefix tokens too."""
    net = ll.localize(tiny("vit"), ll.Reduced(rule, grid=2), input_shape=(3, 16, 16), modules=3)
    losses = net.backward(torch.randn(4, 3, 16, 16), torch.arange(4) % CLASSES)
    assert losses.isfinite().all()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_vectors_change_nothing():
    images, labels = batch(4, (3, 6, 6), 5)
    nets = [ll.localize(mlp(), rule, input_shape=(3, 6, 6)) for rule in (ll.Reduced(ll.DGL()), ll.DGL())]
    assert torch.equal(*(net.backward(images, labels) for net in nets))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: ll.Reduced(ll.DGL(), grid=0), "grid=0 must be at least 1"),
        (lambda: ll.Reduced(ll.DGL(), channels=0), "channels=0 must be at least 1"),
        (lambda: ll.Reduced(ll.HiLo(ll.MAN(ll.DGL())), channels=8), "put MAN around Reduced"),
        (lambda: ll.Reduced(ll.Reduced(ll.DGL())), "reduces the features"),
        (lambda: ll.Reduced(ll.BP()), "BP has none"),
    ],
)
def test_wrong_settings_are_refused(wrong, told):
    with pytest.raises(ll.LocalLearnError, match=told):
        wrong()
