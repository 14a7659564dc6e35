"""The layout of a layer's output: where its images, its channels and its positions are, or why that is no layout."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from locallearn._chain.layout import Kind, Layout
from locallearn._chain.positions import Dimension, Dimensions, is_whole, parts_of, places, shows_positions
from locallearn._fx.tracer import BATCHES
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted

_DIMENSIONS = {4: "(batch, channels, height, width)", 3: "(batch, tokens, channels)"}


def layout_after(name: str, features: Sequence[Tensor], channels: int | None, positions: Dimensions) -> Layout:
    """The layout of a layer's output.

    Args:
        name: the layer's name.
        features: its output for each of `BATCHES`.
        channels: the dimension of its channels, or None where no operator tells.
        positions: what each dimension counts.

    Raises:
        LocalLearnError: the output has no layout that auxiliary networks can take.
    """
    shape = tuple(features[0].shape[1:])
    sizes = "x".join(map(str, shape)) or "no values"
    _refuse_other_batch(name, features)
    if len(shape) == 1:
        return Layout(Kind.VECTOR, (shape[0], 1, 1))
    if len(shape) not in (2, 3):
        volumes = ": one-dimensional and three-dimensional inputs are not supported yet" if len(shape) == 4 else ""
        raise LocalLearnError(
            f"layer {name!r} passes on a tensor of shape {sizes}; a chain passes maps (channels, height, width), tokens"
            f" (tokens, channels) or vectors (channels){volumes}."
        )
    expected = _DIMENSIONS[len(shape) + 1]
    if channels is None:
        channels = _by_positions(positions)
    if channels is None:
        raise LocalLearnError(
            f"layer {name!r} passes on a tensor of shape {sizes}, and its operators do not tell which dimension has the"
            f" channels: end the layer elsewhere by layers=[...], where features are {expected}."
        )
    if len(shape) == 2 and channels == 1:
        raise LocalLearnError(
            f"layer {name!r} passes on one-dimensional features, (batch, channels, length) of shape {sizes}, which are"
            " not supported yet: make them maps (batch, channels, 1, length) and use two-dimensional layers."
        )
    if channels not in (1, len(shape)):
        raise LocalLearnError(
            f"layer {name!r} passes on a tensor of shape {sizes} with channels in dimension {channels}, which is no map"
            f" of the image and no row of tokens: end the layer elsewhere by layers=[...], where features are"
            f" {expected}."
        )
    if len(shape) == 2:
        return _of_tokens(shape, positions[1])
    if channels == 1:
        return Layout(Kind.MAP, (shape[0], shape[1], shape[2]), no_map=_no_map(positions[2], positions[3]))
    no_map = _no_map(positions[1], positions[2], told=True)
    return Layout(Kind.CHANNELS_LAST, (shape[2], shape[0], shape[1]), no_map=no_map)


def _of_tokens(shape: tuple[int, ...], tokens: Dimension) -> Layout:
    count, channels = shape
    if count == 1:
        return Layout(Kind.TOKENS, (channels, 1, 1))
    parts = parts_of(tokens)
    grids = [index for index, part in enumerate(parts) if _is_grid(part)]
    if not grids and any(_is_grid(part[::-1]) for part in parts):
        reason = "tokens that run down the columns of a map (flatten it row by row)"
    elif not grids and {digits.axis.name for digits in tokens} == {"height", "width"}:
        reason = "tokens that are not in the order of a map, row by row"
    elif not grids:
        reason = "rows that are no map of the image"
    elif len(grids) > 1:
        reason = "tokens of several maps"
    elif grids[0] + 1 < len(parts):
        reason = "a map with more tokens after it (put them before it, as in torch.cat([token, map], 1))"
    else:
        height, width = (digits.size for digits in parts[-1])
        return Layout(Kind.TOKENS, (channels, height, width), sum(map(places, parts[:-1])))
    return Layout(Kind.TOKENS, (channels, count, 1), no_map=reason)


def _by_positions(positions: Dimensions) -> int | None:
    """The dimension that is left for the channels, where the others are seen to be a map."""
    if len(positions) == 3:
        return 2 if any(map(_is_grid, parts_of(positions[1]))) else None
    sides = (((2, 3), 1), ((1, 2), 3))
    return next((c for (h, w), c in sides if not _no_map(positions[h], positions[w], told=True)), None)


def _is_grid(part: Dimension) -> bool:
    return len(part) == 2 and is_whole(part[:1], "height") and is_whole(part[1:], "width")


def _no_map(rows: Dimension, columns: Dimension, *, told: bool = False) -> str:
    """Why two dimensions are no height and width; `told`: whether their order alone does not make them these."""
    sides = ((rows, "height"), (columns, "width"))
    if all(is_whole(side, name) or not (side and (told or shows_positions(side))) for side, name in sides):
        return ""
    if is_whole(rows, "width") and is_whole(columns, "height"):
        return "a map whose height and width have changed places (transpose it back)"
    return "groups of positions that are no map of the image"


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
        f"layer {name!r} passes on a tensor of {counted(len(shapes[0]), 'dimension')} in which {where}, but they must"
        " be dimension 0: give batch_first=True to the network's own layers, or transpose inside the layer."
    )
