"""A backbone's features at four scales, and a feature pyramid on them."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from locallearn._chain.chain import TracedChain
from locallearn._chain.discovery import chain_of, trace
from locallearn._utils.errors import LocalLearnError, reason_of
from locallearn.detection.region_operators import import_detection

STRIDES = (4, 8, 16, 32)
"""Pixels of the image for one of the features, of the four stages."""

_SIDE = 128  # of the images by which strides are found


class Pyramid(nn.Module):
    """A backbone without its classifier and a feature pyramid network (Lin et al. 2017), for torchvision's detectors.

    The backbone's features are taken behind the last layer of each stage; a stage is what gives features of one stride:
    4, 8, 16 and 32. So any network works that `localize` sees as a chain and that has these strides; none of its
    parameters is renamed. Batch normalisation is frozen, as usual in detection: batches are small.

    Args:
        model: the backbone. It becomes part of this network, and is changed with it.
        frozen_stages: stages, from the first, whose weights stay as they are; the stem belongs to the first.
        channels: of each level of the pyramid.

    Attributes:
        body: the backbone.
        out_channels: of each level.

    Raises:
        LocalLearnError: the backbone is no chain, or does not have the four strides.
    """

    def __init__(self, model: nn.Module, *, frozen_stages: int = 1, channels: int = 256) -> None:
        super().__init__()
        import_detection()
        from torchvision.ops import FeaturePyramidNetwork  # pyright: ignore[reportMissingImports]
        from torchvision.ops.feature_pyramid_network import LastLevelMaxPool  # pyright: ignore[reportMissingImports]

        chain, self._ends = _stages(model)
        last = self._ends[-1] + 1
        self.body = model
        self._layers = chain.layers[:last]  # a tuple is not registered: each tensor is in the state dict once
        self._layouts = chain.layouts
        self._in_place = chain.begins_in_place
        widths = [chain.shapes[end][0] for end in self._ends]
        self.fpn = FeaturePyramidNetwork(widths, channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = channels
        trained = self._ends[frozen_stages - 1] + 1 if frozen_stages else 0
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for layer in self._layers[trained:]:
            for parameter in layer.parameters():
                parameter.requires_grad_()
        for norm in self._norms():
            for parameter in norm.parameters():
                parameter.requires_grad_(False)
        self.train(self.training)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """From (batch, 3, height, width) to the levels, finest first, named "0" to "3", and "pool" on top."""
        features, found = images, {}
        for index, layer in enumerate(self._layers):
            features = layer(features)
            if index in self._ends:
                size = [-(-side // STRIDES[len(found)]) for side in images.shape[2:]]
                level = self._layouts[index].to_map(features, size)
                found[str(len(found))] = level.clone() if self._in_place[index + 1] else level
        return self.fpn(found)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; batch normalisation stays in evaluation mode."""
        super().train(mode)
        for layer in self._layers:
            layer.train(mode)
        for norm in self._norms():
            norm.eval()
        return self

    def _norms(self) -> list[nn.Module]:
        return [part for part in self.body.modules() if isinstance(part, _BatchNorm)]


def _stages(model: nn.Module) -> tuple[TracedChain, tuple[int, ...]]:
    """The chain, and the index of the last layer of each stage."""
    name, shape = type(model).__name__, (3, _SIDE, _SIDE)
    try:
        chain = trace(chain_of(model, shape), shape)
    except (LocalLearnError, RuntimeError, AssertionError) as error:
        raise LocalLearnError(
            f"{name} cannot be the backbone of a detector, which must take images of any size: {reason_of(error)}."
        ) from error
    strides = [round(_SIDE / layout.shape[1]) for layout in chain.layouts]
    if missing := [stride for stride in STRIDES if stride not in strides]:
        found = ", ".join(str(stride) for stride in sorted(set(strides)))
        raise LocalLearnError(
            f"{name} gives features of strides {found}, but a detector's feature pyramid needs 4, 8, 16 and 32"
            f" ({', '.join(map(str, missing))} missing). Take a network of four stages for large images, such as"
            " resnet34 or torchvision:resnet18; forms for small images (cifar-...) end before."
        )
    return chain, tuple(max(i for i, found in enumerate(strides) if found == stride) for stride in STRIDES)
