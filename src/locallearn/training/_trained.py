"""A trained backbone, taken out of its run, with what its use needs to know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from locallearn._chain import Shape
from locallearn._errors import LocalLearnError
from locallearn._imports import optional
from locallearn.training._checkpoint import load_checkpoint
from locallearn.training._run_folder import RunFolder
from locallearn.training._train import TrainSettings, data_of, describe_data, make_model

_OF_DATA = ("data", "train_images", "image_size")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained backbone alone.

    Attributes:
        model: the backbone, on the CPU, in evaluation mode.
        name: its name, as the `model` of `TrainSettings`.
        classes: names of the classes.
        image_shape: channels, height, width of one image.
        mean, std: of each channel, in units of the largest pixel value (0 to 1).
        how: how it was trained, as JSON takes it.
    """

    model: nn.Module
    name: str
    classes: tuple[str, ...]
    image_shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    how: Mapping[str, Any]


def load_run(path: Path, *, checkpoint: str = "last") -> Trained:
    """The backbone of a training run. Its data set need not be there.

    Args:
        path: the run folder, or a checkpoint in it.
        checkpoint: "last" or "best"; for a path that is itself a checkpoint, that one is taken.

    Raises:
        LocalLearnError: there is no run, or its checkpoint is missing or damaged.
    """
    folder = RunFolder(path.parent if path.suffix == ".pt" else path)
    folder.refuse_missing()
    file = path if path.suffix == ".pt" else folder.path / f"{checkpoint}.pt"
    settings = optional("yaml").safe_load(folder.settings.read_text())
    if "model" not in settings:
        raise LocalLearnError(f"{folder.path} holds no run of locallearn train: its settings name no model.")
    state = load_checkpoint(file)
    about = _data(folder, settings)
    shape = tuple(about["image_shape"])
    model = make_model(settings["model"], classes=len(about["classes"]), image_shape=shape)
    weights = {name.removeprefix("model."): part for name, part in state["net"].items() if name.startswith("model.")}
    model.load_state_dict(weights)
    return Trained(
        model=model.eval(),
        name=settings["model"],
        classes=tuple(about["classes"]),
        image_shape=shape,
        mean=tuple(value / 255 for value in about["mean"]),
        std=tuple(value / 255 for value in about["std"]),
        how={
            "settings": settings,
            "checkpoint": file.name,
            "epochs": state["epoch"] - 1,
            "test_accuracy": _accuracy(folder, state),
        },
    )


def _data(folder: RunFolder, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the run wrote down of its data set; of a run that did not, the data set is read."""
    if folder.data.exists():
        return json.loads(folder.data.read_text())
    asked = {name: settings[name] for name in _OF_DATA}
    return describe_data(data_of(TrainSettings(**asked, data_dir=Path(settings["data_dir"]))))


def _accuracy(folder: RunFolder, state: Mapping[str, Any]) -> float | None:
    """Test accuracy of a checkpoint, None in mid-epoch."""
    rows = {row["epoch"]: row["test_accuracy"] for row in folder.rows()}
    return None if state["step"] else rows.get(state["epoch"] - 1)
