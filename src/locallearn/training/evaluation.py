"""Test accuracy of the backbone and, on request, of every module's auxiliary head."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from locallearn._engine.local_net import LocalNet
from locallearn._torch.device import mixed
from locallearn.data import Batches


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Results on a test split.

    Attributes:
        accuracy: share of images that the backbone classifies correctly.
        loss: mean of the task's loss.
        head_accuracies: of each objective's auxiliary network, None where it does not classify; empty if not asked for.
    """

    accuracy: float
    loss: float
    head_accuracies: tuple[float | None, ...] = ()


@torch.no_grad()
def evaluate(
    net: LocalNet, batches: Batches, *, heads: bool = False, autocast: torch.dtype | None = None
) -> Evaluation:
    """Evaluate the backbone as it will be used, without auxiliary networks; training modes are restored afterwards.

    Args:
        net: the network.
        batches: of the test split.
        heads: whether to evaluate every module's auxiliary head too.
        autocast: dtype of mixed precision, or None.
    """
    training = [part for part in net.modules() if part.training]
    net.eval()
    try:
        return _evaluate(net, batches, heads, autocast)
    finally:
        for part in training:
            part.training = True


def _evaluate(net: LocalNet, batches: Batches, heads: bool, autocast: torch.dtype | None) -> Evaluation:
    images_seen, correct, loss = 0, None, None
    classifies: list[bool] = []
    for images, labels in batches.epoch(1):
        with mixed(images.device, autocast):
            outputs = net.logits(images) if heads else [net(images)]  # the backbone's come last
            assert outputs[-1] is not None
            batch_loss = net.loss(outputs[-1], labels).double() * len(labels)
        classifies = [logits is not None for logits in outputs]
        hits = torch.stack([(logits.argmax(1) == labels).sum() for logits in outputs if logits is not None])
        if correct is None or loss is None:
            correct, loss = hits, batch_loss
        else:
            correct, loss = correct + hits, loss + batch_loss
        images_seen += len(labels)
    assert correct is not None  # ImageSet refuses empty splits
    assert loss is not None
    shares = iter((correct.double() / images_seen).tolist())
    accuracies = [next(shares) if has_logits else None for has_logits in classifies]
    assert accuracies[-1] is not None
    return Evaluation(
        accuracy=accuracies[-1], loss=float(loss) / images_seen, head_accuracies=tuple(accuracies) if heads else ()
    )
