"""MLAAN (Zhang et al., 2024): leap chains and their EMA copies (Eq. 6-7), its two levels (Eq. 5), sizes, refusals."""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import nn

import locallearn as ll
from locallearn._chain.partition import partition
from locallearn._engine.stepper import ModuleStepper, Stepper
from locallearn._nn.ema import EmaCopy
from locallearn._objectives.decoders import Decoder
from locallearn.rules.mlaan_leaps import published_leap
from networks import SMALL, batch, count, mlp, parts, resnet20


def followed(follower: EmaCopy) -> dict[str, torch.Tensor]:
    """The tensors that move."""
    source = [name for name, _ in follower.sources[0].named_parameters()]
    everything = dict(follower.network.named_buffers()) | dict(follower.network.named_parameters())
    return {name: everything[name] for name in source}


def copied(net: ll.LocalNet, objective: ll.Objective) -> list[int]:
    """Indices of the layers of a leap chain, found by its first weights."""
    weights = {next(layer.parameters()).detach().numpy().tobytes(): i for i, layer in enumerate(net.chain.layers)}
    return [weights[next(layer.parameters()).detach().numpy().tobytes()] for layer in objective.auxiliary.front.copies]


@functools.cache
def leaping(split: str, fidelity: str = "official") -> ll.LocalNet:
    torch.manual_seed(0)
    model = ll.models.resnet32() if split in ("hpff-8", "hpff-16") else ll.models.resnet110()
    return ll.localize(model, ll.LAM(fidelity=fidelity), modules=split, input_shape=SMALL)


def expanded(table: str) -> list[list[str]]:
    """One list of blocks for each module."""
    rows: dict[int, list[str]] = {}
    for row in table.split(" · "):
        modules, blocks = row.split(": ")
        for part in modules.split(","):
            first, _, last = part.partition("-")
            for module in range(int(first), int(last or first) + 1):
                rows[module] = [f"layer{block}" for block in blocks.split()]
    assert sorted(rows) == list(range(len(rows)))
    return [rows[module] for module in range(len(rows))]


LEAPS = {
    "hpff-8": "0,1: 2.0 3.0 3.2 3.4 · 2: 2.0 3.0 3.3 3.4 · 3,4: 3.0 3.2 3.3 3.4 · 5: 3.2 3.3 3.4 · 6: 3.3 3.4",
    "hpff-16": "0,1,3: 2.0 3.0 3.2 3.4 · 2,4: 2.0 3.0 3.3 3.4 · 5-9: 3.0 3.2 3.3 3.4 · 10: 3.1 3.2 3.4"
    " · 11: 3.2 3.3 3.4 · 12: 3.3 3.4 · 13: 3.4",
    "hpff-32": "0-10: 2.0 3.0 3.2 3.17 · 11-20: 3.0 3.2 3.3 3.17 · 21: 3.0 3.3 3.4 3.17 · 22-25: 3.8 3.17"
    " · 26-27: 3.14 3.17 · 28: 3.15 3.17 · 29: 3.16 3.17 · 30: 3.17",
    "hpff-55": "0-17: 2.0 3.0 3.2 3.17 · 18-34: 3.0 3.2 3.3 3.17 · 35: 3.0 3.3 3.4 3.17 · 36-42: 3.8 3.17"
    " · 43-46: 3.14 3.17 · 47-48: 3.15 3.17 · 49-51: 3.16 3.17 · 52: 3.17",
}


@pytest.mark.parametrize("split", ["hpff-8", "hpff-16", pytest.param("hpff-32", marks=pytest.mark.slow)])
def test_leap_chains_copy_the_published_layers(split):
    net = leaping(split)
    found = [[net.chain.names[i] for i in copied(net, objective)] for objective in net.objectives[:-1]]
    assert found == expanded(LEAPS[split])


@functools.cache
def resnet110_chain() -> ll.TracedChain:
    return ll.localize(ll.models.resnet110(), ll.BP(), input_shape=SMALL).chain


@pytest.mark.parametrize("split", ["hpff-32", "hpff-55"])
def test_leap_chains_of_resnet110_as_published(split):
    chain = resnet110_chain()
    ends = partition(split, chain.names).ends
    leaps = [published_leap(chain, end, module, len(ends)) for module, end in enumerate(ends[:-1])]
    assert [[chain.names[i] for i in leap] for leap in leaps] == expanded(LEAPS[split])


@pytest.mark.parametrize("split", ["hpff-8", "hpff-16", pytest.param("hpff-32", marks=pytest.mark.slow)])
@pytest.mark.parametrize("fidelity", ["official", "paper"])
def test_fig3_copies_start_equal_and_how_many_have_an_ema_copy(split, fidelity):
    net = leaping(split, fidelity)
    for objective in net.objectives[:-1]:
        front, layers = objective.auxiliary.front, copied(net, objective)
        p, i, m = len(layers), objective.last, len(net.partition)
        expected = 1 if fidelity == "official" else max(1, -(-p * (i + 1) // (m - 1)))
        assert len(front.emas) == expected <= p
        for layer, copy_ in zip(layers, front.copies, strict=True):
            source = dict(net.chain.layers[layer].named_parameters())
            assert source.keys() == dict(copy_.named_parameters()).keys()
            assert all(torch.equal(w, source[name]) for name, w in copy_.named_parameters())
            assert all(w is not source[name] and w.requires_grad for name, w in copy_.named_parameters())
        for layer, ema in zip(layers, front.emas, strict=False):
            source = dict(net.chain.layers[layer].named_parameters())
            assert all(torch.equal(w, source[name]) and not w.requires_grad for name, w in followed(ema).items())


def test_only_the_first_layer_of_the_official_chain_has_a_sum():
    net = leaping("hpff-8")
    front = net.objectives[3].auxiliary.front
    z = torch.randn(2, 32, 8, 8)
    first, *others = front.copies
    expected = first(z) + front.emas[0](z)
    for layer in others:
        expected = layer(expected)
    torch.testing.assert_close(front(z), expected)
    assert net.objectives[3].logits(z).shape == (2, 10)


def convolutions() -> nn.Sequential:
    widths = [8, 8, 12, 12, 20, 20, 20, 20, 20]
    layers: list[nn.Module] = []
    for before, after in zip([3, *widths], widths, strict=False):
        pool = [nn.MaxPool2d(2)] if before == 12 != after else []
        layers += [*pool, nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 10))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": resnet20,
    "resnet32, 16 modules": ll.models.resnet32,
    "resnet56": ll.models.resnet56,
    "convolutions": convolutions,
    "vectors": lambda: mlp(widths=(12, 9, 9, 9, 7, 7), inputs=768, classes=10),
}


@pytest.mark.parametrize("length", [1, 2, 4, 6])
@pytest.mark.parametrize(
    "network", [name if name != "resnet56" else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_leap_chains_of_other_networks_fit_and_end_with_the_last_layer(network, length):
    torch.manual_seed(0)
    net = ll.localize(NETWORKS[network](), ll.LAM(length=length), input_shape=SMALL)
    for objective in net.objectives[:-1]:
        found, layer, last = copied(net, objective), objective.last, len(net.chain) - 1
        assert found == sorted(set(found))
        assert layer < found[0]
        assert found[-1] == last
        changes = [i for i in range(layer + 1, last + 1) if net.chain.shapes[i] != net.chain.shapes[i - 1]]
        assert set(changes) <= set(found)  # so that each copy can take what the one before it gives
        assert len(found) <= max(length, len(changes) + 1)
        if last - layer >= length >= len(changes) + 1 and (not changes or last - changes[-1] >= length - len(changes)):
            assert len(found) == length
    if network != "resnet56":
        assert net.backward(*batch()).isfinite().all()


@pytest.mark.parametrize("stepper", [Stepper, ModuleStepper])
@pytest.mark.parametrize("momentum", [0.995, 0.25, 1.0])
def test_eq7_every_ema_copy_follows_its_own_layer_before_the_step(stepper, momentum):
    rule = ll.MLAAN(ll.Pooling(), momentum=momentum, fidelity="official")
    net = ll.localize(resnet20().double(), rule, modules=5, input_shape=SMALL)
    steps = stepper(net, lambda group: torch.optim.SGD(group, lr=0.1))
    emas = parts(net, EmaCopy)
    assert len(emas) == 2  # cascades that end with modules 2 and 3; the last one ends in the classifier
    replay = [{name: t.clone() for name, t in followed(ema).items()} for ema in emas]
    layers = [copied(net, o)[0] for o in net.objectives if parts(o.auxiliary, EmaCopy)]
    for seed in range(3):
        images, labels = batch(seed=seed)
        for own, layer in zip(replay, layers, strict=True):
            for name, weight in net.chain.layers[layer].named_parameters():
                own[name] = momentum * own[name] + (1 - momentum) * weight.detach()
        net.backward(images.double(), labels, on_complete=steps.on_complete)
        steps.finish()
        for ema, own in zip(emas, replay, strict=True):
            for name, tensor in followed(ema).items():
                torch.testing.assert_close(tensor, own[name], rtol=1e-12, atol=1e-14)


def block(before: int, after: int) -> int:
    shortcut = before * after + 2 * after if before != after else 0
    return 9 * before * after + 9 * after * after + 4 * after + shortcut


B20, B30, B3 = block(16, 32), block(32, 64), block(64, 64)


def test_parameters_of_mlaan():
    net = ll.localize(ll.models.resnet32(), ll.MLAAN(), modules="hpff-8", input_shape=(3, 32, 32))
    # modules 2 ... 6 have a head of their own, and end a cascade with a leap chain and a head of 64 channels
    heads = 170 + 2 * 330 + 2 * 650 + 5 * 650
    assert count(net.auxiliary) == heads + (B20 + B30 + 2 * B3) + 2 * (B30 + 3 * B3) + 3 * B3 + 2 * B3
    emas = sum(tensor.numel() for ema in parts(net, EmaCopy) for tensor in followed(ema).values())
    assert emas == B20 + 2 * B30 + 2 * B3
    assert B20 == 14_528


def test_parameters_of_the_papers_ema_copies():
    net = ll.localize(ll.models.resnet32(), ll.MLAAN(fidelity="paper"), modules="hpff-8", input_shape=(3, 32, 32))
    emas = sum(tensor.numel() for ema in parts(net, EmaCopy) for tensor in followed(ema).values())
    # ceil(4 * 3 / 7) = 2, ceil(4 * 4 / 7) = 3, ceil(4 * 5 / 7) = 3, ceil(3 * 6 / 7) = 3, ceil(2 * 7 / 7) = 2
    assert emas == (B20 + B30) + 2 * (B30 + 2 * B3) + 3 * B3 + 2 * B3


def test_section_3d_leap_chains_at_cascades_alone_and_pooling_heads():
    net = ll.localize(resnet20(), ll.MLAAN(), modules=6, input_shape=SMALL)
    expected = [(2, 2, 0.001), (0, 2, 0.999), (3, 3, 0.001), (1, 3, 0.999), (4, 4, 0.001), (2, 4, 0.999)]
    expected += [(5, 5, 0.001), (3, 5, 0.999)]
    assert [(o.first, o.last, o.weight) for o in net.objectives] == expected
    for objective in net.objectives[:-2]:
        cascade = objective.first < objective.last
        assert bool(parts(objective.auxiliary, EmaCopy)) == cascade
        (linear,) = parts(objective.auxiliary, nn.Linear)
        width = 64 if cascade else net.chain.width(net.partition.ends[objective.last])
        assert (linear.in_features, linear.out_features) == (width, 10)
        if not cascade:
            assert not parts(objective.auxiliary, nn.Conv2d)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ll.LAM(ll.AugLocal()),
        lambda: ll.MLAAN(ll.AugLocal()),
        lambda: ll.LAM(ll.MAN(ll.AugLocal())),
        lambda: ll.HPFF(ll.MLAAN(ll.DGL())),
        lambda: ll.MLAAN(ll.HPFF(ll.DGL())),
        lambda: ll.MLAAN(ll.MLAAN()),
        lambda: ll.LAM(ll.MLAAN()),
        lambda: ll.MLM(ll.HiLo(ll.DGL())),
        lambda: ll.PFF(ll.HPFF(ll.DGL())),
        lambda: ll.MAN(ll.MAN(ll.DGL())),
        lambda: ll.MAN(ll.PFF(ll.MAN(ll.DGL()))),
        lambda: ll.InfoProLoss(ll.InfoProLoss(ll.DGL())),
        lambda: ll.HiLo(ll.BP()),
        lambda: ll.MAN(ll.Checkpoint()),
        lambda: ll.PFF(ll.DGL),
        lambda: ll.MLAAN(momentum=-0.1),
        lambda: ll.LAM(momentum=1.1),
        lambda: ll.LAM(length=0),
        lambda: ll.MLAAN(span=1),
        lambda: ll.MLAAN(fidelity="code"),
    ],
)
def test_wrappers_that_undo_each_other_and_wrong_settings_are_refused(wrong):
    with pytest.raises(ll.LocalLearnError):
        wrong()


@pytest.mark.parametrize("rule", [ll.MLAAN(ll.MAN(ll.DGL())), ll.LAM(ll.MAN(ll.DGL())), ll.MAN(ll.LAM(ll.DGL()))])
def test_two_wrappers_that_both_look_ahead_are_refused_at_the_end_of_the_network(rule):
    with pytest.raises(ll.LocalLearnError, match="no layer follows"):
        ll.localize(resnet20(), rule, input_shape=SMALL)


WEIGHTS_ON_INFOPRO = {  # addendum 1: lambda1 and lambda2 by stage, modules with losses by stage, first is 2
    "hpff-8": ({1: (4.1667, 0.41667), 2: (3.3333, 0.33333), 3: (2.5, 0.25)}, [1, 2, 2, 3, 3]),
    "hpff-16": (
        {1: (4.6154, 0.46154), 2: (4.2308, 0.42308), 3: (3.8462, 0.38462)},
        [1] * 3 + [2] * 5 + [3] * 4,
    ),
}
PARAMETERS_ON_INFOPRO = {
    "hpff-8": (260_119, 269_385, 1_149_504, 277_952),
    "hpff-16": (594_948, 646_524, 2_724_928, 628_160),
}


@functools.cache
def on_infopro(split: str) -> ll.LocalNet:
    torch.manual_seed(0)
    rule = ll.MLAAN(ll.InfoPro.published("mlaan"))
    return ll.localize(ll.models.resnet32(), rule, modules=split, input_shape=SMALL)


def test_around_infopro_both_levels_reconstruct_and_weights_follow_the_stage_of_the_own_last_layer():
    for split, (by_stage, stages) in WEIGHTS_ON_INFOPRO.items():
        for cascade in (False, True):
            objectives = [o for o in on_infopro(split).objectives[:-2] if (o.first < o.last) is cascade]
            assert [o.last for o in objectives] == list(range(2, 2 + len(stages)))
            for objective, stage in zip(objectives, stages, strict=True):
                assert len(parts(objective.auxiliary, Decoder)) == 1
                inner = objective.auxiliary.auxiliary if cascade else objective.auxiliary
                assert inner.weights == pytest.approx(by_stage[stage], abs=6e-5)


@pytest.mark.parametrize("split", PARAMETERS_ON_INFOPRO)
def test_around_infopro_parameters_are_those_of_the_official_code(split):
    inside = on_infopro(split).objectives[:-2]
    own = [o.auxiliary for o in inside if o.first == o.last]
    fronts = [o.auxiliary.front for o in inside if o.first < o.last]
    heads = [o.auxiliary for o in inside if o.first < o.last]
    copies, emas = sum(count(f.copies) for f in fronts), sum(count(f.emas) for f in fronts)
    found = sum(map(count, own)), sum(map(count, heads)) - copies - emas, copies, emas
    assert found == PARAMETERS_ON_INFOPRO[split]


def test_around_infopro_ema_copies_start_as_the_layer_and_are_trained_and_moved():
    net = ll.localize(resnet20(), ll.MLAAN(ll.InfoPro.published("mlaan")), modules=5, input_shape=SMALL)
    cascade = next(o for o in net.objectives if o.first < o.last)
    (ema,) = (part for part in cascade.auxiliary.front.emas.modules() if isinstance(part, EmaCopy))
    source = dict(ema.sources[0].named_parameters())
    assert all(torch.equal(w, source[name]) for name, w in ema.network.named_parameters())
    stepper = Stepper(net, make_optimizer=functools.partial(torch.optim.SGD, lr=0.1))
    net.backward(*batch(), on_complete=stepper.on_complete)
    before = [w.clone() for w in ema.network.parameters()]
    assert all(w.grad is not None for w in ema.network.parameters())
    stepper.finish()
    assert all(not torch.equal(w, old) for w, old in zip(ema.network.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("width", "parameters"), [(64, 81_768), (128, 195_304), (256, 257_000), (512, 513_000), (1024, 1_025_000)]
)
def test_heads_for_imagenet(width, parameters):
    layers = [nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 8, 1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1000))
    net = ll.localize(model, ll.ImageNetPooling(), input_shape=(3, 8, 8))
    assert count(net.objectives[0].auxiliary) == parameters
    assert net.backward(torch.randn(2, 3, 8, 8), torch.tensor([1, 2])).isfinite().all()


def test_on_imagenet_copies_start_with_first_weights_of_their_own():
    rule = ll.LAM(ll.ImageNetPooling(), fresh=True)
    front = ll.localize(resnet20(), rule, modules=5, input_shape=SMALL).objectives[0].auxiliary.front
    (ema,) = (part for part in front.emas.modules() if isinstance(part, EmaCopy))
    source, own = dict(ema.sources[0].named_parameters()), followed(ema)
    weights = [name for name, w in source.items() if w.dim() == 4]
    assert weights
    assert all(not torch.equal(source[name], own[name]) for name in weights)
