"""The end of a run: its summary and picture."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from torch import nn

from locallearn._engine.local_net import LocalNet
from locallearn._utils.atomic_files import write_json
from locallearn.cost import PeakMemory
from locallearn.training.curves import draw_curves
from locallearn.training.evaluation import best_epoch, chosen_on
from locallearn.training.files.run_folder import RunFolder
from locallearn.training.fit import Fit
from locallearn.training.settings.train import TrainSettings


def tell_early_stop(run: RunFolder, fit: Fit, say: Callable[[str], None]) -> None:
    """Say and write that training ended before all epochs were over."""
    best = best_epoch(run.rows_before(fit.epoch, "validation_accuracy"))["epoch"]
    run.add_history({"epoch": fit.epoch, "step": 0, "stopped_early": {"best_epoch": best}})
    say(f"stopped early after epoch {fit.epoch - 1}: no better validation accuracy since epoch {best}.")


def write_result(
    run: RunFolder,
    net: LocalNet,
    peak: PeakMemory | None,
    settings: TrainSettings,
    several: dict[str, Any],
    *,
    epochs: int,
) -> dict[str, Any]:
    """Write the summary and the picture of a run whose epochs are over."""
    needed = ["test_accuracy", "train_loss", "seconds"]
    if settings.validation is not None:
        needed.append("validation_accuracy")
    rows = run.rows_before(epochs + 1, *needed)
    best, validated = best_epoch(rows), {}
    if settings.validation is not None:
        last, highest = (row["validation_accuracy"] for row in (rows[-1], best))
        validated = {"validation_accuracy": last, "best_validation_accuracy": highest}
    result = {
        "test_accuracy": rows[-1]["test_accuracy"],
        **{name: rows[-1][name] for name in ("test_top5_accuracy", "unaveraged_test_accuracy") if name in rows[-1]},
        "best_accuracy": best["test_accuracy"],
        "best_epoch": best["epoch"],
        "best_chosen_on": chosen_on(rows),
        **validated,
        "seconds_per_epoch": statistics.median(row["seconds"] for row in rows),
        "peak_activation_bytes": None if peak is None else peak.activations,
        "peak_total_bytes": None if peak is None else peak.total,
        "backbone_parameters": number_of_parameters(net.model),
        "auxiliary_parameters": number_of_parameters(net.auxiliary),
        "epochs": len(rows),
        **({"stopped_early": True} if epochs < settings.epochs else {}),
        "folder": str(run.path),
        **several,
    }
    write_json(run.result, result)
    draw_curves(str(settings.rule), rows, run.curves)
    return result


def number_of_parameters(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())
