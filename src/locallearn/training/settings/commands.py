"""Commands that sentences tell a user to run: they train with the settings of a plan, or plan for those of a run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from locallearn._chain.layout import Shape
from locallearn.cost.planner import is_planned
from locallearn.training.optimizers import SGD, OptimizerSettings
from locallearn.training.settings.text import plain, rule_text
from locallearn.training.settings.train import TrainSettings


def step_command(name: str, step: Any, options: Mapping[str, Any]) -> str:
    """A command with all that its step is computed with; what has its default is left out.

    Args:
        name: of the command.
        step: has model, layers, batch, precision, step and optimizer: settings, or options of `plan`.
        options: the command's own; None leaves one out.
    """
    of_step = {
        "--layers": step.layers,
        "--batch": step.batch,
        "--precision": step.precision if step.precision != "fp32" else None,
        "--step": step.step if step.step != "together" else None,
        **_optimizer(step.optimizer),
    }
    given = {"--model": step.model, **of_step, **options}
    words = (f"{option} {_quoted(value)}" for option, value in given.items() if value is not None)
    return f"locallearn {name} {' '.join(words)}"


def plan_command(settings: TrainSettings, shape: Shape, classes: int, *, batch: int) -> str:
    """The command that finds settings for a run, without `--memory`.

    Args:
        settings: of the run.
        shape: channels, height, width of its images.
        classes: how many.
        batch: images in a batch of one process.
    """
    rule = {"--rule": rule_text(settings.rule)} if is_planned(settings.rule) else {"--rules": "auto"}
    images = {"--image": "x".join(map(str, shape)), "--classes": classes}
    return step_command("plan", settings, {**rule, **images, "--batch": batch})


def _optimizer(settings: OptimizerSettings) -> dict[str, Any]:
    """The options of an optimizer other than the default."""
    if settings == SGD():
        return {}
    chosen = plain(settings)
    given = {
        f"--optimizer.{setting.name}": json.dumps(chosen["init_args"][setting.name])
        for setting in fields(settings)
        if getattr(settings, setting.name) != setting.default
    }
    return {"--optimizer": chosen["class_path"], **given}


def _quoted(value: Any) -> str:
    """A value as a word for a shell."""
    word = json.dumps(value) if isinstance(value, list) else str(value)
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)
