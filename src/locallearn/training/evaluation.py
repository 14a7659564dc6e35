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
    images_seen, outputs = 0, []
    correct = loss = torch.zeros((), dtype=torch.float64, device=next(net.parameters()).device)
    try:
        for images, labels in batches.epoch(1):
            with mixed(images.device, autocast):
                outputs = net.logits(images) if heads else [net(images)]  # the backbone's come last
                assert outputs[-1] is not None
                loss = loss + net.loss(outputs[-1], labels).double() * len(labels)
            none = torch.full_like(labels, -1)
            answers = [none if logits is None else logits.argmax(1) for logits in outputs]
            correct = correct + (torch.stack(answers) == labels).sum(1)
            images_seen += len(labels)
    finally:
        for part in training:
            part.training = True
    shares = (correct / images_seen).tolist()
    by_head = [None if logits is None else share for logits, share in zip(outputs, shares, strict=True)]
    return Evaluation(
        accuracy=shares[-1], loss=float(loss) / images_seen, head_accuracies=tuple(by_head) if heads else ()
    )
