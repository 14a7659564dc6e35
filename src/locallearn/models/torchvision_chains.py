"""torchvision's VGG and EfficientNet, which say what their layers are; importing this file needs torchvision."""

from __future__ import annotations

from torch import nn

from locallearn._chain.chain import Chain
from locallearn._torch.vision_libraries import import_torchvision

import_torchvision()

from torchvision.models import efficientnet, vgg  # noqa: E402  # pyright: ignore[reportMissingImports]


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
