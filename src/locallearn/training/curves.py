"""Loss and accuracy over epochs, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from locallearn._figures.style import PAGE, line_styles, new_figure, print_style, save
from locallearn._figures.ticks import log_ticks, whole_ticks
from locallearn._utils.optional_imports import optional


@print_style()
def draw_curves(name: str, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw training loss and test accuracy of a run over epochs.

    Args:
        name: of the run.
        rows: its metrics.
        path: the PNG file to write.
    """
    figure = new_figure(width=PAGE, height=2.8)
    loss, accuracy = figure.subplots(1, 2)
    epochs, (look,) = [row["epoch"] for row in rows], line_styles(1)
    loss.plot(epochs, [row["train_loss"] for row in rows], **look)
    loss.set(xlabel="epoch", ylabel="training loss of the classifier", yscale="log")
    log_ticks(loss.yaxis)
    accuracy.plot(epochs, [row["test_accuracy"] for row in rows], label=name, **look)
    accuracy.set(xlabel="epoch", ylabel="test accuracy")
    accuracy.yaxis.set_major_formatter(optional("matplotlib.ticker").PercentFormatter(1.0))
    accuracy.legend()
    for axes in (loss, accuracy):
        whole_ticks(axes.xaxis)
    save(figure, path)
