"""How much of a recipe is trained: all of it, a small part that keeps the order of methods, or seconds of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from locallearn._chain.partition import Partition
from locallearn._utils.errors import LocalLearnError
from locallearn.data import ImageSet, Split
from locallearn.recipes.protocols import EPOCHS, EVERY_LAYER
from locallearn.recipes.recipe import Recipe
from locallearn.rules import Rule
from locallearn.training import SGD, Cosine, TrainSettings

Budget = Literal["smoke", "small", "full"]

RATES = (0.05, 0.2)
"""Learning rates of the small budget; each recipe takes the one with the better validation accuracy."""

TRAIN_IMAGES: Mapping[str, int] = {"cifar10": 10_000, "svhn": 10_000, "stl10": 4_000}
"""Training images of the small budget, the first of the split."""

VALIDATION_IMAGES: Mapping[str, int] = {"cifar10": 5_000, "svhn": 5_000, "stl10": 1_000}
"""The last images of the training split, on which the small budget never trains."""


def validation_split(data: str, images: ImageSet) -> Split:
    """The validation images of a data set.

    Raises:
        LocalLearnError: so few images are there that some of these are trained on.
    """
    count = VALIDATION_IMAGES[data]
    if (needed := count + TRAIN_IMAGES[data]) > len(images.train):
        raise LocalLearnError(
            f"{data} has {len(images.train):,} training images here, and the small budget needs {needed:,}, some for"
            " validation alone: put the whole data set there."
        )
    return Split(images=images.train.images[-count:], labels=images.train.labels[-count:])


def unfit(recipe: Recipe, budget: Budget) -> str:
    """Why a recipe is not trained at a budget, or ""."""
    if recipe.missing:
        return recipe.missing
    if recipe.kind == "cost":
        return "the table prints costs alone"
    if recipe.kind == "detect":
        return f"run locallearn train --recipe {recipe.name}, then locallearn detect RUN with the same --recipe"
    if budget == "small" and recipe.settings.data not in TRAIN_IMAGES:
        return "the small budget is for small images"
    if budget == "small" and recipe.settings.epochs != EPOCHS:
        return f"it compares {recipe.settings.epochs} epochs with {EPOCHS}, and the small budget trains all rows alike"
    return ""


def at_budget(settings: TrainSettings, budget: Budget) -> TrainSettings:
    """The settings of a run at a budget.

    `full` changes nothing. `small`: the first 10,000 training images (STL-10: 4,000), 15 epochs of batch 128, cosine
    without warm-up, mixed precision with bfloat16, whatever the recipe's own; ResNet-110: 5,000 images and 10 epochs.
    Where the papers' K says so, every layer is a module, as in `docs/results/cifar10-small-budget.md`. `smoke`: one
    epoch of two batches of handwritten digits, in three or four local modules where the rule keeps as many.
    """
    if budget == "full":
        return settings
    changes: dict[str, Any] = {"schedule": Cosine(), "optimizer": SGD(lr=RATES[0])}
    if budget == "smoke":
        size = 64 if settings.data == "imagenet" else 32  # VGG19 halves its images five times
        changes |= {"data": "digits", "image_size": size, "train_images": 32, "batch": 16, "epochs": 1, "loggers": ()}
        return replace(settings, modules=_few_modules(settings.rule) or settings.modules, **changes)
    deep = settings.model == "resnet110"
    images = TRAIN_IMAGES[settings.data]
    if settings.modules == f"hpff-{EVERY_LAYER.get(settings.model)}":
        changes["modules"] = "all"
    changes |= {"train_images": min(images, 5_000) if deep else images, "epochs": 10 if deep else 15}
    return replace(settings, batch=128, precision="bf16", **changes)


def _few_modules(rule: Rule) -> int | None:
    """The fewest local modules, of 3 or 4, that a rule trains as so many and not as one; None where it joins them."""
    for count in (3, 4):
        if len(rule.partition(Partition(tuple(range(count))))) < count:
            return None
        try:
            spans = rule.spans(count)
        except LocalLearnError:
            continue
        if any(span.last < count - 1 for span in spans):
            return count
    return None
