"""The figures of an analysis, at print size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from locallearn._figures.style import COLOURS, COLUMN, PAGE, line_styles, new_figure, print_style
from locallearn._utils.optional_imports import optional
from locallearn.analysis.cka import CKA
from locallearn.analysis.feature_maps import FeatureMaps
from locallearn.analysis.probes import Probes
from locallearn.analysis.tsne import Embedding

_REST = "#C9C9C9"
_DISTINCT = 10
"""Classes up to which each has a colour and its name in the picture."""


@print_style()
def draw_similarity(found: CKA, *, name: str, against: str) -> Any:
    """The heat map of all pairs of layers."""
    figure = new_figure(height=3.0)
    axes = figure.subplots()
    rows, columns = found.matrix.shape
    extent = (0.5, columns + 0.5, 0.5, rows + 0.5)
    image = axes.imshow(found.matrix, origin="lower", extent=extent, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.grid(visible=False)
    axes.set(xlabel=f"layer of {against}", ylabel=f"layer of {name}")
    axes.set_box_aspect(1)
    _whole_numbers(axes.xaxis, axes.yaxis)
    bar = figure.colorbar(image, ax=axes, shrink=0.85)
    bar.outline.set_visible(False)
    bar.set_label("linear CKA")
    return figure


@print_style()
def draw_layer_similarity(curves: Mapping[str, CKA], *, against: str) -> Any:
    """Each layer's similarity to the same layer of the other run, a curve for each run; their means in the legend.

    Args:
        curves: name of each run to its similarities; all of one network.
        against: name of the run they are compared with.
    """
    labelled = {f"{name} (mean {np.nanmean(found.per_layer):.2f})": found.per_layer for name, found in curves.items()}
    figure = _layer_curves(labelled, ylabel=f"linear CKA with {against}")
    figure.axes[0].set_ylim(0, 1.02)
    return figure


@print_style()
def draw_probes(runs: Mapping[str, Probes]) -> Any:
    """Test accuracy of linear probes after each layer (lines), and of the modules' own heads (open circles)."""
    figure = _layer_curves({name: found.accuracy for name, found in runs.items()}, ylabel="test accuracy")
    axes = figure.axes[0]
    axes.yaxis.set_major_formatter(optional("matplotlib.ticker").PercentFormatter(1.0))
    heads = False
    for found, look in zip(runs.values(), line_styles(len(runs)), strict=True):
        points = [(found.layers.index(layer) + 1, accuracy) for layer, accuracy in found.heads.items()]
        if points:
            axes.plot(*zip(*points, strict=True), "o", markersize=5, fillstyle="none", color=look["color"])
            heads = True
    if heads:
        axes.plot([], [], "o", markersize=5, fillstyle="none", color=COLOURS[6], label="own heads")
        axes.legend()
    return figure


@print_style()
def draw_tsne(runs: Mapping[str, Embedding], *, target: str | None = None) -> Any:
    """Each run's test images in the plane: coloured by class above, one class against the rest below.

    Args:
        runs: name of each run to its embedding, all of the same classes.
        target: the one class; the first by default.
    """
    width = COLUMN if len(runs) <= 2 else PAGE
    side = width / len(runs)
    figure = new_figure(width=width, height=2 * side + 0.5)
    grid = figure.subplots(2, len(runs), squeeze=False)
    for index, (name, found) in enumerate(runs.items()):
        above, below = grid[:, index]
        _scatter_classes(above, found)
        above.set_title(name)
        one = found.labels == found.classes.index(target or found.classes[0])
        below.scatter(*found.points[~one].T, s=2, color=COLOURS[4], linewidths=0, alpha=0.6)
        below.scatter(*found.points[one].T, s=3, color=COLOURS[0], linewidths=0)
        for axes in (above, below):
            axes.set(xticks=[], yticks=[])
            axes.set_box_aspect(1)
            axes.spines[:].set_visible(True)
    first = next(iter(runs.values()))
    patch = optional("matplotlib.lines").Line2D
    handles = [
        patch([], [], color=colour, linestyle="", marker="o", label=label)
        for colour, label in ((COLOURS[0], target or first.classes[0]), (COLOURS[4], "other classes"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@print_style()
def draw_feature_maps(runs: Mapping[str, FeatureMaps]) -> Any:
    """Rows of images and runs: the image, its channel maps, Grad-CAM over the grey image.

    Args:
        runs: name of each run to its maps, all of the same images and layer.
    """
    first = next(iter(runs.values()))
    channels = max(len(found.channels) for found in runs.values())
    rows, columns = len(first.images) * len(runs), channels + 2
    width = COLUMN if columns <= 6 else PAGE
    label = 0.55
    figure = new_figure(width=width, height=(width - label) / columns * rows + 0.35)
    grid = figure.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        image, (name, found) = row // len(runs), list(runs.items())[row % len(runs)]
        _draw_row(grid[row], found, image)
        grid[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    grid[0, 0].set_title("image")
    grid[0, -1].set_title("Grad-CAM")
    return figure


def _draw_row(row: Sequence[Any], found: FeatureMaps, image: int) -> None:
    pixels = found.pixels[image]
    row[0].imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=255)
    for axes, maps in zip(row[1:-1], found.maps[image], strict=False):
        axes.imshow(maps, cmap="viridis")
    height, width = pixels.shape[:2]
    row[-1].imshow(pixels.mean(2), cmap="gray", vmin=0, vmax=255)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    row[-1].imshow(found.grad_cam[image], cmap="inferno", alpha=0.6, extent=extent, interpolation="bilinear", vmin=0)


def _layer_curves(curves: Mapping[str, Any], *, ylabel: str) -> Any:
    """A figure with a line for each run over the layers, from 1."""
    figure = new_figure()
    axes = figure.subplots()
    for (name, values), look in zip(curves.items(), line_styles(len(curves)), strict=True):
        marks = look | ({"marker": ""} if len(values) > 30 else {})
        axes.plot(np.arange(1, len(values) + 1), values, label=name, **marks)
    axes.set(xlabel="layer", ylabel=ylabel)
    _whole_numbers(axes.xaxis)
    axes.legend()
    return figure


def _scatter_classes(axes: Any, found: Embedding) -> None:
    """Points coloured by class; with up to ten classes each is named at its median point."""
    classes = len(found.classes)
    if classes > _DISTINCT:
        axes.scatter(*found.points.T, s=2, c=found.labels, cmap="turbo", linewidths=0)
        return
    colours = [*COLOURS, "#B3A100", "#000000"]
    stroke = optional("matplotlib.patheffects").withStroke(linewidth=1.5, foreground="white")
    for label, name in enumerate(found.classes):
        points = found.points[found.labels == label]
        axes.scatter(*points.T, s=2, color=colours[label], linewidths=0)
        if len(points):
            middle = np.median(points, 0)
            axes.text(*middle, name, size=6, ha="center", va="center", weight="bold", color=colours[label],
                      path_effects=[stroke])  # fmt: skip


def _whole_numbers(*axes: Any) -> None:
    for axis in axes:
        axis.set_major_locator(optional("matplotlib.ticker").MaxNLocator(integer=True, min_n_ticks=3))
