"""The figures of an analysis, at print size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np

from locallearn._figures.style import COLOURS, COLUMN, PAGE, line_styles, new_figure, print_style
from locallearn._figures.ticks import whole_ticks
from locallearn._utils.optional_imports import optional
from locallearn.analysis.cka import CKA
from locallearn.analysis.feature_maps import FeatureMaps
from locallearn.analysis.probes import Probes
from locallearn.analysis.tsne import Embedding

_CLASS_COLOURS = (*COLOURS, "#B3A100", "#000000")
_CLASS_MARKERS = "osD^vPX<>*"
_GAP, _LINE = 0.04, 0.18
"""Inches between panels, and of a line of text."""
_IMAGE = 1.5
"""Side of an image beside feature maps, in sides of these."""
_CIRCLE = {"linestyle": "", "marker": "o", "markersize": 5, "fillstyle": "none"}


@print_style()
def draw_similarity(found: CKA, *, name: str, against: str) -> Any:
    """The heat map of all pairs of layers."""
    figure = new_figure(height=2.75)
    axes = figure.subplots()
    rows, columns = found.matrix.shape
    extent = (0.5, columns + 0.5, 0.5, rows + 0.5)
    image = axes.imshow(found.matrix, origin="lower", extent=extent, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.grid(visible=False)
    axes.set(xlabel=f"layer of {against}", ylabel=f"layer of {name}")
    axes.set_box_aspect(1)
    whole_ticks(axes.xaxis)
    whole_ticks(axes.yaxis)
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
    layers = next(iter(curves.values())).layers
    figure = _layer_curves(labelled, ylabel=f"linear CKA with {against}", layers=layers)
    figure.axes[0].set_ylim(0, 1.02)
    return figure


@print_style()
def draw_probes(runs: Mapping[str, Probes]) -> Any:
    """Test accuracy of linear probes after each layer (lines), and of the modules' own heads (open circles)."""
    layers = {found.layers for found in runs.values()}
    accuracies = {name: found.accuracy for name, found in runs.items()}
    heads = any(found.heads for found in runs.values())
    figure = _layer_curves(
        accuracies, ylabel="test accuracy", layers=layers.pop() if len(layers) == 1 else (), circles=heads
    )
    axes = figure.axes[0]
    ticker = optional("matplotlib.ticker")
    axes.yaxis.set_major_locator(ticker.MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
    for found, look in zip(runs.values(), line_styles(len(runs)), strict=True):
        points = [(found.layers.index(layer) + 1, accuracy) for layer, accuracy in found.heads.items()]
        if points:
            axes.plot(*zip(*points, strict=True), **_CIRCLE, color=look["color"])
    return figure


@print_style()
def draw_tsne(runs: Mapping[str, Embedding], *, target: str | None = None) -> Any:
    """Each run's test images in the plane: coloured by class above, one class against the rest below.

    Args:
        runs: name of each run to its embedding, all of the same classes.
        target: the one class; the first by default.
    """
    width = COLUMN if len(runs) <= 2 else PAGE
    first = next(iter(runs.values()))
    target = target or first.classes[0]
    side = (width - _GAP) / len(runs) - _GAP
    legend = _LINE * (3 if width == COLUMN and len(first.classes) <= len(_CLASS_COLOURS) else 1) + 0.08
    height = 2 * side + legend + 2 * _LINE + 0.1
    figure = new_figure(width=width, height=height)
    figure.set_layout_engine("none")
    for column, (name, found) in enumerate(runs.items()):
        left = _GAP + column * (side + _GAP)
        above = _axes_at(figure, left, _LINE, side, side)
        below = _axes_at(figure, left, _LINE + side + legend, side, side)
        above.set_title(name, pad=3)
        _scatter_classes(above, found)
        _scatter_one(below, found, target)
        for axes in (above, below):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(True)
        if not column:
            spacing = {"markerscale": 2, "handletextpad": 0.1, "columnspacing": 0.8, "loc": "upper center"}
            for axes, top in ((above, _LINE + side), (below, _LINE + 2 * side + legend)):
                figure.legend(
                    *axes.get_legend_handles_labels(), ncols=10 if width == PAGE else 4, **spacing,
                    bbox_to_anchor=(0.5, 1 - top / height),
                )  # fmt: skip
    return figure


@print_style()
def draw_feature_maps(runs: Mapping[str, FeatureMaps]) -> Any:
    """Each image with its class; for each run its answer, its channel maps, and Grad-CAM over the grey image.

    Args:
        runs: name of each run to its maps, all of the same images and layer.
    """
    first = next(iter(runs.values()))
    channels = max(len(found.channels) for found in runs.values())
    width = COLUMN if channels <= 5 else PAGE
    names = 0.65
    cell = (width - names - (channels + 3) * _GAP) / (channels + 1 + _IMAGE)
    block = max((cell + _GAP) * len(runs), cell * _IMAGE + _LINE) + 0.06
    figure = new_figure(width=width, height=block * len(first.images) + _LINE)
    figure.set_layout_engine("none")
    for image in range(len(first.images)):
        top = _LINE + image * block
        picture = _axes_at(figure, _GAP, top, cell * _IMAGE, cell * _IMAGE)
        picture.imshow(first.pixels[image].squeeze(), cmap="gray", vmin=0, vmax=255)
        picture.set_xlabel(first.classes[first.labels[image]], labelpad=2, size=7)
        for row, (name, found) in enumerate(runs.items()):
            left, lower = _GAP + cell * _IMAGE + names, top + row * (cell + _GAP)
            axes = [_axes_at(figure, left + i * (cell + _GAP), lower, cell, cell) for i in range(channels + 1)]
            _draw_maps(axes, found, image)
            answer = found.classes[found.predictions[image]]
            axes[0].set_ylabel(f"{fill(name, 11)}\n({answer})", rotation=0, ha="right", va="center", size=6, labelpad=3)
            if image == row == 0:
                axes[0].set_title("channels", loc="left", size=7, pad=2)
                axes[-1].set_title("Grad-CAM", loc="right", size=7, pad=2)
    for axes in figure.axes:
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    return figure


def _axes_at(figure: Any, left: float, top: float, width: float, height: float) -> Any:
    """Axes at a place in inches, from the left and from the top."""
    whole_width, whole_height = figure.get_size_inches()
    place = (left / whole_width, 1 - (top + height) / whole_height, width / whole_width, height / whole_height)
    return figure.add_axes(place)


def _draw_maps(row: Sequence[Any], found: FeatureMaps, image: int) -> None:
    """Channel maps, each from its smallest to its largest value, and Grad-CAM over the grey image."""
    for axes, maps in zip(row[:-1], found.maps[image], strict=False):
        axes.imshow(maps, cmap="viridis")
    pixels = found.pixels[image]
    height, width = pixels.shape[:2]
    row[-1].imshow(pixels.mean(2), cmap="gray", vmin=0, vmax=255)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    row[-1].imshow(found.grad_cam[image], cmap="inferno", alpha=0.6, extent=extent, interpolation="bilinear", vmin=0)


def _layer_curves(curves: Mapping[str, Any], *, ylabel: str, layers: Sequence[str], circles: bool = False) -> Any:
    """A figure with a line for each run over the layers, from 1; the legend lies above it.

    Args:
        curves: the label of each line to its values.
        ylabel: what the values are.
        layers: names of the layers, where all runs have the same.
        circles: whether the legend explains open circles.
    """
    labels = len(curves) + circles
    figure = new_figure(height=2.1 + 0.17 * ((labels + 1) // 2))
    axes = figure.subplots()
    for (name, values), look in zip(curves.items(), line_styles(len(curves)), strict=True):
        marks = look | ({"marker": ""} if len(values) > 30 else {})
        axes.plot(np.arange(1, len(values) + 1), values, label=name, **marks)
    if circles:
        axes.plot([], [], **_CIRCLE, color=COLOURS[6], label="own head")
    axes.set(xlabel=f"layer{_ends(layers)}", ylabel=ylabel)
    whole_ticks(axes.xaxis)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _ends(layers: Sequence[str]) -> str:
    """The names of the first and the last layer."""
    return f" ({layers[0]} to {layers[-1]})" if layers else ""


def _scatter_classes(axes: Any, found: Embedding) -> None:
    """Points in a colour and a shape for each class, or only a colour for more than ten."""
    if len(found.classes) > len(_CLASS_COLOURS):
        label = f"{len(found.classes)} classes, a colour each"
        axes.scatter(*found.points.T, s=3, c=found.labels, cmap="turbo", linewidths=0, label=label)
        return
    for label, name in enumerate(found.classes):
        points = found.points[found.labels == label]
        look = {"color": _CLASS_COLOURS[label], "marker": _CLASS_MARKERS[label]}
        axes.scatter(*points.T, s=5, linewidths=0, label=name, **look)


def _scatter_one(axes: Any, found: Embedding, target: str) -> None:
    """The points of one class above those of the others."""
    one = found.labels == found.classes.index(target)
    axes.scatter(*found.points[~one].T, s=3, color=COLOURS[4], linewidths=0, alpha=0.6, label="other classes")
    axes.scatter(*found.points[one].T, s=5, color=COLOURS[0], linewidths=0, label=target)
