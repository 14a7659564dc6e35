"""Tokens, and maps with channels last, as auxiliary networks see them."""

import pytest
import torch
from tiny_networks import CLASSES, tiny
from torch import nn

import locallearn as ll
from locallearn._chain.layout import Kind, Layout, OnMaps
from locallearn._objectives.patchwise import Patchwise

IMAGES = (3, 16, 16)
VITS = ["vit", "timm vit", "timm vit without class token", "timm vit with registers"]
PREFIX = dict(zip(VITS, (1, 1, 0, 4), strict=True))


def localized(network: str, rule: ll.Rule, **options) -> ll.LocalNet:
    return ll.localize(tiny(network), rule, input_shape=IMAGES, **options)


def batch(images: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(images, *IMAGES, generator=generator), torch.arange(images) % CLASSES


@pytest.mark.parametrize("network", VITS)
def test_a_vit_passes_tokens(network):
    chain = localized(network, ll.BP()).chain
    assert set(chain.layouts) == {Layout(Kind.TOKENS, (16, 4, 4), PREFIX[network])}
    assert set(chain.shapes) == {(16, 4, 4)}
    assert not any(chain.vectors)


def test_tokens_become_their_grid_and_back():
    layout = Layout(Kind.TOKENS, (5, 2, 3))
    tokens = torch.randn(4, 6, 5)
    maps = layout.to_map(tokens)
    assert torch.equal(maps[:, :, 1, 2], tokens[:, 5])
    assert torch.equal(layout.from_carrying_map(maps), tokens)


def test_the_mean_of_prefix_tokens_is_added_everywhere():
    tokens = torch.randn(4, 8, 5)
    maps = Layout(Kind.TOKENS, (5, 2, 3), 2).to_map(tokens)
    torch.testing.assert_close(maps[:, :, 0, 1], tokens[:, 3] + (tokens[:, 0] + tokens[:, 1]) / 2)


def test_channels_last_become_a_map_and_back():
    layout = Layout(Kind.CHANNELS_LAST, (5, 2, 3))
    features = torch.randn(4, 2, 3, 5)
    assert torch.equal(layout.to_map(features)[:, :, 1, 2], features[:, 1, 2])
    assert torch.equal(layout.from_carrying_map(layout.to_map(features)), features)


def test_a_head_pools_all_tokens():
    net = localized("timm vit", ll.Pooling())
    tokens = torch.randn(3, 17, 16)
    head = net.objectives[0].auxiliary.network
    expected = head[-1](tokens[:, 1:].mean(1) + tokens[:, 0])
    torch.testing.assert_close(net.objectives[0].logits(tokens), expected)


@pytest.mark.parametrize("network", VITS)
def test_the_first_modules_own_objective_trains_class_token_and_positions(network):
    net = localized(network, ll.Pooling())
    net.backward(*batch())
    assert all(p.grad.any() for p in net.local_modules[0].parameters())
    tokens = [name for name, _ in net.model.named_parameters() if "token" in name or "pos_emb" in name]
    assert len(tokens) == {"timm vit without class token": 1, "timm vit with registers": 3}.get(network, 2)
    first = {id(p) for p in net.local_modules[0].parameters()}
    assert all(id(net.model.get_parameter(name)) in first for name in tokens)


@pytest.mark.parametrize("network", ["timm vit", "swin"])
def test_pff_cuts_the_grid(network):
    net = localized(network, ll.PFF(ll.Pooling(), fidelity="paper"))
    objective = net.objectives[0]
    assert isinstance(objective.auxiliary, Patchwise)
    features = net.local_modules[0](batch()[0])
    maps = objective.seen(features)
    side = maps.shape[2] // 2
    quarters = [maps[:, :, i : i + side, j : j + side] for i in (0, side) for j in (0, side)]
    linear = objective.auxiliary.auxiliary.network[-1]
    expected = torch.stack([linear(quarter.mean((2, 3))) for quarter in quarters]).mean(0)
    torch.testing.assert_close(objective.logits(features), expected)
    assert net.backward(*batch()).isfinite().all()


def test_infopro_decodes_the_image_from_the_grid():
    net = localized("vit", ll.InfoPro())
    features = net.local_modules[0](batch()[0])
    outputs = net.objectives[0].auxiliary.outputs(net.objectives[0].seen(features), batch()[0])
    assert outputs[0].shape == (4, *IMAGES)


@pytest.mark.parametrize("network", ["vit", "timm vit"])
def test_auglocal_and_man_use_later_blocks(network):
    block = type(localized(network, ll.BP()).chain.layers[1])
    net = localized(network, ll.AugLocal(depth=3, fidelity="paper"))
    found = [sum(isinstance(part, block) for part in auxiliary.modules()) for auxiliary in net.auxiliary]
    # 2 (1 - r) + r, rounded up from a half, of r = 0, 1/6, 1/3, 1/2; the last module has one layer after it
    assert found == [2, 2, 2, 1]
    net = localized(network, ll.MAN(ll.Pooling()))
    ema = [part for name, part in net.auxiliary[1].named_modules() if name.endswith("ema.layer.network")]
    assert [type(part) for part in ema] == [block]
    before = {name: buffer.clone() for name, buffer in ema[0].named_buffers()}
    net.backward(*batch())
    assert all(not torch.equal(buffer, before[name]) for name, buffer in ema[0].named_buffers() if buffer.dim() > 1)


def test_a_copied_layer_gives_maps_of_patches_their_size():
    merging = nn.Sequential(nn.Unflatten(1, (2, 3)), Merge(), nn.Flatten(1, 2))
    before, after = Layout(Kind.TOKENS, (5, 4, 6)), Layout(Kind.TOKENS, (5, 2, 3))
    assert OnMaps(merging, before, after)(torch.randn(2, 5, 2, 3)).shape == (2, 5, 1, 2)


class Merge(nn.Module):
    """Halves height and width of channels-last maps, rounding up."""

    def forward(self, x):
        return x[:, ::2, ::2]


RULES = [
    *(ll.DGL(), ll.DGL.original(), ll.PredSim(), ll.InfoPro.original(), ll.ImageNetInfoPro()),
    *(ll.HPFF(ll.MAN(ll.AugLocal(depth=2)), fidelity="paper"), ll.MLAAN(ll.InfoPro()), ll.ImageNetAugLocal(depth=2)),
    *(ll.SequentialAugLocal(depth=2), ll.RepetitiveAugLocal(depth=2), ll.ConvolutionalAugLocal(depth=2)),
    *(ll.InfoProLoss(ll.DGL()), ll.MAN(ll.PredSim(), fidelity="paper"), ll.Checkpoint()),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_rule_trains_a_vit(rule):
    net = localized("timm vit", rule, modules=4)
    losses = net.backward(*batch())
    assert losses.isfinite().all()
    assert all(p.grad is not None for p in net.parameters())


def test_an_image_of_another_proportion():
    net = ll.localize(tiny("swin"), ll.HPFF(ll.DGL(), fidelity="paper"), modules=3, input_shape=(3, 16, 32))
    assert net.chain.shapes[0] == (8, 8, 16)
    assert net.backward(torch.randn(4, 3, 16, 32), torch.arange(4)).isfinite().all()


@pytest.mark.parametrize("rule", [ll.DGL(), ll.AugLocal(depth=2)], ids=str)
def test_every_objective_of_a_vit_learns(rule):
    net = localized("timm vit", rule, modules=3)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    losses = []
    for _ in range(20):
        losses.append(net.backward(*batch(10)))
        optimizer.step()
        optimizer.zero_grad()
    assert (losses[-1] < 0.7 * losses[0]).all()
