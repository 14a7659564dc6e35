"""The papers' networks for images of about 32 x 32 pixels: those for ImageNet, shrinking the image less and later.

ResNets and ResNeXt begin with a 3x3 convolution of stride 1 without pooling; VGG ends in one linear layer; the first
convolutions of MobileNetV2, EfficientNet and RegNet have stride 1, and so have the next stage in MobileNetV2 and
the first two in RegNet. Published code of the papers' CIFAR experiments has none of these networks; the choices are
those common for CIFAR.
"""

from __future__ import annotations

from torch import nn

from locallearn.models import published


def resnet34(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-34 for small images: 17 layers."""
    return _residual(published.resnet34(num_classes), in_channels)


def resnet50(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-50 for small images: 17 layers."""
    return _residual(published.resnet50(num_classes), in_channels)


def resnet101(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-101 for small images: 34 layers."""
    return _residual(published.resnet101(num_classes), in_channels)


def resnet152(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-152 for small images: 51 layers."""
    return _residual(published.resnet152(num_classes), in_channels)


def resnext101_32x8d(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNeXt-101 32x8d for small images: 34 layers."""
    return _residual(published.resnext101_32x8d(num_classes), in_channels)


def vgg13(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """VGG13 with BatchNorm for small images: 10 layers and one linear layer."""
    return _one_linear(published.vgg13(num_classes, in_channels), num_classes)


def vgg19(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """VGG19 with BatchNorm for small images: 16 layers and one linear layer."""
    return _one_linear(published.vgg19(num_classes, in_channels), num_classes)


def mobilenet_v2(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """MobileNetV2 for small images: 19 layers."""
    return _without_strides(published.mobilenet_v2(num_classes, in_channels), ("features.0", "features.2"))


def efficientnet_b0(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """EfficientNet-B0 for small images: 17 layers."""
    return _without_strides(published.efficientnet_b0(num_classes, in_channels), ("features.0",))


def regnet_x_400mf(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """RegNetX-400MF for small images: 23 layers."""
    stages = ("stem", "trunk_output.block1", "trunk_output.block2")
    return _without_strides(published.regnet_x_400mf(num_classes, in_channels), stages)


def vit_tiny(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ViT-Tiny for images of 32 x 32 pixels in patches of 4 x 4: 13 layers, torchvision's VisionTransformer."""
    return published.vision_transformer(
        num_classes, in_channels, image_size=32, patch_size=4, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768
    )


def _residual(model: nn.Module, in_channels: int) -> nn.Module:
    model.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


def _one_linear(model: nn.Module, num_classes: int) -> nn.Module:
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier = nn.Linear(512, num_classes)
    return model


def _without_strides(model: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """All convolutions inside some modules get stride 1."""
    for name in names:
        for part in model.get_submodule(name).modules():
            if isinstance(part, nn.Conv2d):
                part.stride = (1, 1)
    return model
