"""The layout of a layer's output: where its images and its channels are, or why that is no layout."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from locallearn._chain.layout import Kind, Layout, Shape, layout_of
from locallearn._fx.tracer import BATCHES
from locallearn._utils.errors import LocalLearnError

_DIMENSIONS = {4: "(batch, channels, height, width)", 3: "(batch, tokens, channels)"}


def layout_after(
    name: str, features: Sequence[Tensor], channels: int | None, image: Shape, before: Layout | None
) -> Layout:
    """The layout of a layer's output.

    Args:
        name: the layer's name.
        features: its output for each of `BATCHES`.
        channels: the dimension of its channels, or None where no operator tells.
        image: channels, height, width of the image.
        before: the layout of its input.

    Raises:
        LocalLearnError: the output has no layout that auxiliary networks can take.
    """
    feature = features[0]
    sizes = "x".join(map(str, feature.shape[1:])) or "no values"
    _refuse_other_batch(name, features)
    layout = layout_of(feature, image, before, channels)
    if layout is None:
        volumes = ": one-dimensional and three-dimensional inputs are not supported yet" if feature.dim() == 5 else ""
        raise LocalLearnError(
            f"layer {name!r} passes on a tensor of shape {sizes}; a chain passes maps (channels, height, width), tokens"
            f" (tokens, channels) or vectors (channels){volumes}."
        )
    if feature.dim() == 2:
        return layout
    expected = _DIMENSIONS[feature.dim()]
    if channels is None:
        if before is None or len(before.kind.value.split(",")) == feature.dim():
            return layout
        raise LocalLearnError(
            f"layer {name!r} passes on a tensor of shape {sizes}, and its operators do not tell which dimension has the"
            f" channels: end the layer elsewhere by layers=[...], where features are {expected}."
        )
    if feature.dim() == 3 and channels == 1:
        raise LocalLearnError(
            f"layer {name!r} passes on one-dimensional features, (batch, channels, length) of shape {sizes}, which are"
            " not supported yet: make them maps (batch, channels, 1, length) and use two-dimensional layers."
        )
    last = feature.dim() - 1
    if channels not in (1, last) or (layout.kind is Kind.CHANNELS_LAST and not _has_proportions(layout.shape, image)):
        raise LocalLearnError(
            f"layer {name!r} passes on a tensor of shape {sizes} with channels in dimension {channels}, which is no map"
            f" of the image and no row of tokens: end the layer elsewhere by layers=[...], where features are"
            f" {expected}."
        )
    return layout


def _refuse_other_batch(name: str, features: Sequence[Tensor]) -> None:
    """Refuse features whose first dimension is not the images."""
    shapes = [tuple(feature.shape) for feature in features]
    if tuple(shape[0] if shape else 0 for shape in shapes) == BATCHES:
        return
    changing = [i for i, sizes in enumerate(zip(*shapes, strict=False)) if len(set(sizes)) > 1]
    where = f"the images are in dimension {changing[0]}" if changing else "no dimension has the images"
    if changing == [0]:
        where = f"dimension 0 has {shapes[0][0]} entries for {BATCHES[0]} images"
    raise LocalLearnError(
        f"layer {name!r} passes on a tensor of {len(shapes[0])} dimensions in which {where}, but they must be"
        " dimension 0: give batch_first=True to the network's own layers, or transpose inside the layer."
    )


def _has_proportions(shape: Shape, image: Shape) -> bool:
    """Whether one stride, up to rounding, leads from the image to the map."""
    bounds = [(size / (side + 1), size / (side - 1 or 1e-9)) for side, size in zip(shape[1:], image[1:], strict=True)]
    return max(low for low, _ in bounds) < min(high for _, high in bounds)
