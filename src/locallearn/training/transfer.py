"""A trained network on the test images of any data set, which may have other classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from locallearn._engine.local_net import LocalNet
from locallearn._objectives.objective import Objective
from locallearn._torch.device import device_of, mixed
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted
from locallearn.data import Batches, DataSet, shared_classes
from locallearn.training.evaluation import evaluate, has_several_labels, reports_top5, top5_hits
from locallearn.training.files.checkpoint import load_checkpoint, load_weights, trained_weights
from locallearn.training.files.data_card import DataCard
from locallearn.training.files.run_folder import RunFolder
from locallearn.training.from_settings import build, data_of
from locallearn.training.settings.train import TrainSettings
from locallearn.training.trained import data_card_of


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Accuracy of a network on the test split of a data set.

    Images of a class that the network does not know are left out. A class that only the network knows can still be its
    answer: `accuracy` counts such an answer as wrong, `shared_accuracy` takes the best of the shared classes instead.

    Attributes:
        accuracy: share of the images that are classified correctly.
        shared_accuracy: the same if the network chooses among the shared classes alone; equal if all are shared.
        top5_accuracy: share whose class is among the five likeliest, where the network knows 100 or more; else None.
        images: number of images of shared classes.
        classes: names of the shared classes in the data set, to their names in the network's.
        class_accuracies: of the images of each of them.
        left_out: classes that the network does not know, to their numbers of images.
        never_right: classes that only the network knows, to how often they were its answer.
        skipped: image files that could not be read.
        head_accuracies: of each objective whose auxiliary network classifies, by the local modules that it covers;
            counted as `accuracy`, with the weights of the last step. Empty unless asked for.
    """

    accuracy: float
    shared_accuracy: float
    images: int
    classes: dict[str, str]
    class_accuracies: dict[str, float]
    left_out: dict[str, int]
    never_right: dict[str, int]
    top5_accuracy: float | None = None
    skipped: tuple[str, ...] = ()
    head_accuracies: dict[str, float] = field(default_factory=dict)


def evaluate_run(
    folder: Path,
    settings: TrainSettings,
    *,
    data: str | None = None,
    data_dir: Path | None = None,
    checkpoint: str = "last",
    device: str | None = None,
    bad_images: Literal["refuse", "skip"] | None = None,
    heads: bool = False,
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
        heads: whether to test every module's auxiliary head too.

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
    state = load_checkpoint(file)
    load_weights(net, trained_weights(state), file=file, name=settings.model)
    net.to(on).eval()
    batches = other.testing(asked.testing_feed(asked.feed(on)))
    if has_several_labels(batches):
        if own is not other:
            raise LocalLearnError(f"images of {data} have several labels: test them by a run of its own.")
        tested = partial(_tested_on_several_labels, net, batches, len(other.test), own.classes, settings.autocast)
    else:
        shared = shared_classes(other.classes, own.classes)
        if len(shared) < 2:
            raise LocalLearnError(
                f"{data} ({_some(other.classes)}) and {settings.data} ({_some(own.classes)}) share"
                f" {counted(len(shared), 'class')} by name: there is nothing to test."
            )
        tested = partial(_tested, net, batches, other.classes, own.classes, shared, settings.autocast)
    if not (heads and state["average"]):
        return tested(heads=heads)
    result = tested(heads=False)
    load_weights(net, state["net"], file=file, name=settings.model)  # with which the heads were trained
    return replace(result, head_accuracies=tested(heads=True).head_accuracies)


def _tested_on_several_labels(
    net: LocalNet,
    batches: Batches,
    images: int,
    classes: Sequence[str],
    autocast: torch.dtype | None,
    *,
    heads: bool,
) -> Transfer:
    """The accuracy as `evaluate` has it, of all classes."""
    result = evaluate(net, batches, heads=heads, autocast=autocast)
    by_head = zip(net.objectives, result.head_accuracies, strict=heads)
    return Transfer(
        accuracy=result.accuracy,
        shared_accuracy=result.accuracy,
        images=images,
        classes={name: name for name in classes},
        class_accuracies={},
        left_out={},
        never_right={},
        skipped=tuple(batches.skipped),
        head_accuracies={_modules_of(o): accuracy for o, accuracy in by_head if accuracy is not None},
    )


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
def _tested(
    net: LocalNet,
    batches: Batches,
    classes: Sequence[str],
    known: Sequence[str],
    shared: dict[int, int],
    autocast: torch.dtype | None,
    *,
    heads: bool,
) -> Transfer:
    """Counts the network's answers to images of `classes`; `shared` maps these to the ones that it knows."""
    columns = torch.tensor(list(shared.values()))
    counts = torch.zeros(len(classes), len(known), dtype=torch.int64)  # of (true class, answer)
    right = top5 = 0  # among the shared classes, and among all that the network knows
    by_head: Counter[str] = Counter()
    for images, on_device in batches.epoch(1):
        with mixed(images.device, autocast):
            outputs = net.logits(images) if heads else [net(images)]  # the backbone's come last
        assert outputs[-1] is not None
        logits, labels = outputs[-1].float().cpu(), on_device.cpu()
        counts.index_put_((labels, logits.argmax(1)), torch.ones_like(labels), accumulate=True)
        expected = torch.tensor([shared.get(label, -1) for label in labels.tolist()])
        for objective, output in zip(net.objectives, outputs, strict=True) if heads else ():
            if output is not None:
                by_head[_modules_of(objective)] += int((output.argmax(1).cpu() == expected).sum())
        top5 += int(top5_hits(logits, expected).sum())
        right += int((columns[logits[:, columns].argmax(1)] == expected).sum())
    hits = {row: int(counts[row, column]) for row, column in shared.items()}
    images_of = counts.sum(1).tolist()
    images = sum(images_of[row] for row in shared)
    if not images:
        raise LocalLearnError("no test image is of a class that the network knows: there is nothing to test.")
    answered = counts[list(shared)].sum(0).tolist()
    return Transfer(
        accuracy=sum(hits.values()) / images,
        shared_accuracy=right / images,
        top5_accuracy=top5 / images if reports_top5(len(known)) else None,
        images=images,
        classes={classes[row]: known[column] for row, column in shared.items()},
        class_accuracies={classes[row]: hits[row] / images_of[row] for row in shared if images_of[row]},
        left_out={name: images_of[row] for row, name in enumerate(classes) if row not in shared},
        never_right={name: answered[i] for i, name in enumerate(known) if i not in shared.values()},
        skipped=tuple(batches.skipped),
        head_accuracies={modules: right / images for modules, right in by_head.items()},
    )


def _modules_of(objective: Objective) -> str:
    first, last = objective.first, objective.last
    return f"module {last}" if first == last else f"modules {first} to {last}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)
