"""Small networks of every family, from torchvision and timm, for images of 16 x 16 pixels or more."""

import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from locallearn import models
from locallearn._torch.vision_libraries import import_timm

with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sys.modules, "wandb", None)  # timm would import it, which takes longer than all else in here
    torchvision = models.import_torchvision()
    timm = import_timm()

from timm.models import (
    beit as timm_beit,
    convnext as timm_convnext,
    eva as timm_eva,
    nest as timm_nest,
    resnet as timm_resnet,
    vision_transformer as timm_vit,
)
from torchvision.models import (
    convnext,
    efficientnet,
    mobilenetv2,
    regnet,
    swin_transformer,
    vgg,
    vision_transformer,
)

from locallearn.models import torchvision_chains

CLASSES = 5
WIDTHS = (8, 8, 16, 16)


def _residual(block: type[nn.Module], **options) -> nn.Module:
    return timm_resnet.ResNet(block, layers=(1, 2, 1, 1), num_classes=CLASSES, stem_width=8, channels=WIDTHS, **options)


def _vgg() -> nn.Module:
    model = torchvision_chains.VGG(vgg.make_layers([8, "M", 16, 16, "M", 16], batch_norm=True), init_weights=False)
    model.avgpool, model.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(16, CLASSES)
    return model


def _efficientnet() -> nn.Module:
    config = efficientnet.MBConvConfig
    blocks = [config(1, 3, 1, 8, 8, 1), config(4, 3, 2, 8, 16, 2), config(4, 5, 2, 16, 24, 2)]
    return efficientnet.EfficientNet(blocks, dropout=0.0, num_classes=CLASSES)


def _regnet() -> nn.Module:
    params = regnet.BlockParams([1, 2, 1], [8, 16, 24], [4, 8, 8], [1.0, 1.0, 1.0], [1, 2, 2])
    return regnet.RegNet(params, num_classes=CLASSES, stem_width=8)


def _convnext() -> nn.Module:
    config = convnext.CNBlockConfig
    return convnext.ConvNeXt([config(8, 16, 2), config(16, None, 2)], num_classes=CLASSES)


def _vit() -> nn.Module:
    return vision_transformer.VisionTransformer(
        image_size=16, patch_size=4, num_layers=4, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=CLASSES
    )


def _swin() -> nn.Module:
    return swin_transformer.SwinTransformer(
        patch_size=[2, 2], embed_dim=8, depths=[1, 2], num_heads=[2, 2], window_size=[4, 4], num_classes=CLASSES
    )


SIZES = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 2, "num_classes": CLASSES}


def small_vit(**options) -> nn.Module:
    return timm_vit.VisionTransformer(**SIZES | options)


def small_beit() -> nn.Module:
    return timm_beit.Beit(**SIZES, use_rel_pos_bias=True, use_abs_pos_emb=False)


def small_eva(**options) -> nn.Module:
    return timm_eva.Eva(**SIZES, use_rot_pos_emb=True, **options)


def small_nest(levels: int = 2) -> nn.Module:
    sizes = {"embed_dims": (16, 32, 32)[:levels], "num_heads": (2,) * levels, "depths": (2, 2, 1)[:levels]}
    return timm_nest.Nest(img_size=32, patch_size=4, num_classes=CLASSES, num_levels=levels, **sizes)


TINY: dict[str, tuple[Callable[[], nn.Module], int]] = {  # with the number of layers
    "resnet, basic blocks": (partial(_residual, timm_resnet.BasicBlock), 6),
    "resnet, grouped bottlenecks": (partial(_residual, timm_resnet.Bottleneck, cardinality=2, base_width=32), 6),
    "vgg": (_vgg, 4),
    "mobilenet": (
        partial(
            mobilenetv2.MobileNetV2,
            num_classes=CLASSES,
            width_mult=0.25,
            inverted_residual_setting=[[1, 32, 1, 1], [4, 48, 2, 2], [4, 64, 2, 2]],
        ),
        7,
    ),
    "efficientnet": (_efficientnet, 7),
    "regnet": (_regnet, 5),
    "convnext": (_convnext, 6),
    "timm convnext": (
        partial(timm_convnext.ConvNeXt, num_classes=CLASSES, depths=(1, 2, 1, 1), dims=(8, 16, 16, 16), patch_size=1),
        6,
    ),
    "vit": (_vit, 5),
    "timm vit": (small_vit, 5),
    "timm vit without class token": (partial(small_vit, class_token=False, global_pool="avg"), 5),
    "timm vit with registers": (partial(small_vit, reg_tokens=3), 5),
    "swin": (_swin, 5),
}


def tiny(name: str, seed: int = 0) -> nn.Module:
    """A network of `TINY`; equal seeds give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TINY[name][0]()
