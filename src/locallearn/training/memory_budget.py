"""Whether a run's step fits the budget of `modules=memory:1GiB@1024`, which `localize` counts with Nesterov SGD."""

from __future__ import annotations

from locallearn._engine.local_net import LocalNet
from locallearn._planning.by_cost import BudgetSpec, parse_cost_spec
from locallearn._planning.prediction import PeakMemory, bytes_of
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted, format_bytes, size_text
from locallearn.training.settings.commands import plan_command
from locallearn.training.settings.train import TrainSettings


def refuse_broken_budget(settings: TrainSettings, net: LocalNet, batch: int, peak: PeakMemory) -> None:
    """Refuse a run whose step is of other images than the budget's, or needs more memory.

    Args:
        settings: of the run.
        net: its network.
        batch: images in a batch of one process.
        peak: of a step, without averages of weights.

    Raises:
        LocalLearnError: says for how many images to ask, or which command finds settings that fit.
    """
    budget = parse_cost_spec(settings.modules)
    if not isinstance(budget, BudgetSpec):
        return
    images = -(-batch // settings.accumulate)
    if budget.batch != images:
        raise LocalLearnError(
            f"modules={settings.modules} is for {counted(budget.batch, 'image')} at a time, and this run has {images}"
            f" (batch {batch}, accumulate {settings.accumulate}): write"
            f" {str(settings.modules).partition('@')[0]}@{images}."
        )
    average = bytes_of((*net.model.parameters(), *net.model.buffers())) if settings.ema is not None else 0
    needs = peak.total + average
    if needs > budget.size:
        command = plan_command(settings, net.chain.image_shape, net.chain.classes, batch=batch)
        raise LocalLearnError(
            f"modules={settings.modules}: with this run's optimizer, precision, accumulation and ema a step needs"
            f" {format_bytes(needs)}. To find settings that fit: {command} --memory {size_text(budget.size - average)}"
        )
