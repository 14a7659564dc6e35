"""Going on with a run from a checkpoint: with other settings, if the user asks for some."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted
from locallearn.training.files.checkpoint import Checkpoint
from locallearn.training.files.run_folder import RunFolder
from locallearn.training.fit import Fit
from locallearn.training.settings.text import difference_text, differences_in
from locallearn.training.settings.train import NO_RESULT, TrainSettings


def record_resume(
    fit: Fit, run: RunFolder, settings: TrainSettings, resume: Checkpoint, say: Callable[[str], None]
) -> None:
    """Write what is new where training goes on from a checkpoint: settings, and that it went back."""
    if differences := run.differences(settings):
        changes = {name: pair for name, pair in differences.items() if name not in NO_RESULT}
        if changes:
            _refuse_changes(fit, run, settings, changes)
            changed = " and ".join(changes)
            say(f"{changed} changed from step {fit.step + 1} of epoch {fit.epoch} on: {run.history.name} says so.")
        run.change_settings(settings, changes, epoch=fit.epoch, step=fit.step)
    if resume != "last":
        run.add_history({"epoch": fit.epoch, "step": fit.step, "from": resume})


def _refuse_changes(fit: Fit, run: RunFolder, settings: TrainSettings, changes: Mapping[str, tuple[Any, Any]]) -> None:
    """Refuse settings that an optimizer cannot go on with, and those that come after the end of training."""
    changed, optimizer = " and ".join(changes), ("optimizer", *changes.get("optimizer", (None, None)))
    if {name for name, *_ in differences_in(*optimizer)} - {"optimizer.lr"}:
        told = difference_text(*optimizer)
        raise LocalLearnError(f"{run.path} goes on with its optimizer, of which only lr can change ({told}).")
    if fit.epoch > settings.epochs:
        raise LocalLearnError(
            f"{run.path} has trained its {counted(settings.epochs, 'epoch')}, so a change of {changed} has no effect:"
            " give more by --epochs."
        )
    if fit.is_over():
        raise LocalLearnError(
            f"{run.path} stopped early: its last {counted(settings.early_stopping or 0, 'epoch')} brought no better"
            f" one on the validation images. Give more by --early-stopping, or a change of {changed} has no effect."
        )
