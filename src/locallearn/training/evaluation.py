"""Accuracy of the backbone and, on request, of every module's auxiliary head; and which epoch is the best by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from locallearn._engine.local_net import LocalNet
from locallearn._engine.refusals import takes_one_class
from locallearn._objectives.auxiliary import Loss
from locallearn._torch.device import mixed
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.optional_imports import optional
from locallearn.data import Batches

_FEWEST_CLASSES = 100
"""From which on the top-5 accuracy is reported beside the top-1 accuracy."""
_ROUNDING = 1e-2
"""By which probabilities of all classes may miss 1 in sum, as in half precision."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Results on a test split.

    Attributes:
        accuracy: share of images that the backbone classifies correctly; where images have several labels, the mean
            average precision.
        top5_accuracy: share whose class is among the backbone's five likeliest, of 100 classes or more; else None.
        loss: mean of the task's loss.
        head_accuracies: of each objective's auxiliary network, None where it does not classify; empty if not asked for.
    """

    accuracy: float
    loss: float
    top5_accuracy: float | None = None
    head_accuracies: tuple[float | None, ...] = ()


def _alone(values: Tensor) -> Tensor:
    return values


def _is_multi_label(labels: Tensor, loss: Loss) -> bool:
    """Whether images have several labels, and not probabilities of one class."""
    return labels.dim() == 2 and not takes_one_class(loss)


def has_several_labels(batches: Batches) -> bool:
    """Whether each image has a number for every class; files have one class each."""
    return getattr(batches, "labels", np.empty(0)).ndim == 2


def refuse_misfit_labels(batches: Batches, loss: Loss) -> None:
    """Refuse labels that the loss would take for something else, or that could not be tested.

    Args:
        batches: of a split.
        loss: of the network.

    Raises:
        LocalLearnError: images have several labels each, and the loss takes one class, or scikit-learn is not
            installed.
    """
    if not has_several_labels(batches):
        return
    if not takes_one_class(loss):
        optional("sklearn.metrics")
        return
    sums = np.asarray(getattr(batches, "labels")).sum(1)  # noqa: B009
    if len(others := np.flatnonzero(np.abs(sums - 1) > _ROUNDING)):
        raise LocalLearnError(
            f"the labels of image {others[0]} add up to {sums[others[0]]:g}, but cross entropy takes one class, or"
            " probabilities that add up to 1. Where images have several labels, give --loss binary-cross-entropy."
        )


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """The mean over classes of scikit-learn's average precision, without classes that no image has.

    Args:
        scores: (images, classes), such as logits.
        labels: (images, classes), of which those above 0.5 are true.
    """
    of_class = optional("sklearn.metrics").average_precision_score
    classes = zip((labels > 0.5).numpy().T, scores.nan_to_num().numpy().T, strict=True)
    precisions = [of_class(label, score) for label, score in classes if label.any()]
    return float(sum(precisions) / max(1, len(precisions)))


@torch.no_grad()
def evaluate(
    net: LocalNet,
    batches: Batches,
    *,
    heads: bool = False,
    autocast: torch.dtype | None = None,
    summed: Callable[[Tensor], Tensor] = _alone,
    gathered: Callable[[Tensor], Tensor] = _alone,
) -> Evaluation:
    """Evaluate the backbone as it will be used, without auxiliary networks; training modes are restored afterwards.

    Args:
        net: the network.
        batches: of the test split.
        heads: whether to evaluate every module's auxiliary head too.
        autocast: dtype of mixed precision, or None.
        summed: adds numbers up over processes, of which each has some of the images.
        gathered: joins rows of these processes.
    """
    training = [part for part in net.modules() if part.training]
    net.eval()
    device = next(net.parameters()).device
    outputs: list[Tensor | None] = [None] * (len(net.objectives) if heads else 0)
    is_whole = len(net.part) == len(net.partition)  # otherwise, another process has the classifier
    correct = torch.zeros(len(outputs) + 1, dtype=torch.float64, device=device)
    scores: list[Tensor] = []
    truths: list[Tensor] = []
    images_seen = top5 = loss = torch.zeros(1, dtype=torch.float64, device=device)
    try:
        for images, labels in batches.epoch(1):
            if not len(labels):  # the last batch had fewer images than there are processes
                continue
            with mixed(images.device, autocast):
                logits = net(images)
                outputs = net.logits(images) if heads else []
                if heads and is_whole:
                    outputs[-1] = logits  # with other operations in evaluation than in training, the layers have these
                loss = loss + net.loss(logits, labels).double() * len(labels)
            images_seen = images_seen + len(labels)
            if _is_multi_label(labels, net.loss):
                unknown = torch.zeros_like(logits)
                heads_and_own = [unknown if output is None else output for output in (*outputs, logits)]
                scores.append(torch.stack(heads_and_own, 1).float().cpu())
                truths.append(labels.cpu())
                continue
            labels = labels.argmax(1) if labels.dim() == 2 else labels
            none = torch.full_like(labels, -1)
            answers = [none if head is None else head.argmax(1) for head in (*outputs, logits)]
            top5 = top5 + top5_hits(logits, labels).sum()
            correct = correct + (torch.stack(answers) == labels).sum(1)
    finally:
        for part in training:
            part.training = True
    count, total_loss, total_top5, *hits = summed(torch.cat([images_seen, loss, top5, correct])).tolist()
    if not count:
        raise LocalLearnError("there are no images to evaluate: the batches are empty.")
    *shares, accuracy = [hit / count for hit in hits]
    if scores:
        ranked, truth = gathered(torch.cat(scores)), gathered(torch.cat(truths))
        *shares, accuracy = [mean_average_precision(ranked[:, place], truth) for place in range(len(hits))]
    by_head = [None if head is None else share for head, share in zip(outputs, shares, strict=True)]
    return Evaluation(
        accuracy=accuracy,
        top5_accuracy=total_top5 / count if reports_top5(net.chain.classes) and not scores else None,
        loss=total_loss / count,
        head_accuracies=tuple(by_head),
    )


def reports_top5(classes: int) -> bool:
    """Whether there are so many classes that the top-5 accuracy is reported."""
    return classes >= _FEWEST_CLASSES


def top5_hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the class of each image is among its five largest logits (all, where there are fewer)."""
    return (logits.topk(min(5, logits.shape[1])).indices == labels[:, None]).any(1)


def choosing_accuracy(row: Mapping[str, Any]) -> float:
    """The accuracy by which epochs are compared: on validation images, or on the test images where there are none.

    Args:
        row: metrics of an epoch. Those without an accuracy, as of a detector, are never better than others.
    """
    return row.get("validation_accuracy", row.get("test_accuracy", -1.0))


def best_epoch(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The metrics of the best epoch, whose checkpoint is `best.pt`; the first one of several."""
    return max(rows, key=choosing_accuracy)


def chosen_on(rows: Sequence[Mapping[str, Any]]) -> str:
    """On which images the best epoch is chosen: "validation" or "test"."""
    return "validation" if all("validation_accuracy" in row for row in rows) else "test"
