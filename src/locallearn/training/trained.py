"""A trained backbone, taken out of its run, with the metadata that its use needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from locallearn._chain.layout import Shape
from locallearn._utils.registry import names_of_file
from locallearn.training.files.checkpoint import backbone_weights, load_checkpoint, load_weights
from locallearn.training.files.data_card import DataCard
from locallearn.training.files.run_folder import RunFolder
from locallearn.training.from_settings import data_of, make_model
from locallearn.training.settings.train import TrainSettings

_NEEDED = ("model", "data", "train_images", "image_size")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained backbone, without auxiliary networks.

    Attributes:
        model: the backbone, on the CPU, in evaluation mode.
        name: its name, as the `model` of `TrainSettings`.
        classes: names of the classes.
        image_shape: channels, height, width of one image.
        mean, std: of each channel, in units of the largest pixel value (0 to 1).
        how: how it was trained, as values for JSON.
    """

    model: nn.Module
    name: str
    classes: tuple[str, ...]
    image_shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    how: Mapping[str, Any]


def load_run(path: Path, *, checkpoint: str = "last", trust_code: bool = False) -> Trained:
    """The backbone of a training run. Its data set is not needed.

    Args:
        path: the run folder, or a checkpoint in it.
        checkpoint: "last" or "best"; not used if `path` is itself a checkpoint.
        trust_code: import the model's function by its dotted path; otherwise a run of a registered model is needed.

    Raises:
        LocalLearnError: there is no run, a file of it is missing or damaged, or the weights do not fit the network.
    """
    folder = RunFolder(path.parent if path.suffix == ".pt" else path)
    settings = folder.read_settings("train")
    file = path if path.suffix == ".pt" else folder.path / f"{checkpoint}.pt"
    state = load_checkpoint(file)
    needed = TrainSettings(
        **{name: settings[name] for name in _NEEDED if name in settings},
        data_dir=Path(str(settings.get("data_dir", "data"))),
    )
    with names_of_file(trust_code=trust_code):
        images = data_card_of(folder, needed)
        model = make_model(needed.model, classes=len(images.classes), image_shape=images.image_shape)
    load_weights(model, backbone_weights(state), file=file, name=settings["model"])
    return Trained(
        model=model.eval(),
        name=settings["model"],
        classes=images.classes,
        image_shape=images.image_shape,
        mean=tuple(value / 255 for value in images.mean),
        std=tuple(value / 255 for value in images.std),
        how={
            "settings": settings,
            "checkpoint": file.name,
            "epochs": state["epoch"] - 1,
            "test_accuracy": _accuracy(folder, state),
            "test_precision": settings.get("precision", "fp32"),
        },
    )


def data_card_of(folder: RunFolder, settings: TrainSettings) -> DataCard:
    """The data card of a run; where the file was removed, the data set is read."""
    return DataCard.read(folder.data) if folder.data.exists() else DataCard.of(data_of(settings))


def _accuracy(folder: RunFolder, state: Mapping[str, Any]) -> float | None:
    """Test accuracy of a checkpoint; None for one within an epoch, or of a run whose metrics were removed."""
    if state["step"] or state["epoch"] == 1 or not folder.metrics.exists():
        return None
    return folder.rows_before(state["epoch"], "test_accuracy")[-1]["test_accuracy"]
