"""Copies of later layers, in auxiliary networks: prefix tokens, and layers that are bound to one size."""

import copy
from functools import cache, partial

import pytest
import torch
from tiny_networks import small_beit, small_eva, small_vit, tiny
from torch import Tensor, nn

import locallearn as ll
from locallearn._chain.layout import Kind, Layout, OnMaps, carry, carrying_shape, divided, joined
from locallearn._chain.structure import structure

IMAGES = (3, 16, 16)
COPYING = [ll.AugLocal(depth=2), ll.MAN(ll.DGL()), ll.MLAAN(ll.DGL())]


MAKERS = {  # with the number of prefix tokens
    "vit": (partial(tiny, "vit"), 1),
    "timm vit with registers": (partial(small_vit, reg_tokens=5), 6),
    "beit": (small_beit, 1),
    "eva02": (partial(small_eva, swiglu_mlp=True, ref_feat_shape=(4, 4)), 1),
    "dinov3": (partial(small_eva, num_reg_tokens=4, rope_type="dinov3", use_abs_pos_emb=False), 5),
}
LABELS = torch.arange(4)


@cache
def images() -> Tensor:
    return torch.randn(4, *IMAGES, generator=torch.Generator().manual_seed(1))


@cache
def made(network: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MAKERS[network][0]()


def localized(network: str, rule: ll.Rule) -> ll.LocalNet:
    return ll.localize(copy.deepcopy(made(network)), rule, input_shape=IMAGES)


def with_weights_of(copied: nn.Module, layer: nn.Module) -> None:
    """Give a copy the weights of its layer."""
    on_maps = next(part for part in copied.modules() if isinstance(part, OnMaps))
    on_maps.layer.load_state_dict(layer.state_dict())


def with_parameters_of(frozen: nn.Module, layer: nn.Module) -> None:
    """Give a frozen copy, whose parameters are buffers, those of its layer."""
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            frozen.get_buffer(name).copy_(parameter)


def as_map(tokens: Tensor, prefix: int) -> Tensor:
    """The tokens of the grid, and the mean of the others at every position."""
    return tokens[:, prefix:].transpose(1, 2).unflatten(2, (4, 4)) + tokens[:, :prefix].mean(1)[:, :, None, None]


@pytest.mark.parametrize("network", MAKERS)
def test_copied_blocks_compute_on_tokens_what_the_networks_blocks_compute(network):
    net, prefix = localized(network, ll.AugLocal(depth=3, fidelity="paper")), MAKERS[network][1]
    assert {layout.prefix for layout in net.chain.layouts} == {prefix}
    objective, blocks = net.objectives[0], (net.chain.layers[2], net.chain.layers[4])
    *copies, _, pool, linear = objective.auxiliary.network
    for copied, block in zip(copies, blocks, strict=True):
        with_weights_of(copied, block)
    tokens = net.local_modules[0](images())
    expected = linear(pool(as_map(blocks[1](blocks[0](tokens)), prefix)))
    torch.testing.assert_close(objective.logits(tokens), expected)


@pytest.mark.parametrize("rule", COPYING, ids=str)
@pytest.mark.parametrize("network", MAKERS)
def test_copies_send_gradients_to_every_prefix_token(network, rule):
    net, prefix = localized(network, rule), MAKERS[network][1]
    objective = next(objective for objective in net.objectives if objective.auxiliary.prefix)
    tokens = nn.Sequential(*net.local_modules[: objective.last + 1])(images()).detach().requires_grad_()
    objective.loss(tokens, images(), LABELS).backward()
    gradients = tokens.grad[:, :prefix].transpose(0, 1)
    assert all(gradient.any() for gradient in gradients)
    if prefix > 1:  # a mean alone would give each the same
        assert not torch.equal(gradients[0], gradients[1])
    net.backward(images(), LABELS)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_man_hands_prefix_tokens_on_to_auglocals_copies():
    net = localized("beit", ll.MAN(ll.AugLocal(depth=2, fidelity="paper"), bias=False))
    objective, (following, last) = net.objectives[0], (net.chain.layers[1], net.chain.layers[4])
    ema, inner = objective.auxiliary.front.ema.layer.network, objective.auxiliary.auxiliary
    with_parameters_of(ema, following)
    with_weights_of(inner.network[0], last)
    tokens = net.local_modules[0](images()).detach()
    expected = inner.network[2:](as_map(last(following(tokens)), 1))
    torch.testing.assert_close(objective.logits(tokens), expected)


def test_patches_carry_all_prefix_tokens():
    net = localized("timm vit with registers", ll.PFF(ll.MAN(ll.Pooling(), bias=False), fidelity="paper"))
    objective, block = net.objectives[0], net.chain.layers[1]
    inner = objective.auxiliary.auxiliary
    with_parameters_of(inner.front.ema.layer.network, block)
    tokens = net.local_modules[0](images()).detach()
    grid, logits = tokens[:, 6:].unflatten(1, (4, 4)), []
    for top in (0, 2):
        for left in (0, 2):
            patch = grid[:, top : top + 2, left : left + 2].flatten(1, 2)
            output = block(torch.cat([tokens[:, :6], patch], 1))
            logits.append(inner.auxiliary.network[-1](output[:, 6:].mean(1) + output[:, :6].mean(1)))
    torch.testing.assert_close(objective.logits(tokens), torch.stack(logits).mean(0))


def test_where_the_features_have_no_prefix_tokens_those_of_a_copy_are_the_mean_of_its_map():
    before = Layout(Kind.TOKENS, (8, 3, 5), 2)
    maps = torch.randn(3, 8, 3, 5)
    tokens = before.from_carrying_map(carry(maps, 0, 2))
    torch.testing.assert_close(tokens[:, :2], maps.mean((2, 3))[:, None].expand(-1, 2, -1))
    assert torch.equal(tokens[:, 2:], maps.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("prefix", [1, 3, 4, 9])
def test_maps_carry_prefix_tokens_and_give_them_back(prefix):
    layout = Layout(Kind.TOKENS, (5, 2, 4), prefix)
    tokens = torch.randn(3, prefix + 8, 5)
    maps = layout.to_carrying_map(tokens)
    assert maps.shape[1:] == carrying_shape(layout.shape, prefix)
    assert torch.equal(layout.from_carrying_map(maps), tokens)
    torch.testing.assert_close(carry(maps, prefix, 0), layout.to_map(tokens))
    assert torch.equal(joined(*divided(maps, prefix)), maps)


def test_auxiliary_networks_of_copies_in_equal_layouts_are_counted_once():
    net = localized("timm vit with registers", ll.MAN(ll.Pooling()))
    assert len({structure(objective.auxiliary) for objective in net.objectives[:-1]}) == 1


class Bound(nn.Module):
    """A residual block with a weight for each position."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.mix, self.bias = nn.Conv2d(8, 8, 1), nn.Parameter(torch.zeros(side, side))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(x + self.bias)


class Narrowing(nn.Module):
    """Blocks on maps of 16 x 16, then on maps of 4 x 4, of the same width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 4, 4)
        self.one, self.two, self.three, self.fc = Bound(16), Bound(4), Bound(4), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.down(self.one(self.stem(x))))
        return self.fc(self.three(x).mean((2, 3)))


def test_a_copy_that_takes_other_sizes_is_named_with_the_rules_that_work():
    with pytest.raises(ll.LocalLearnError) as error:
        ll.localize(Narrowing(), ll.AugLocal(depth=2), input_shape=IMAGES)
    sentence = str(error.value)
    assert sentence.startswith(
        "the auxiliary network after layer 'stem' cannot take features of shape 8x16x16, because its copy of layer"
        " 'three' takes other sizes only ("
    )
    assert sentence.endswith(
        "): use a rule that copies no layers, such as DGL, Pooling, PredSim or InfoPro, or end modules elsewhere by"
        " modules=[...]."
    )
    assert isinstance(error.value.__cause__, RuntimeError)


class NarrowingInCode(Narrowing):
    """The same with the blocks' code in the network's own forward, so that a layer is a graph."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.one.mix(x + self.one.bias)
        x = self.down(x)
        x = x + self.two.mix(x + self.two.bias)
        return self.fc((x + self.three.mix(x + self.three.bias)).mean((2, 3)))


def test_a_copied_graph_that_takes_other_sizes_is_named_too():
    ends = ["stem", "one.mix", "down", "two.mix", "three.mix"]
    with pytest.raises(ll.LocalLearnError, match=r"because its copy of layer 'three\.mix' takes other sizes only \("):
        ll.localize(NarrowingInCode(), ll.AugLocal(depth=2), input_shape=IMAGES, layers=ends)


@pytest.mark.parametrize("rule", [ll.DGL(), ll.Pooling(), ll.PredSim(), ll.InfoPro()], ids=str)
def test_rules_that_copy_no_layers_take_layers_that_are_bound_to_a_size(rule):
    net = ll.localize(Narrowing(), rule, input_shape=IMAGES)
    assert net.backward(torch.randn(4, *IMAGES), torch.arange(4)).isfinite().all()


class OfVectors(nn.Module):
    """A residual block of vectors, (batch, channels)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(self.one(x).relu())


@pytest.mark.parametrize("rule", [*COPYING, ll.ImageNetAugLocal(depth=3)], ids=str)
def test_residual_blocks_of_vectors_are_copied(rule):
    torch.manual_seed(0)
    blocks = [OfVectors(8), OfVectors(8), nn.Linear(8, 12), OfVectors(12), OfVectors(12)]
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), *blocks, nn.Linear(12, 5))
    net = ll.localize(model, rule, input_shape=(3, 8, 8))
    assert len(net.chain) == 6
    net.backward(torch.randn(4, 3, 8, 8), torch.arange(4))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    copied = sum(isinstance(part, OfVectors) for part in net.auxiliary.modules())
    assert copied >= len(net.auxiliary)
