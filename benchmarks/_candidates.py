"""The candidates of recipe_search.py, its limits, and what a training step costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

import locallearn as ll
from locallearn.cost import predict
from locallearn.data import ImageSet, cifar10
from locallearn.recipes.training_budget import validation_split
from locallearn.training import SGD, Cosine, TrainSettings, make_model

SHAPE, CLASSES = (3, 32, 32), 10


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Most that a training step may need, times backpropagation's in `fast` with the same precision and batch.

    Attributes:
        memory: predicted peak bytes in total; checkpointing needs more.
        macs: multiply-accumulates of all that runs.
    """

    memory: float = 0.40
    macs: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """The predicted cost of a training step: peak bytes in total, multiply-accumulates, seconds of the cost model."""

    bytes: int
    macs: int
    seconds: float

    def times(self, other: Step) -> dict[str, float]:
        """This as a multiple of another."""
        return {name: round(value / getattr(other, name), 3) for name, value in asdict(self).items()}

    def is_within(self, limits: Limits, bp: Step) -> bool:
        return self.bytes <= limits.memory * bp.bytes and self.macs <= limits.macs * bp.macs


@cache
def step_of(settings: TrainSettings) -> Step:
    """Counted on fake tensors."""
    model = make_model(settings.model, classes=CLASSES, image_shape=SHAPE)
    options: Any = {"modules": settings.modules, "memory": settings.memory, "input_shape": SHAPE}
    net = ll.localize(model, settings.rule, **options)
    net = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    found = predict(net, settings.batch, **settings.step_options)
    average = settings.average_of(net)
    return Step(
        bytes=found.peak.total + (0 if average is None else average.nbytes),
        macs=found.macs,
        seconds=found.seconds,
    )


def validated_cifar10(root: Path) -> ImageSet:
    """CIFAR-10 with the validation images in place of the test images.

    They are the last 5,000 of the training split, on which no run of the small budget trains.
    """
    images = cifar10(root)
    held_out = validation_split("cifar10", images)
    return replace(images.limited(len(images.train) - len(held_out)), test=held_out)


VALIDATION = f"{validated_cifar10.__module__}.{validated_cifar10.__qualname__}"
COMMON = TrainSettings(
    rule=ll.BP(),
    epochs=15,
    optimizer=SGD(lr=0.2),
    schedule=Cosine(),
    precision="bf16",
    train_images=10_000,
    threads=1,
    step="module",
    loggers=(),
)

HALF, QUARTER = (partial(ll.Reduced, grid=grid) for grid in (16, 8))  # of the height and width of the images
HALF_4 = {"rule": HALF(ll.AugLocal(depth=4))}
WARM = {"schedule": Cosine(warmup=0.2)}
HALF_WARM = {**HALF_4, **WARM}
DECAY = {"optimizer": SGD(lr=0.2, weight_decay=5e-4, decay_norms_and_biases=False)}
SMOOTH, AVERAGE = {"label_smoothing": 0.1}, {"ema": 0.98}
FEWER = {**WARM, **DECAY, **SMOOTH}
EXTRAS = {**FEWER, **AVERAGE}
LEAN = {"memory": "lean"}
CASCADES = partial(ll.HiLo, independent=0)
Candidates = Mapping[str, Mapping[str, Any]]
"""By name: settings other than those of `COMMON`."""
SEARCHES: Mapping[str, Candidates] = {
    "reduced": {
        "auglocal": {"rule": ll.AugLocal(depth=4)},
        "auglocal lean": {"rule": ll.AugLocal(depth=4), "memory": "lean"},
        "auglocal depth 2": {"rule": ll.AugLocal(depth=2)},
        "half depth 5": {"rule": HALF(ll.AugLocal(depth=5))},
        "cascades of DGL": {"rule": ll.MLM(ll.DGL()), "memory": "lean"},
        "cascades": {"rule": ll.HiLo(QUARTER(ll.AugLocal(depth=3))), "memory": "lean"},
        "cascades alone": {"rule": ll.HiLo(ll.DGL(), independent=0), "memory": "lean"},
        "cascades alone of AugLocal": {"rule": ll.HiLo(QUARTER(ll.AugLocal(depth=3)), independent=0), "memory": "lean"},
        "copies of next layers": {"rule": ll.MAN(QUARTER(ll.DGL())), "memory": "lean"},
        "half": HALF_4,
        "half warm": HALF_WARM,
        "half warm decay": {**HALF_WARM, **DECAY},
        "half all": {**HALF_4, **EXTRAS},
        "half warm smooth": {**HALF_WARM, **SMOOTH},
        "half warm average": {**HALF_WARM, **AVERAGE},
        "half warm mixup": {**HALF_WARM, "mixup": 0.2},
        "half warm 0.4": {**HALF_WARM, "optimizer": SGD(lr=0.4)},
        "half warm, faster at the end": {**HALF_WARM, "module_lr": (1.0, 2.0)},
        "half warm, faster at the start": {**HALF_WARM, "module_lr": (2.0, 1.0)},
        "half depth 3 warm": {"rule": HALF(ll.AugLocal(depth=3)), **WARM},
        "quarter warm": {"rule": QUARTER(ll.AugLocal(depth=4)), **WARM},
        "quarter depth 6 warm": {"rule": QUARTER(ll.AugLocal(depth=6)), **WARM},
    },
    "narrow": {
        "half all": {**HALF_4, **EXTRAS},
        "narrow 0.5 all": {"rule": ll.AugLocal(depth=4, narrow=0.5), **EXTRAS},
        "narrow 0.75 all": {"rule": ll.AugLocal(depth=4, narrow=0.75), **EXTRAS},
        "narrow 0.75 depth 3 all": {"rule": ll.AugLocal(depth=3, narrow=0.75), **EXTRAS},
        "narrow 0.5 depth 5 all": {"rule": ll.AugLocal(depth=5, narrow=0.5), **EXTRAS},
        "narrow 0.6 depth 5 all": {"rule": ll.AugLocal(depth=5, narrow=0.6), **EXTRAS},
        "narrow 0.5 depth 6 all": {"rule": ll.AugLocal(depth=6, narrow=0.5), **EXTRAS},
        "narrow 0.75 depth 5 all": {"rule": ll.AugLocal(depth=5, narrow=0.75), **EXTRAS},
        "half narrow 0.75 all": {"rule": HALF(ll.AugLocal(depth=4, narrow=0.75)), **EXTRAS},
    },
    "wrappers": {
        "narrow 0.75 all": {"rule": ll.AugLocal(depth=4, narrow=0.75), **EXTRAS},
        "cascades of 2, narrow 0.5, depth 2": {"rule": CASCADES(ll.AugLocal(depth=2, narrow=0.5)), **LEAN, **FEWER},
        "cascades of 2, narrow 0.5, depth 3": {"rule": CASCADES(ll.AugLocal(depth=3, narrow=0.5)), **LEAN, **FEWER},
        "cascades of 2, DGL": {"rule": CASCADES(ll.DGL(units=64)), **LEAN, **FEWER},
        "cascades of 3, DGL": {"rule": CASCADES(ll.DGL(units=64), span=3), **LEAN, **FEWER},
        "both levels, narrow 0.25": {"rule": ll.HiLo(ll.AugLocal(depth=2, narrow=0.25)), **LEAN, **EXTRAS},
        "both levels, cascades half": {
            "rule": ll.HiLo(ll.AugLocal(depth=2, narrow=0.25), independent=0.5, cascade=0.5),
            **LEAN,
            **EXTRAS,
        },
        "copies, DGL": {"rule": ll.MAN(ll.DGL(), bias=False), **LEAN, **EXTRAS},
        "copies, DGL with bias": {"rule": ll.MAN(ll.DGL()), **LEAN, **EXTRAS},
    },
}
"""The candidates of each search.

Each search begins with the winner of the one before. The limits leave out what is before "half" in the first, and some
of the others.
"""
WITH_COST = ("rule", "memory", "ema")
"""Those of them on which the cost of a step depends."""
