"""The curves of a comparison as files for print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from locallearn._figures.style import remove_earlier, save_all
from locallearn._utils.outputs import make_folder
from locallearn.report.figures.training import accuracy_against_epoch, module_losses, output_loss
from locallearn.report.groups import Group
from locallearn.report.steps import spans_by_group


def write_curves(groups: Sequence[Group], folder: Path) -> list[Path]:
    """Write accuracy, output loss and every module's loss over the epochs, each as PNG, SVG and PDF with its title.

    Args:
        groups: from `group_runs`.
        folder: where to; made if it is not there.

    Returns:
        The files.

    Raises:
        LocalLearnError: the folder cannot be made.
    """
    make_folder(folder)
    files = []
    losses = module_losses(groups, spans_by_group(groups)).values()
    charts = (accuracy_against_epoch(groups), output_loss(groups), *losses)
    remove_earlier([chart.name for chart in charts], folder)
    for chart in charts:
        figure = chart.print_figure()
        figure.suptitle(chart.title, fontsize="medium")
        files += save_all(figure, folder / chart.name)
    return files
