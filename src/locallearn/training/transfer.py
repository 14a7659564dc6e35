"""A trained network on the test images of any data set, which may have other classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from locallearn._engine.local_net import LocalNet
from locallearn._torch.device import device_of, mixed
from locallearn._utils.errors import LocalLearnError
from locallearn.data import Batches, DataSet, shared_classes
from locallearn.training.checkpoint import load_checkpoint, load_weights
from locallearn.training.data_card import DataCard
from locallearn.training.from_settings import build, data_of
from locallearn.training.run_folder import RunFolder
from locallearn.training.settings import TrainSettings
from locallearn.training.trained import data_card_of


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Accuracy of a network on the test split of a data set.

    Images of a class that the network does not know are left out. A class that only the network knows can still be its
    answer: `accuracy` counts such an answer as wrong, `shared_accuracy` takes the best of the shared classes instead.

    Attributes:
        accuracy: share of the images that are classified correctly.
        shared_accuracy: the same if the network chooses among the shared classes alone; equal if all are shared.
        images: number of images of shared classes.
        classes: names of the shared classes in the data set, to their names in the network's.
        class_accuracies: of the images of each of them.
        left_out: classes that the network does not know, to their numbers of images.
        never_right: classes that only the network knows, to how often they were its answer.
        skipped: image files that could not be read.
    """

    accuracy: float
    shared_accuracy: float
    images: int
    classes: dict[str, str]
    class_accuracies: dict[str, float]
    left_out: dict[str, int]
    never_right: dict[str, int]
    skipped: tuple[str, ...] = ()


def evaluate_run(
    folder: Path,
    settings: TrainSettings,
    *,
    data: str | None = None,
    data_dir: Path | None = None,
    checkpoint: str = "last",
    device: str | None = None,
    bad_images: Literal["refuse", "skip"] | None = None,
) -> Transfer:
    """Test a run's network on its own test split or on another data set.

    Images of another data set are resized to the run's size of images, with antialiasing, and normalised as the run's
    were; classes are matched by name (`locallearn.data.shared_classes`). This is the generalisation study of MLAAN
    (Table VI): train on CIFAR-10, test on STL-10.

    Args:
        folder: the run folder.
        settings: the run's.
        data: a data set, named as for training; the run's own by default.
        data_dir: folder of the data set; the run's by default. For another data set, the run's own is not needed.
        checkpoint: "last" or "best".
        device: where to compute; the run's by default.
        bad_images: what to do about image files that cannot be read; the run's setting by default.

    Raises:
        LocalLearnError: a data set or the checkpoint is missing, or fewer than two classes are shared.
    """
    asked = replace(
        settings,
        data_dir=data_dir or settings.data_dir,
        device=device or settings.device,
        bad_images=bad_images or settings.bad_images,
    )
    if data is None or data == settings.data:
        own = other = data_of(asked)
    else:
        own = data_card_of(RunFolder(folder), settings)
        other = _fitted_to(own, replace(asked, data=data, train_images=None))
    on, file = device_of(asked.device), folder / f"{checkpoint}.pt"
    net = build(settings, own)
    load_weights(net, load_checkpoint(file)["net"], file=file, name=settings.model)
    shared = shared_classes(other.classes, own.classes)
    if len(shared) < 2:
        raise LocalLearnError(
            f"{data} ({_some(other.classes)}) and {settings.data} ({_some(own.classes)}) share {len(shared)} classes by"
            " name: there is nothing to test."
        )
    batches = other.testing(asked.feed(on))
    sizes = (len(other.classes), len(own.classes))
    free, among_shared = _confusions(net.to(on), batches, sizes, list(shared.values()), settings.autocast)
    return _transfer(free, among_shared, other.classes, own.classes, shared, batches.skipped)


def _fitted_to(own: DataCard, settings: TrainSettings) -> DataSet:
    """The data set of the settings, with the image size and the normalisation of the network's own."""
    channels, height, width = own.image_shape
    other = data_of(replace(settings, image_size=height))
    if other.image_shape != (channels, height, width):
        raise LocalLearnError(
            f"the network takes images of {channels} x {height} x {width}, but {settings.data} has"
            f" {' x '.join(map(str, other.image_shape))}."
        )
    return other.normalised_as(own.mean, own.std)


@torch.no_grad()
def _confusions(
    net: LocalNet, batches: Batches, sizes: tuple[int, int], allowed: Sequence[int], autocast: torch.dtype | None
) -> Tensor:
    """Counts of (true class, answered class), (2, *sizes): with any answer, and with the allowed answers only."""
    net.eval()
    columns = torch.tensor(allowed)
    counts = torch.zeros(2, *sizes, dtype=torch.int64)
    for images, labels in batches.epoch(1):
        with mixed(images.device, autocast):
            logits = net(images).float().cpu()
        for count, answers in zip(counts, (logits.argmax(1), columns[logits[:, columns].argmax(1)]), strict=True):
            count.index_put_((labels.cpu(), answers), torch.ones_like(answers), accumulate=True)
    return counts


def _transfer(
    free: Tensor,
    among_shared: Tensor,
    classes: Sequence[str],
    known: Sequence[str],
    shared: dict[int, int],
    skipped: Sequence[str],
) -> Transfer:
    """The results from the counts of answers, each (classes of the data set, classes that the network knows)."""
    rows, columns = torch.tensor(list(shared)), torch.tensor(list(shared.values()))
    images_of = free.sum(1)
    images = images_of[rows].sum()
    if not images:
        raise LocalLearnError("no test image is of a class that the network knows: there is nothing to test.")
    return Transfer(
        accuracy=_share(free[rows, columns].sum(), images),
        shared_accuracy=_share(among_shared[rows, columns].sum(), images),
        images=int(images),
        classes={classes[row]: known[column] for row, column in shared.items()},
        class_accuracies={
            classes[row]: _share(free[row, column], images_of[row]) for row, column in shared.items() if images_of[row]
        },
        left_out={name: int(images_of[row]) for row, name in enumerate(classes) if row not in shared},
        never_right={
            name: int(free[rows, column].sum()) for column, name in enumerate(known) if column not in shared.values()
        },
        skipped=tuple(skipped),
    )


def _share(hits: Tensor, total: Tensor) -> float:
    return float(hits.double() / total.double())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)
