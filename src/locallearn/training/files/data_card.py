"""Metadata of a data set, which the use of a trained network needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locallearn._chain.layout import Shape
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.hashed_json import read_hashed_json
from locallearn.data import DataSet


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """Classes, image shape and normalisation of a data set, without its images.

    Attributes:
        classes: names of the classes.
        image_shape: channels, height, width of one image.
        mean, std: of each channel, in units of pixel values (0 to 255).
    """

    classes: tuple[str, ...]
    image_shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @staticmethod
    def of(images: DataSet) -> DataCard:
        """The card of a data set."""
        return DataCard(classes=images.classes, image_shape=images.image_shape, mean=images.mean, std=images.std)

    @staticmethod
    def read(path: Path) -> DataCard:
        """Read the `data.json` of a run folder.

        Raises:
            LocalLearnError: the file is damaged.
        """
        card = read_hashed_json(path, remedy="put a copy of it back, or delete it, and the data set itself is read")
        try:
            channels, height, width = map(int, card["image_shape"])
            mean, std = (tuple(map(float, card[name])) for name in ("mean", "std"))
            return DataCard(classes=tuple(card["classes"]), image_shape=(channels, height, width), mean=mean, std=std)
        except (KeyError, TypeError, ValueError) as error:
            raise LocalLearnError(
                f"{path} is damaged: it must hold classes, image_shape, mean and std of the run's images. Put a copy of"
                " it back; without the file, the data set itself is read."
            ) from error


def refuse_other_data(runs: Sequence[Any], *, remedy: str = "compare runs of one data set") -> None:
    """Refuse to compare runs whose data sets or classes differ.

    Args:
        runs: all of them, each with its `path`, `settings` and `card`.
        remedy: the end of the sentence, what to do.

    Raises:
        LocalLearnError: names the first run that differs, and in what.
    """
    first, *others = runs
    for run in others:
        if run.settings.data != first.settings.data:
            data = run.settings.data, first.settings.data
            raise LocalLearnError(f"{run.path} is of {data[0]}, and {first.path} of {data[1]}: {remedy}.")
        if run.card.classes != first.card.classes:
            differ = sorted(set(run.card.classes) ^ set(first.card.classes))[:3]
            names = ", ".join(differ) or "the order"
            raise LocalLearnError(f"{run.path} has other classes than {first.path} ({names} differ): {remedy}.")
