"""InfoPro (Wang et al., ICLR 2021): heads, decoders, schedules, published settings, task losses, ImageNet form."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import locallearn as ll
from locallearn._nn.losses import supervised_contrastive
from locallearn._nn.padded_conv import PaddedConv
from locallearn._objectives.decoders import Reconstruction
from locallearn.cost import forward_macs
from networks import SMALL, batch, count, mlp, resnet20

WIDTHS = (16, 32, 64)


@functools.cache
def resnet(depth: int, rule: ll.Rule, modules: str = "all") -> ll.LocalNet:
    return ll.localize(getattr(ll.models, f"resnet{depth}")(), rule, modules=modules, input_shape=(3, 32, 32))


@functools.cache
def at_each_width(rule: ll.Rule) -> tuple[nn.Module, ...]:
    sites = ["stem", "layer2.0", "layer3.0"]
    net = ll.localize(ll.models.resnet20(), rule, modules=sites, input_shape=(3, 32, 32))
    return tuple(objective.auxiliary for objective in net.objectives[:-1])


def decoder_and_task(auxiliary: nn.Module) -> tuple[nn.Module, nn.Module]:
    decoder, task = auxiliary.terms
    assert isinstance(decoder, Reconstruction)
    return decoder, task


# parameters after 16, 32 and 64 channels, 10 classes
HEADS = {
    "0c1f": (170, 330, 650),
    "0c2f": (3_466, 5_514, 9_610),
    "1c1f": (5_002, 19_210, 37_642),
    "1c2f": (10_186, 28_170, 46_602),
    "1c3f": (26_698, 44_682, 63_114),
    "2c2f": (19_466, 65_162, 83_594),
}
DECODERS = (2_091, 3_819, 7_275)


@pytest.mark.parametrize("head", HEADS)
def test_parameters_of_each_head_and_decoder(head):
    parts = [decoder_and_task(auxiliary) for auxiliary in at_each_width(ll.InfoPro(head=head))]
    assert tuple(count(task) for _, task in parts) == HEADS[head]
    assert tuple(count(decoder) for decoder, _ in parts) == DECODERS


@pytest.mark.parametrize(("index", "width", "stride"), [(0, 32, 2), (1, 64, 2), (2, 64, 1)])
def test_layers_of_the_largest_head(index, width, stride):
    _, task = decoder_and_task(at_each_width(ll.InfoPro(head="2c2f"))[index])
    first, second = (part for part in task.modules() if isinstance(part, nn.Conv2d))
    linears = [(part.in_features, part.out_features) for part in task.modules() if isinstance(part, nn.Linear)]
    assert (first.in_channels, first.out_channels, first.stride) == (WIDTHS[index], width, (stride, stride))
    assert (second.in_channels, second.out_channels, second.stride) == (width, width, (1, 1))
    assert first.bias is second.bias is None
    assert linears == [(width, 128), (128, 10)]


def test_a_head_computes_convolution_pooling_and_linear_layers():
    _, task = decoder_and_task(at_each_width(ll.InfoPro(head="2c2f"))[0])
    task.train()
    convolutions = [part for part in task.modules() if isinstance(part, nn.Conv2d)]
    hidden, classifier = [part for part in task.modules() if isinstance(part, nn.Linear)]
    x = features = torch.randn(4, 16, 32, 32)
    for convolution in convolutions:
        x = F.batch_norm(convolution(x), None, None, training=True).relu()
    torch.testing.assert_close(task.logits(features), classifier(hidden(x.mean((2, 3))).relu()))


def widths_of(depth: int, *, stem: bool = True) -> list[int]:
    blocks = (depth - 2) // 6
    return [16] * (blocks + stem) + [32] * blocks + [64] * (blocks - 1)


def total(widths: list[int], head: str) -> int:
    return sum(HEADS[head][WIDTHS.index(c)] + DECODERS[WIDTHS.index(c)] for c in widths)


@pytest.mark.parametrize(
    ("depth", "modules", "expected"),
    [
        (32, "hpff-8", 384_371),
        (32, "all", 837_723),
        (32, "infopro-16", 837_723),
        (32, "hpff-16", 837_723 - 19_466 - 2_091),  # the stem is in the first of 15 modules
        (110, "hpff-32", 1_813_739),
        (110, "all", 3_196_014),
        (110, "hpff-55", 3_196_014 - 19_466 - 2_091),
    ],
)
def test_parameters_of_hpffs_and_mans_base(depth, modules, expected):
    assert count(resnet(depth, ll.InfoPro.published("hpff"), modules).auxiliary) == expected


@pytest.mark.parametrize("depth", [32, 110])
def test_parameters_of_the_auglocal_comparison(depth):
    assert count(resnet(depth, ll.InfoPro()).auxiliary) == total(widths_of(depth), "1c2f")


# network, split, modules that its name says, lambda1 and lambda2 of the first and the last module
PUBLISHED = {
    "auglocal-resnet32": (32, "all", 16, (5, 0.2), (0.05, 0.5)),
    "auglocal-resnet110": (110, "all", 55, (5, 0.5), (0, 1)),
    "infopro-resnet32-2": (32, "infopro-2", 2, (5, 0), (1, 0)),
    "infopro-resnet32-4": (32, "infopro-4", 4, (6, 1), (0, 2)),
    "infopro-resnet32-8": (32, "infopro-8", 8, (5, 0), (0, 2)),
    "infopro-resnet32-16": (32, "infopro-16", 16, (5, 0.2), (0.05, 0.5)),
    "infopro-resnet110-2": (110, "infopro-2", 2, (5, 0), (0.5, 0)),
    "infopro-resnet110-4": (110, "infopro-4", 4, (1, 0), (0, 1)),
    "infopro-resnet110-8": (110, "infopro-8", 8, (5, 0), (0, 1)),
    "infopro-resnet110-16": (110, "infopro-16", 16, (5, 0.5), (0, 1)),
    "infopro-balanced-resnet110-2": (110, "infopro-balanced-2", 2, (5, 0), (0.1, 0)),
    "infopro-balanced-resnet110-3": (110, "infopro-balanced-3", 3, (5, 5), (0, 0.1)),
    "infopro-balanced-resnet110-4": (110, "infopro-balanced-4", 4, (5, 5), (0, 0.1)),
    "infopro-stl10-resnet110-2": (110, "infopro-2", 2, (10, 0), (1, 0)),
    "infopro-stl10-resnet110-4": (110, "infopro-4", 4, (20, 5), (0.2, 2)),
    "infopro-stl10-resnet110-8": (110, "infopro-8", 8, (20, 5), (0.2, 1)),
    "infopro-stl10-resnet110-16": (110, "infopro-16", 16, (20, 10), (0.5, 0.1)),
    "infopro-balanced-stl10-resnet110-2": (110, "infopro-balanced-stl-2", 2, (20, 0), (1, 0)),
    "infopro-balanced-stl10-resnet110-3": (110, "infopro-balanced-stl-3", 3, (20, 5), (0.5, 2)),
    "infopro-balanced-stl10-resnet110-4": (110, "infopro-balanced-stl-4", 4, (20, 10), (0.5, 1)),
    "infopro-svhn-resnet110-2": (110, "infopro-2", 2, (1, 0), (0.1, 0)),
    "infopro-svhn-resnet110-4": (110, "infopro-4", 4, (5, 0.5), (0, 1)),
    "infopro-svhn-resnet110-8": (110, "infopro-8", 8, (5, 0.5), (0, 2)),
    "infopro-svhn-resnet110-16": (110, "infopro-16", 16, (5, 0.5), (0.2, 1)),
}
HPFF = [(32, "hpff-8", 8), (32, "hpff-16", 16), (110, "hpff-32", 32), (110, "hpff-55", 55)]
SCHEDULES = [(name, *found) for name, found in PUBLISHED.items()]
SCHEDULES += [("hpff", *split, (5, 0), (0.5, 0)) for split in HPFF]


@pytest.mark.parametrize(("name", "depth", "split", "k", "lambda1", "lambda2"), SCHEDULES)
def test_weights_go_linearly_over_the_modules(name, depth, split, k, lambda1, lambda2):
    net = resnet(depth, ll.InfoPro.published(name), split)
    found = [objective.auxiliary.weights for objective in net.objectives[:-1]]
    trained = k - 1 if split in ("hpff-16", "hpff-55") else k  # the stem belongs to the first module
    assert len(found) == trained - 1
    for i in {0, 1, trained // 2, trained - 2} & set(range(trained - 1)):
        r = i / (k - 2) if k > 2 else 0
        expected = tuple(first * (1 - r) + last * r for first, last in (lambda1, lambda2))
        assert found[i] == pytest.approx(expected, abs=1e-12), i
    if k == trained and k > 2:
        assert found[-1] == pytest.approx((lambda1[1], lambda2[1]), abs=1e-12)
    assert [objective.weight for objective in net.objectives] == [1.0] * trained


def test_hpffs_16_modules_are_15_whose_weights_stop_short_of_the_end():
    found = [o.auxiliary.weights for o in resnet(32, ll.InfoPro.published("hpff"), "hpff-16").objectives[:-1]]
    assert found[0] == (5, 0.5)
    assert found[13] == pytest.approx((5 / 14, 0.5 / 14))
    assert resnet(32, ll.InfoPro.published("hpff"), "hpff-8").objectives[6].auxiliary.weights == (0, 0)


@pytest.mark.parametrize("name", [*PUBLISHED, "hpff"])
def test_only_infopros_own_runs_are_contrastive_and_hpffs_head_is_larger(name):
    rule = ll.InfoPro.published(name)
    assert rule.task_loss == ("contrastive" if name.startswith("infopro") else "cross-entropy")
    assert rule.head == ("2c2f" if name == "hpff" else "1c2f")


def test_the_contrastive_head_gives_128_outputs_and_no_logits():
    rule = ll.InfoPro(task_loss="contrastive", lambda1=(0, 0), lambda2=(3, 3))
    net = ll.localize(resnet20(), rule, modules=["layer1.0"], input_shape=SMALL)
    images, labels = batch(8)
    auxiliary = net.objectives[0].auxiliary
    _, embeddings = auxiliary.outputs(net.local_modules[0](images), images)
    assert embeddings.shape == (8, 128)
    torch.testing.assert_close(net.backward(images, labels)[0], 3 * supervised_contrastive(embeddings, labels))
    first, last = net.eval().logits(images)
    assert first is None
    assert last.shape == (8, 10)
    with pytest.raises(ll.LocalLearnError, match="the contrastive loss compares classes"):
        net.backward(images, torch.full((8, 10), 0.1))


NORMALISATION = ([0.49, 0.48, 0.45], [0.25, 0.24, 0.26])


@pytest.mark.parametrize(
    ("options", "mean", "std"),
    [
        ({"image_mean": NORMALISATION[0], "image_std": NORMALISATION[1]}, *NORMALISATION),
        ({}, [0.5] * 3, [0.25] * 3),
    ],
    ids=["given", "default"],
)
def test_the_image_is_brought_back_by_the_normalisation_that_localize_is_told(options, mean, std):
    rule = ll.InfoPro(lambda1=(1, 1), lambda2=(0, 0))
    net = ll.localize(resnet20(), rule, modules=["layer2.0"], input_shape=SMALL, **options)
    images, labels = batch()
    decoder, _ = decoder_and_task(net.objectives[0].auxiliary)
    guess = torch.sigmoid(decoder.outputs(net.local_modules[0](images), images)).double()
    target = (images * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)).clamp(0, 1).double()
    expected = -(target * guess.log() + (1 - target) * (1 - guess).log()).mean()
    torch.testing.assert_close(net.backward(images, labels)[0].double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "options",
    [{"image_mean": [0.5]}, {"image_std": [0.5] * 4}, {"image_std": [0.5, 0.5, 0]}, {"image_std": [0.5, 0.5, -1]}],
    ids=str,
)
def test_a_normalisation_that_does_not_fit_the_image_is_refused(options):
    with pytest.raises(ll.LocalLearnError, match="image_"):
        ll.localize(resnet20(), ll.InfoPro(), modules=2, input_shape=SMALL, **options)


def test_the_loss_is_the_weighted_sum_and_both_parts_train_the_module():
    net = ll.localize(resnet20(), ll.InfoPro(lambda1=(2, 2), lambda2=(0.5, 0.5)), modules=3, input_shape=SMALL)
    images, labels = batch()
    losses, features = net.backward(images, labels), images
    for index, objective in enumerate(net.objectives[:-1]):
        features = net.local_modules[index](features)
        decoder, task = decoder_and_task(objective.auxiliary)
        expected = 2 * decoder(features, images, labels) + 0.5 * F.cross_entropy(task.logits(features), labels)
        torch.testing.assert_close(losses[index], expected, rtol=1e-4, atol=0)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.auxiliary.parameters() if p.dim() > 1)


def test_table7_of_auglocal_forward_macs_of_resnet110():
    found = forward_macs(resnet(110, ll.InfoPro.published("auglocal-resnet110")))
    assert round(sum(m.backbone + m.task_heads for m in found) / 1e9, 4) == 0.3373
    # 64 maps of 8 x 8 are convolved before they are upsampled: nine taps, their columns, then their rows
    small = 12 * (8 * 8 * 9 * 64 + 8 * 3 * 32 * 8 * 3 + 32 * 32 * 8 * 3)
    first = [small if c == 64 else 32 * 32 * 9 * 12 * c for c in widths_of(110)]
    decoders = [macs + 32 * 32 * 9 * 12 * 3 for macs in first]
    assert [m.others for m in found] == [*decoders, 0]


@pytest.mark.parametrize("shape", [(3, 17, 13), (3, 5, 7)], ids=str)
def test_odd_images_train(shape):
    net = ll.localize(resnet20(), ll.InfoPro(), input_shape=shape)
    assert net.backward(*batch(4, shape)).isfinite().all()


def test_vectors_train_as_maps_of_one_position():
    net = ll.localize(mlp(), ll.InfoPro(), input_shape=(3, 6, 6))
    assert net.backward(*batch(4, (3, 6, 6), 5)).isfinite().all()
    assert [logits.shape for logits in net.eval().logits(batch(4, (3, 6, 6))[0])] == [(4, 5)] * 3


def downsampling(channels: int) -> nn.Sequential:
    """Features an eighth of the image."""
    parts = [nn.Conv2d(3, channels, 8, 8), nn.ReLU(), nn.Conv2d(channels, 8, 1), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


@pytest.mark.parametrize(
    ("rule", "channels", "decoder", "head", "sizes"),
    [
        # addendum 3 and 4: parameters of decoders for three image channels, and of heads for 1,000 classes
        (ll.ImageNetInfoPro(), 256, 73_931, 4_610_792, [4, 8, 16, 32]),
        (ll.ImageNetInfoPro(), 512, 106_699, 4_643_560, [4, 8, 16, 32]),
        (ll.ImageNetInfoPro(), 1024, 232_011, 5_135_336, [4, 4, 8, 16, 32]),
        (ll.HPFFImageNetInfoPro(), 256, 52_067, 4_610_792, [4, 16, 32]),
        (ll.HPFFImageNetInfoPro(), 512, 107_971, 4_643_560, [4, 8, 16, 32]),
        (ll.HPFFImageNetInfoPro(), 1024, 228_995, 5_135_336, [4, 16, 8, 16, 32]),
    ],
)
def test_decoders_and_heads_for_imagenet(rule, channels, decoder, head, sizes):
    net = ll.localize(downsampling(channels), rule, input_shape=(3, 32, 32))
    decodes, task = decoder_and_task(net.objectives[0].auxiliary)
    assert count(decodes) == decoder
    assert count(task) + 990 * 2049 == head  # of 10 classes here
    assert [c.stride[0] for c in task.modules() if isinstance(c, nn.Conv2d)] == [1, 2, 2, 1]
    images = torch.randn(2, 3, 32, 32)
    found = []
    for part in decodes.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda _, args, out: found.append(out.shape[2]))
    assert decodes.outputs(net.local_modules[0](images), images).shape == images.shape
    assert found == sizes
    assert net.backward(images, torch.tensor([1, 2])).isfinite().all()


@pytest.mark.parametrize(
    ("name", "task"), [("imagenet-resnet101", 0.75), ("imagenet-resnext101", 0.75), ("imagenet-resnet152", 1.0)]
)
def test_weights_for_imagenet_are_constant(name, task):
    rule = ll.InfoPro.published(name)
    assert rule.task_loss == "cross-entropy"
    net = ll.localize(resnet20(), rule, modules=4, input_shape=SMALL)
    assert [o.auxiliary.weights for o in net.objectives[:-1]] == [(5, task)] * 3


@pytest.mark.parametrize("shape", [(3, 3, 8), (3, 8, 3)], ids=str)
def test_an_image_smaller_than_4_pixels_is_refused_for_imagenet(shape):
    with pytest.raises(ll.LocalLearnError, match="at least 4 x 4 pixels"):
        ll.localize(resnet20(), ll.ImageNetInfoPro(), modules=2, input_shape=shape)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"head": head}, "head=") for head in ("1c2", "c2f", "1c0f", "2c2f ", "1C2F", "", "-1c2f")),
        ({"lambda1": (-1.0, 0.0)}, "lambda1"),
        ({"lambda2": (0.5, -0.1)}, "lambda2"),
        ({"lambda2": (0.5, 0.1, 0.1)}, "lambda2"),
        ({"task_loss": "contrast"}, "did you mean 'contrastive'"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ll.LocalLearnError, match=message):
        ll.InfoPro(**options)


def test_an_unknown_published_name_is_refused_with_the_nearest():
    with pytest.raises(ll.LocalLearnError, match="did you mean 'infopro-resnet32-16'"):
        ll.InfoPro.published("infopro-resnet32-15")


@pytest.mark.parametrize("stride", [1, 2])
def test_padded_convolutions_are_those_of_pytorch_and_on_one_position_have_finite_gradients(stride):
    own, other = PaddedConv(64, 128, 3, stride), nn.Conv2d(64, 128, 3, stride, 1, bias=False)
    other.weight = own.weight
    for size in (1, 2, 5):
        features = torch.randn(2, 64, size, size)
        torch.testing.assert_close(own(features), other(features))
    for _ in range(10):
        spoilt = [torch.full((64 * 128 * 9,), torch.nan) for _ in range(8)]  # memory that is left as it was would show
        del spoilt
        own.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = own(torch.randn(2, 64, 1, 1)).square().sum()
        loss.backward()
        assert own.weight.grad.isfinite().all()
        assert own.weight.grad[:, :, 0].abs().max() == 0
