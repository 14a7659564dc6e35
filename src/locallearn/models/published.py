"""The papers' networks for ImageNet: torchvision's, with its parameter names, and forms of them for small images."""

from __future__ import annotations

from torch import nn

from locallearn._torch.vision_libraries import import_torchvision


def resnet34(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """ResNet-34 for ImageNet: 17 layers."""
    return _torchvision("resnet34", num_classes, in_channels)


def resnet50(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """ResNet-50 for ImageNet: 17 layers."""
    return _torchvision("resnet50", num_classes, in_channels)


def resnet101(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """ResNet-101 for ImageNet: 34 layers."""
    return _torchvision("resnet101", num_classes, in_channels)


def resnet152(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """ResNet-152 for ImageNet: 51 layers."""
    return _torchvision("resnet152", num_classes, in_channels)


def resnext101_32x8d(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """ResNeXt-101 32x8d for ImageNet: 34 layers."""
    return _torchvision("resnext101_32x8d", num_classes, in_channels)


def vgg13(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """VGG13 with BatchNorm for ImageNet: 10 layers."""
    return _vgg("B", num_classes, in_channels)


def vgg19(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """VGG19 with BatchNorm for ImageNet: 16 layers."""
    return _vgg("E", num_classes, in_channels)


def mobilenet_v2(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """MobileNetV2 for ImageNet: 19 layers."""
    return _torchvision("mobilenet_v2", num_classes, in_channels)


def efficientnet_b0(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """EfficientNet-B0 for ImageNet: 17 layers."""
    from locallearn.models.torchvision_chains import EfficientNet

    block = import_torchvision().models.efficientnet.MBConvConfig
    blocks = [
        block(1, 3, 1, 32, 16, 1),
        block(6, 3, 2, 16, 24, 2),
        block(6, 5, 2, 24, 40, 2),
        block(6, 3, 2, 40, 80, 3),
        block(6, 5, 1, 80, 112, 3),
        block(6, 5, 2, 112, 192, 4),
        block(6, 3, 1, 192, 320, 1),
    ]
    return with_channels(EfficientNet(blocks, dropout=0.2, num_classes=num_classes), in_channels)


def regnet_x_400mf(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """RegNetX-400MF for ImageNet: 23 layers."""
    return _torchvision("regnet_x_400mf", num_classes, in_channels)


def vision_transformer(num_classes: int, in_channels: int, **sizes: int) -> nn.Module:
    """A vision transformer of torchvision's kind, of any size."""
    return with_channels(import_torchvision().models.VisionTransformer(num_classes=num_classes, **sizes), in_channels)


def _torchvision(name: str, num_classes: int, in_channels: int) -> nn.Module:
    return with_channels(import_torchvision().models.get_model(name, num_classes=num_classes), in_channels)


def _vgg(name: str, num_classes: int, in_channels: int) -> nn.Module:
    from locallearn.models.torchvision_chains import VGG

    vgg = import_torchvision().models.vgg
    features = vgg.make_layers(vgg.cfgs[name], batch_norm=True)
    return with_channels(VGG(features, num_classes=num_classes), in_channels)


def with_channels(model: nn.Module, in_channels: int) -> nn.Module:
    """The model, with a new first convolution where images have another number of channels than three."""
    if in_channels == 3:
        return model
    name, old = next((name, part) for name, part in model.named_modules() if isinstance(part, nn.Conv2d))
    height, width = old.kernel_size
    (down, right), bias = old.stride, old.bias is not None
    new = nn.Conv2d(in_channels, old.out_channels, (height, width), (down, right), old.padding, bias=bias)  # pyright: ignore[reportArgumentType]
    model.set_submodule(name, new)
    return model
