"""Decoders: from a module's features back to the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from locallearn._chain.layout import Shape
from locallearn._nn.losses import reconstruction
from locallearn._nn.upsampled_conv import UpsampledConv, upsample
from locallearn._objectives.auxiliary import Auxiliary, Outputs
from locallearn._utils.errors import LocalLearnError


class Reconstruction(Auxiliary):
    """Binary cross entropy between the decoded features and the image.

    Args:
        decoder: from features and the image's height and width to logits of the image.
        size: height and width of the features.
        mean, std: of each channel, with which the images were normalised.
    """

    def __init__(self, decoder: nn.Module, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.decoder = decoder
        self.size, self.mean, self.std = size, tuple(mean), tuple(std)
        for name, values in (("image_mean", mean), ("image_std", std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def outputs(self, features: Tensor, images: Tensor) -> Outputs:
        return self.decoder(features, images.shape[2:])

    def loss_of(self, outputs: Outputs, images: Tensor, labels: Tensor) -> Tensor:
        assert isinstance(outputs, Tensor)
        return self.distance(outputs, images)

    def distance(self, logits: Tensor, images: Tensor) -> Tensor:
        """The loss between logits and images."""
        return reconstruction(logits, images, self.get_buffer("image_mean"), self.get_buffer("image_std"))


class Decoder(nn.Module):
    """Bilinear upsampling to the image's size, conv3x3(C, 12) - BN - ReLU, conv3x3(12, image channels), with bias.

    Source: InfoPro, official code, `networks/resnet.py` (CIFAR); the sigmoid is in the loss.
    """

    def __init__(self, shape: Shape, image_channels: int) -> None:
        super().__init__()
        self.first = UpsampledConv(shape[0], 12)
        self.rest = nn.Sequential(
            nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.Conv2d(12, image_channels, 3, padding=1)
        )

    def forward(self, features: Tensor, size: Sequence[int]) -> Tensor:
        return self.rest(self.first(features, size))


class PyramidDecoder(nn.Module):
    """Convolutions with BN and ReLU, bilinear upsampling after each, and conv3x3 to the image's channels; with bias.

    Args:
        channels: of the features.
        image_channels: of the image.
        steps: channels and kernel of each convolution, and which part of the image's size follows: a quarter for 4.
    """

    def __init__(self, channels: int, image_channels: int, steps: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        self.parts = tuple(part for *_, part in steps)
        self.steps = nn.ModuleList()
        for width, kernel, _ in steps:
            convolution = nn.Conv2d(channels, width, kernel, padding=kernel // 2)
            self.steps.append(nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(True)))
            channels = width
        self.last = nn.Conv2d(channels, image_channels, 3, padding=1)

    def forward(self, features: Tensor, size: Sequence[int]) -> Tensor:
        height, width = size
        if min(height, width) < max(self.parts):
            least = max(self.parts)
            raise LocalLearnError(
                f"this decoder needs images of at least {least} x {least} pixels, not {height} x {width}."
            )
        for step, part in zip(self.steps, self.parts, strict=True):
            features = upsample(step(features), (height // part, width // part))
        return self.last(features)
