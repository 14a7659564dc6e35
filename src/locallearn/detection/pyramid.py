"""A backbone's features at four scales, and a feature pyramid on them."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from locallearn._chain.chain import TracedChain
from locallearn._chain.discovery import chain_of
from locallearn._chain.trace import trace
from locallearn._utils.errors import LocalLearnError, reason_of
from locallearn.detection.region_operators import import_detection

STRIDES = (4, 8, 16, 32)
"""Pixels of the image per feature, for each of the four stages."""

_SIDE = 128  # pixels of the image on which strides are measured


class Pyramid(nn.Module):
    """A backbone without its classifier and a feature pyramid network (Lin et al. 2017), for torchvision's detectors.

    A stage is a group of layers whose features have one stride: 4, 8, 16 or 32. The pyramid reads the features after
    the last layer of each stage. So any network works that `localize` sees as a chain and that has these strides; its
    parameters keep their names. Batch normalisation is frozen, as usual in detection, where batches are small.

    Args:
        model: the backbone. It becomes part of this network: training the pyramid trains it.
        frozen_stages: number of first stages whose weights are not trained; the stem belongs to the first.
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
        self._layers = chain.layers[:last]  # a tuple does not register modules: `body` alone has them in the state dict
        self._layouts = chain.layouts
        self._in_place = chain.begins_in_place
        widths = [chain.layout_of_map(end).shape[0] for end in self._ends]
        self.fpn = FeaturePyramidNetwork(widths, channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = channels
        first_trained = self._ends[frozen_stages - 1] + 1 if frozen_stages else 0
        model.requires_grad_(False)
        for part in (*self._layers[first_trained:], *self._norms()):
            part.requires_grad_(not isinstance(part, _BatchNorm))
        self.train(self.training)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """From (batch, 3, height, width) to the levels, finest first, named "0" to "3", and "pool" on top."""
        features, levels = images, {}
        for index, layer in enumerate(self._layers):
            features = layer(features)
            if index in self._ends:
                size = [-(-side // STRIDES[len(levels)]) for side in images.shape[2:]]
                level = self._layouts[index].to_map(features, size)
                levels[str(len(levels))] = level.clone() if self._in_place[index + 1] else level
        return self.fpn(levels)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; batch normalisation stays in evaluation mode."""
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
        present = ", ".join(str(stride) for stride in sorted(set(strides)))
        raise LocalLearnError(
            f"{name} has features of strides {present}, but a detector's feature pyramid needs 4, 8, 16 and 32"
            f" ({', '.join(map(str, missing))} missing). Take a network of four stages for large images, such as"
            " resnet34 or torchvision:resnet18; forms for small images (cifar-...) end before."
        )
    return chain, tuple(max(i for i, other in enumerate(strides) if other == stride) for stride in STRIDES)
