"""Mixup and CutMix: each image of a batch is mixed with the one before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from locallearn._torch.vision_libraries import import_torchvision
from locallearn._utils.optional_imports import optional
from locallearn.data.batches import Batches
from locallearn.data.order import seed_of

_DRAW = 1
"""Tells the seeds of this draw from those of the order and of crops."""


@dataclass(kw_only=True)
class MixedBatches:
    r"""Training batches in which each image is mixed with the one before it, the first with the last.

    With :math:`\lambda` from Beta(a, a), drawn for each batch, mixup (Zhang et al. 2018) has the pixels
    :math:`\lambda x_i + (1 - \lambda) x_{i-1}`. CutMix (Yun et al. 2019) has those of :math:`x_{i-1}` in a random box,
    about :math:`1 - \lambda` of the area. Labels become probabilities (batch, classes), in the same proportion. Where
    both are asked for, each batch has one of them, chosen at random. The draws depend on seed, epoch and batch alone.

    Source: `MixUp`, `CutMix` and `RandomChoice` of torchvision's transforms v2.

    Args:
        batches: of a training split.
        mixup, cutmix: a of the Beta distribution; 0 leaves it out.
        classes: number of classes.
        seed: of the draws.
        ahead: whether the first image of each batch is there for the second one alone (`Feed.ahead`), and left out.
    """

    batches: Batches
    mixup: float
    cutmix: float
    classes: int
    seed: int
    ahead: bool

    def __post_init__(self) -> None:
        import_torchvision()
        v2: Any = optional("torchvision.transforms.v2", extra="vision")
        alphas = {v2.MixUp: self.mixup, v2.CutMix: self.cutmix}
        self._mix = v2.RandomChoice(
            [kind(alpha=alpha, num_classes=self.classes) for kind, alpha in alphas.items() if alpha]
        )

    @property
    def skipped(self) -> Sequence[str]:
        """As in `Batches`."""
        return self.batches.skipped

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """As in `Batches`, with probabilities (batch, classes) as labels."""
        for index, (images, labels) in enumerate(self.batches.epoch(epoch, start=start), start):
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed_of(self.seed, epoch, index, _DRAW))
                mixed, probabilities = self._mix(images, labels)
            memory_format = torch.contiguous_format if images.is_contiguous() else torch.channels_last
            yield mixed[self.ahead :].contiguous(memory_format=memory_format), probabilities[self.ahead :]
