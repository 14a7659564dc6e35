"""HPFF (Su et al., ECCV 2024): the objectives of HiLo, Eq. 3-5, and their auxiliary networks."""

import functools

import pytest
import torch
import torch.nn.functional as F
from patches import Heads, four_distances

import locallearn as ll
from locallearn._objectives.decoders import Decoder
from networks import SMALL, batch, count, parts, resnet20

LOW, HIGH = 0.001, 0.999


SPANS = {
    ("official", 2, 1): [(0, 0, 1)],
    ("official", 2, 2): [(1, 1, LOW), (0, 1, HIGH)],
    ("official", 2, 4): [(1, 1, LOW), (0, 1, HIGH), (2, 2, LOW), (1, 2, HIGH), (3, 3, LOW), (2, 3, HIGH)],
    ("official", 3, 3): [(2, 2, LOW), (0, 2, HIGH)],
    ("official", 3, 5): [(2, 2, LOW), (0, 2, HIGH), (3, 3, LOW), (1, 3, HIGH), (4, 4, LOW), (2, 4, HIGH)],
    ("official", 5, 5): [(4, 4, LOW), (0, 4, HIGH)],
    ("paper", 2, 1): [(0, 0, 1)],
    ("paper", 2, 4): [(0, 0, LOW), (1, 1, LOW), (0, 1, HIGH), (2, 2, LOW), (1, 2, HIGH), (3, 3, 1)],
    ("paper", 3, 5): [(0, 0, LOW), (1, 1, LOW), (2, 2, LOW), (0, 2, HIGH), (3, 3, LOW), (1, 3, HIGH), (4, 4, 1)],
}


@pytest.mark.parametrize(("fidelity", "span", "modules"), SPANS)
def test_eq5_objectives_of_hilo(fidelity, span, modules):
    net = ll.localize(resnet20(), ll.HiLo(Heads(), span=span, fidelity=fidelity), modules=modules, input_shape=SMALL)
    assert [(o.first, o.last, o.weight) for o in net.objectives] == SPANS[fidelity, span, modules]
    own = [o for o in net.objectives if o.last < modules - 1]
    assert len({id(o.auxiliary) for o in own}) == len(own)  # each has a network of its own
    assert len({id(o.auxiliary) for o in net.objectives if o.last == modules - 1}) == 1  # and the last one classifier


@pytest.mark.parametrize(
    ("fidelity", "span", "modules", "least"),
    [
        *[("official", 3, 2, 3), ("official", 5, 2, 5), ("official", 5, 4, 5)],
        *[("paper", 3, 2, 4), ("paper", 5, 4, 6), ("paper", 2, 2, 3), ("paper", 3, 3, 4)],
    ],
)
def test_too_few_modules_for_a_cascade_are_refused(fidelity, span, modules, least):
    rule = ll.HPFF(ll.InfoPro(), span=span, fidelity=fidelity)
    told = f"HiLo puts cascades over {span} .* there are {modules}: ask for at least {least} modules"
    with pytest.raises(ll.LocalLearnError, match=told):
        ll.localize(resnet20(), rule, modules=modules, input_shape=SMALL)


def test_weights_multiply_those_of_the_inner_rule():
    net = ll.localize(resnet20(), ll.HiLo(ll.PredSim.original()), modules=3, input_shape=SMALL)
    weights = [o.weight for o in net.objectives]
    assert weights == pytest.approx([LOW, HIGH, LOW * 0.01, HIGH * 0.01])


@pytest.mark.parametrize("rule", [ll.InfoProLoss(ll.DGL()), ll.MAN(ll.InfoProLoss(ll.PredSim()))], ids=str)
def test_no_decoder_is_left_at_the_independent_level_however_deep(rule):
    net = ll.localize(resnet20(), ll.HiLo(rule), modules=4, input_shape=SMALL)
    for objective in net.objectives[:-2]:
        decoders = [part for part in objective.auxiliary.modules() if isinstance(part, Decoder)]
        assert len(decoders) == (0 if objective.first == objective.last else 1)


def test_eq5_weights_of_the_levels_are_options():
    rule = ll.HiLo(ll.DGL(), independent=0.25, cascade=2.0)
    found = ll.localize(resnet20(), rule, modules=3, input_shape=SMALL).objectives
    assert [o.weight for o in found] == [0.25, 2.0, 0.25, 2.0]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ll.HiLo(ll.DGL(), span=1),
        lambda: ll.HPFF(ll.DGL(), span=0),
        lambda: ll.HiLo(ll.DGL(), independent=-0.1),
        lambda: ll.HiLo(ll.DGL(), cascade=-1),
        lambda: ll.HiLo(ll.DGL(), fidelity="offical"),
        lambda: ll.PFF(ll.DGL(), patches=0),
        lambda: ll.HPFF(ll.DGL(), patches=-1),
        lambda: ll.PFF(ll.DGL(), fidelity="code"),
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ll.LocalLearnError):
        wrong()


@functools.cache
def hpff(split: str) -> ll.LocalNet:
    model = ll.models.resnet32() if split in ("hpff-8", "hpff-16") else ll.models.resnet110()
    return ll.localize(model, ll.HPFF(ll.InfoPro.published("hpff")), modules=split, input_shape=(3, 32, 32))


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("hpff-8", 778_368),
        ("hpff-16", 1_702_336),
        pytest.param("hpff-32", 3_841_152, marks=pytest.mark.slow),
        pytest.param("hpff-55", 6_761_728, marks=pytest.mark.slow),
    ],
)
def test_auxiliary_parameters(split, expected):
    assert count(hpff(split).auxiliary) == expected


@pytest.mark.parametrize("split", ["hpff-8", "hpff-16"])
def test_only_cascades_reconstruct(split):
    for objective in hpff(split).objectives:
        inner = objective.last < len(hpff(split).partition) - 1
        expected = 4 if objective.first < objective.last and inner else 0
        assert len(parts(objective.auxiliary, Decoder)) == expected


def test_in_the_paper_both_levels_reconstruct():
    rule = ll.HiLo(ll.InfoPro(), fidelity="paper")
    net = ll.localize(resnet20(), rule, modules=4, input_shape=SMALL)
    assert [len(parts(o.auxiliary, Decoder)) for o in net.objectives] == [1] * 5 + [0]


def test_eq5_losses_of_one_module_by_hand():
    """Module 3 of 8: 0.001 CE(g(M3(sg x2))) + 0.999 (2.5 Rec4(d(z)) + 0.25 CE(h(z))), z = M3(M2(sg x1))."""
    torch.manual_seed(0)
    model = ll.models.resnet32().double()
    rule = ll.HPFF(ll.InfoPro.published("hpff"))
    net = ll.localize(model, rule, modules="hpff-8", input_shape=SMALL)
    images, labels = batch()
    images = images.double()
    alone, cascade = net.objectives_of(3)
    assert [(o.first, o.last, o.weight) for o in (alone, cascade)] == [(3, 3, LOW), (2, 3, HIGH)]
    assert cascade.auxiliary.weights == (2.5, 0.25)
    losses = dict(zip(map(id, net.objectives), net.backward(images, labels), strict=True))
    features = images
    for module in net.local_modules[:4]:
        features = module(features)
    assert features.shape[1] == 32
    entropies = [F.cross_entropy(o.logits(features), labels) for o in (alone, cascade)]
    expected = 2.5 * sum(four_distances(cascade.auxiliary, features, images)) + 0.25 * entropies[1]
    torch.testing.assert_close(losses[id(alone)], entropies[0], check_dtype=False)
    torch.testing.assert_close(losses[id(cascade)], expected, check_dtype=False, rtol=1e-5, atol=0)


def test_eq5_objectives_of_the_last_module_share_the_classifier():
    net = ll.localize(resnet20().double(), ll.HiLo(ll.Pooling()), modules=3, input_shape=SMALL)
    images, labels = batch()
    alone, cascade = net.objectives_of(2)
    assert alone.auxiliary is cascade.auxiliary
    losses = net.backward(images.double(), labels)
    assert torch.equal(losses[-1], losses[-2])  # the same features, twice
    found = net.model.fc.weight.grad.clone()
    net.zero_grad()
    F.cross_entropy(net.model(images.double()), labels).backward()
    torch.testing.assert_close(found, (LOW + HIGH) * net.model.fc.weight.grad)


def test_on_imagenet_cascades_alone_train_with_the_whole_decoders_loss_times_four():
    net = ll.localize(resnet20(), ll.HPFF.imagenet(), modules=4, input_shape=SMALL)
    assert [(o.first, o.last, o.weight) for o in net.objectives] == [(0, 1, 1.0), (1, 2, 1.0), (2, 3, 1.0)]
    assert [o.auxiliary.weights for o in net.objectives[:-1]] == [(20.0, 0.75)] * 2


def test_four_parts_of_the_image_have_four_times_its_loss():
    """The official code adds the mean cross entropies of four quarters: four times the mean of the whole."""
    auxiliary = ll.localize(resnet20(), ll.HPFF.imagenet(), modules=4, input_shape=SMALL).objectives[0].auxiliary
    rec = auxiliary.terms[0]
    images = torch.randn(2, *SMALL)
    logits, half = torch.randn_like(images), SMALL[1] // 2
    quarters = [(slice(i, i + half), slice(j, j + half)) for i in (0, half) for j in (0, half)]
    total = sum(rec.distance(logits[:, :, y, x], images[:, :, y, x]) for y, x in quarters)
    torch.testing.assert_close(total, 4 * rec.distance(logits, images))
