"""The papers' networks for ImageNet: torchvision's, with its parameter names, and forms of them for small images."""

from __future__ import annotations

from torch import nn

from locallearn._chain.chain import Chain
from locallearn._torch.vision_libraries import import_torchvision

import_torchvision()

from torchvision.models import efficientnet, mobilenetv2, regnet, resnet, vgg, vision_transformer as vit  # noqa: E402  # pyright: ignore[reportMissingImports]


class VGG(vgg.VGG):
    """torchvision's VGG; a max pooling begins the next layer, as in AugLocal's official code."""

    def chain(self) -> Chain:
        """Each convolution with its normalisation and activation, and with the pooling before it."""
        layers: dict[str, list[nn.Module]] = {}
        waiting: list[nn.Module] = []
        for index, part in self.features.named_children():
            if isinstance(part, nn.MaxPool2d):
                waiting = [part]
            elif isinstance(part, nn.Conv2d):
                layers[f"features.{index}"], waiting = [*waiting, part], []
            else:
                next(reversed(layers.values())).append(part)
        return Chain(
            layers={name: nn.Sequential(*parts) for name, parts in layers.items()},
            classifier=nn.Sequential(*waiting, self.avgpool, nn.Flatten(), self.classifier),
        )


class EfficientNet(efficientnet.EfficientNet):
    """torchvision's EfficientNet; the convolution after the last block belongs to the classifier."""

    def chain(self) -> Chain:
        """The stem and each block."""
        stem, *stages, head = self.features.children()
        layers: dict[str, nn.Module] = {"features.0": stem}
        for number, stage in enumerate(stages, start=1):
            layers |= {f"features.{number}.{name}": block for name, block in stage.named_children()}
        return Chain(layers=layers, classifier=nn.Sequential(head, self.avgpool, nn.Flatten(), self.classifier))


def resnet34(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """ResNet-34 for ImageNet: 17 layers."""
    return _with_channels(resnet.resnet34(num_classes=num_classes), in_channels)


def resnet50(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """ResNet-50 for ImageNet: 17 layers."""
    return _with_channels(resnet.resnet50(num_classes=num_classes), in_channels)


def resnet101(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """ResNet-101 for ImageNet: 34 layers."""
    return _with_channels(resnet.resnet101(num_classes=num_classes), in_channels)


def resnet152(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """ResNet-152 for ImageNet: 51 layers."""
    return _with_channels(resnet.resnet152(num_classes=num_classes), in_channels)


def resnext101_32x8d(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """ResNeXt-101 32x8d for ImageNet: 34 layers."""
    return _with_channels(resnet.resnext101_32x8d(num_classes=num_classes), in_channels)


def vgg13(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """VGG13 with BatchNorm for ImageNet: 10 layers."""
    return _vgg("B", num_classes, in_channels)


def vgg19(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """VGG19 with BatchNorm for ImageNet: 16 layers."""
    return _vgg("E", num_classes, in_channels)


def mobilenet_v2(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """MobileNetV2 for ImageNet: 19 layers."""
    return _with_channels(mobilenetv2.MobileNetV2(num_classes=num_classes), in_channels)


def efficientnet_b0(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """EfficientNet-B0 for ImageNet: 17 layers."""
    blocks = [
        efficientnet.MBConvConfig(expand, kernel, stride, before, after, number)
        for expand, kernel, stride, before, after, number in (
            (1, 3, 1, 32, 16, 1),
            (6, 3, 2, 16, 24, 2),
            (6, 5, 2, 24, 40, 2),
            (6, 3, 2, 40, 80, 3),
            (6, 5, 1, 80, 112, 3),
            (6, 5, 2, 112, 192, 4),
            (6, 3, 1, 192, 320, 1),
        )
    ]
    return _with_channels(EfficientNet(blocks, dropout=0.2, num_classes=num_classes), in_channels)


def regnet_x_400mf(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """RegNetX-400MF for ImageNet: 23 layers."""
    return _with_channels(regnet.regnet_x_400mf(num_classes=num_classes), in_channels)


def vision_transformer(num_classes: int, in_channels: int, **sizes: int) -> nn.Module:
    """A vision transformer of torchvision's kind, of any size."""
    return _with_channels(vit.VisionTransformer(num_classes=num_classes, **sizes), in_channels)  # pyright: ignore[reportArgumentType]


def _vgg(name: str, num_classes: int, in_channels: int) -> nn.Module:
    features = vgg.make_layers(vgg.cfgs[name], batch_norm=True)
    return _with_channels(VGG(features, num_classes=num_classes), in_channels)


def _with_channels(model: nn.Module, in_channels: int) -> nn.Module:
    return model if in_channels == 3 else with_first_convolution(model, in_channels=in_channels)


def with_first_convolution(model: nn.Module, *, in_channels: int) -> nn.Module:
    """The model with a new first convolution for another number of channels."""
    name, old = next((name, part) for name, part in model.named_modules() if isinstance(part, nn.Conv2d))
    height, width = old.kernel_size
    (down, right), bias = old.stride, old.bias is not None
    new = nn.Conv2d(in_channels, old.out_channels, (height, width), (down, right), old.padding, bias=bias)  # pyright: ignore[reportArgumentType]
    model.set_submodule(name, new)
    return model
