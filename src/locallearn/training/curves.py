"""Loss and accuracy over epochs, as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from locallearn._utils.atomic_files import write_whole
from locallearn._utils.optional_imports import optional


def draw_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw training loss and test accuracy of several runs over epochs.

    Args:
        runs: a run's name, to its rows of metrics.
        path: the PNG file to write.
    """
    optional("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for name, rows in runs.items():
        epochs = [row["epoch"] for row in rows]
        loss.plot(epochs, [row["train_loss"] for row in rows], marker=".", label=name)
        accuracy.plot(epochs, [row["test_accuracy"] for row in rows], marker=".", label=name)
    loss.set(xlabel="epoch", ylabel="training loss of the classifier", yscale="log")
    accuracy.set(xlabel="epoch", ylabel="test accuracy")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in (loss, accuracy):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    accuracy.legend()
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    write_whole(path, picture.getvalue())
