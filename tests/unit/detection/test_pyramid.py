"""Backbones under a feature pyramid, against torchvision's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from locallearn import LocalLearnError
from locallearn.detection import DetectSettings, Pyramid, mask_rcnn
from locallearn.training import Trained, make_model


def network(name: str, channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return make_model(name, classes=3, image_shape=(channels, 128, 128))


def test_features_are_those_of_torchvisions_own_pyramid():
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    theirs = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=3)
    ours = Pyramid(network("torchvision:resnet18"))
    ours.body.load_state_dict(theirs.body.state_dict(), strict=False)
    ours.fpn.load_state_dict(theirs.fpn.state_dict())
    images = torch.randn(2, 3, 96, 64)
    found, expected = ours(images), theirs(images)
    assert list(found) == list(expected) == ["0", "1", "2", "3", "pool"]
    for name, level in expected.items():
        assert torch.allclose(found[name], level, atol=1e-5)
    mine = {name for name, p in ours.body.named_parameters() if p.requires_grad}
    assert mine == {name for name, p in theirs.body.named_parameters() if p.requires_grad}


def test_frozen_stages_and_batch_normalisation_stay_as_they_are():
    pyramid = Pyramid(network("torchvision:resnet18"), frozen_stages=2).train()
    before = {name: part.clone() for name, part in pyramid.body.state_dict().items()}
    sum(level.square().mean() for level in pyramid(torch.randn(1, 3, 64, 64)).values()).backward()
    torch.optim.SGD([p for p in pyramid.parameters() if p.requires_grad], lr=0.1).step()
    changed = {name for name, part in pyramid.body.state_dict().items() if not torch.equal(part, before[name])}
    assert {name.partition(".")[0] for name in changed} == {"layer3", "layer4"}
    assert all("conv" in name or name.endswith("downsample.0.weight") for name in changed)
    assert {name for name in pyramid.state_dict() if not name.startswith("fpn.")} == {f"body.{name}" for name in before}
    none = Pyramid(network("torchvision:resnet18"), frozen_stages=0)
    assert none.body.get_parameter("conv1.weight").requires_grad
    assert not none.body.get_parameter("fc.weight").requires_grad


@pytest.mark.parametrize("name", ["mobilenet-v2", "efficientnet-b0", "regnet-x-400mf", "timm:convnext_atto"])
def test_any_chain_with_four_strides_is_a_backbone(name):
    pyramid = Pyramid(network(name), channels=8).eval()
    with torch.no_grad():
        levels = pyramid(torch.randn(1, 3, 96, 160))
    assert [tuple(level.shape[1:]) for level in levels.values()] == [
        *((8, 96 // stride, 160 // stride) for stride in (4, 8, 16, 32)),
        (8, 2, 3),
    ]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cifar-resnet34", r"strides 1, 2, 4, 8, but .* \(16, 32 missing\). Take a network of four stages"),
        ("resnet20", r"strides 1, 2, 4, but .* forms for small images .* end before"),
        (
            "cifar-vit-tiny",
            "VisionTransformer cannot be the backbone of a detector, which must take images of any",
        ),
    ],
)
def test_backbones_without_four_strides_are_refused(name, sentence):
    torch.manual_seed(0)
    with pytest.raises(LocalLearnError, match=sentence):
        Pyramid(make_model(name, classes=3, image_shape=(3, 32, 32)))


def test_grey_backbones_are_refused():
    grey = Trained(
        model=network("torchvision:resnet18", 1), name="torchvision:resnet18", classes=("a", "b", "c"),
        image_shape=(1, 32, 32), mean=(0.5,), std=(0.5,), how={},
    )  # fmt: skip
    with pytest.raises(LocalLearnError, match="trained on images of 1 channel; a detector's have 3"):
        mask_rcnn(grey, DetectSettings(), categories=2)
