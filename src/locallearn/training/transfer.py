"""A trained network on the test images of any data set, of which it need not know all classes."""

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
from locallearn.training.run import TrainSettings, build, data_of
from locallearn.training.run_folder import RunFolder
from locallearn.training.trained import described


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """How a network does on the test split of a data set.

    Images of a class that the network does not know are left out. A class that only the network knows can still be its
    answer: `accuracy` counts that as wrong, `shared_accuracy` takes the best of the shared classes instead.

    Attributes:
        accuracy: share of the images that are classified right.
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
    were; classes are mapped by name (`locallearn.data.shared_classes`). This is the generalisation study of MLAAN
    (Table VI): train on CIFAR-10, test on STL-10.

    Args:
        folder: the run folder.
        settings: the run's.
        data: a data set, named as for training; the run's own by default.
        data_dir: folder of the data set; the run's by default. For another data set, the run's own need not be there.
        checkpoint: "last" or "best".
        device: where to compute; the run's by default.
        bad_images: what becomes of image files that cannot be read; the run's by default.

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
        own = described(RunFolder(folder), settings)
        other = _like(own, replace(asked, data=data, train_images=None))
    where, file = device_of(asked.device), folder / f"{checkpoint}.pt"
    net = build(settings, own)
    load_weights(net, load_checkpoint(file)["net"], file=file, name=settings.model)
    shared = shared_classes(other.classes, own.classes)
    if len(shared) < 2:
        raise LocalLearnError(
            f"{data} ({_some(other.classes)}) and {settings.data} ({_some(own.classes)}) share {len(shared)} classes by"
            " name: there is nothing to test."
        )
    batches = other.testing(asked.feed(where))
    return _transfer(net.to(where), batches, own.classes, other.classes, shared, settings.autocast)


def _like(own: DataCard, settings: TrainSettings) -> DataSet:
    """Another data set, with images as the network knows them."""
    channels, height, width = own.image_shape
    other = data_of(replace(settings, image_size=height))
    if other.image_shape != (channels, height, width):
        raise LocalLearnError(
            f"the network takes images of {channels} x {height} x {width}, but {settings.data} has"
            f" {' x '.join(map(str, other.image_shape))}."
        )
    return other.normalised_as(own.mean, own.std)


@torch.no_grad()
def _transfer(
    net: LocalNet,
    batches: Batches,
    known: Sequence[str],
    classes: Sequence[str],
    shared: dict[int, int],
    autocast: torch.dtype | None,
) -> Transfer:
    net.eval()
    among = torch.tensor(list(shared.values()))
    answers = torch.zeros(2, len(classes), len(known), dtype=torch.int64)  # freely, and among shared classes
    for images, labels in batches.epoch(1):
        with mixed(images.device, autocast):
            logits = net(images).float().cpu()
        for counts, chosen in zip(answers, (logits.argmax(1), among[logits[:, among].argmax(1)]), strict=True):
            counts.index_put_((labels.cpu(), chosen), torch.ones_like(chosen), accumulate=True)
    rows, columns = torch.tensor(list(shared)), among
    of_class = answers[0].sum(1)
    free = answers[0][rows]

    if not free.sum():
        raise LocalLearnError("no test image is of a class that the network knows: there is nothing to test.")

    return Transfer(
        accuracy=_share(free[range(len(rows)), columns].sum(), free.sum()),
        shared_accuracy=_share(answers[1][rows, columns].sum(), free.sum()),
        images=int(free.sum()),
        classes={classes[row]: known[column] for row, column in shared.items()},
        class_accuracies={
            classes[row]: _share(answers[0][row, column], of_class[row])
            for row, column in shared.items()
            if of_class[row]
        },
        left_out={name: int(of_class[row]) for row, name in enumerate(classes) if row not in shared},
        never_right={
            name: int(free[:, column].sum()) for column, name in enumerate(known) if column not in shared.values()
        },
        skipped=tuple(batches.skipped),
    )


def _share(hits: Tensor, total: Tensor) -> float:
    return float(hits.double() / total.double())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)
