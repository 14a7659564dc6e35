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
    """conv1x1(C, 128), conv3x3(128, 32), conv3x3(32, 12), upsampling after each, and conv3x3(12, image channels).

    Each but the last has BN and ReLU. The sizes are a quarter, a half and the whole of the image's, so an image has at
    least 4 x 4 pixels. Source: InfoPro, official code (ImageNet), where features are an eighth of the image.
    """

    def __init__(self, shape: Shape, image_channels: int) -> None:
        super().__init__()
        widths = (shape[0], 128, 32, 12)
        kernels = (1, 3, 3)
        self.steps = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.BatchNorm2d(after), nn.ReLU(True))
            for before, after, kernel in zip(widths, widths[1:], kernels, strict=False)
        )
        self.last = nn.Conv2d(12, image_channels, 3, padding=1)

    def forward(self, features: Tensor, size: Sequence[int]) -> Tensor:
        height, width = size
        if min(height, width) < 4:
            raise LocalLearnError(f"this decoder needs images of at least 4 x 4 pixels, not {height} x {width}.")
        for step, part in zip(self.steps, (4, 2, 1), strict=True):
            features = upsample(step(features), (height // part, width // part))
        return self.last(features)
