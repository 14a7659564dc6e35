"""The cost columns of the papers' tables: predicted on fake tensors, without a GPU, beside the published numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import cross_entropy

from locallearn._localize import localize
from locallearn._torch import private_api
from locallearn._torch.device import channels_last
from locallearn._torch.live_bytes import LiveBytes
from locallearn.cost import FVCORE, forward_macs, peak_memory
from locallearn.recipes.columns import printed_bp
from locallearn.recipes.recipe import Quantity, Recipe
from locallearn.rules import BP
from locallearn.training import TrainSettings, make_model

IMAGES = {
    "cifar10": (10, (3, 32, 32)),
    "svhn": (10, (3, 32, 32)),
    "stl10": (10, (3, 96, 96)),
    "imagenet": (1000, (3, 224, 224)),
}
"""Number of classes, and shape of an image."""

Watch = Callable[[str, int, int], None]
"""Told of progress: what is done, finished steps, steps in total."""


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What a training step costs.

    Attributes:
        peak_bytes: most bytes alive at any moment of it, of everything; None where it was not asked for.
        macs: multiply-accumulates of one image forward through backbone and task heads, counted as AugLocal counts;
            None where they were not asked for.
    """

    peak_bytes: int | None
    macs: int | None


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """A row of a table: published and predicted cost.

    Attributes:
        recipe: its name.
        batch: images in a step.
        published_gb, published_ratio: GPU memory, and as a multiple of BP's; None where the paper prints none.
        published_macs: multiply-accumulates in units of 1e9.
        published_time: time of training above BP's, in percent; it is not measured here.
        step: the predicted cost.
        ratio: predicted peak as a multiple of BP's, or None.
        plain_ratio: the same of BP as PyTorch runs it, which stores all that its layers save (`plain_bp_bytes`).
    """

    recipe: str
    batch: int
    published_gb: float | None
    published_ratio: float | None
    published_macs: float | None
    published_time: float | None
    step: StepCost
    ratio: float | None
    plain_ratio: float | None


def step_cost(settings: TrainSettings, *, memory: bool = True, macs: bool = True) -> StepCost:
    """The predicted cost of a training step.

    Args:
        settings: of the run.
        memory: whether to count bytes.
        macs: whether to count multiply-accumulates.
    """
    classes, shape = IMAGES[settings.data]
    model = make_model(settings.model, classes=classes, image_shape=shape)
    net = localize(model, settings.rule, modules=settings.modules, memory=settings.memory, input_shape=shape)
    net = channels_last(net)
    make, autocast = settings.make_stepper, settings.autocast
    peak = peak_memory(net, settings.batch, make_stepper=make, autocast=autocast) if memory else None
    return StepCost(
        peak_bytes=None if peak is None else peak.total,
        macs=sum(module.backbone + module.task_heads for module in forward_macs(net, FVCORE)) if macs else None,
    )


def plain_bp_bytes(settings: TrainSettings) -> int:
    """Peak bytes of a step of backpropagation as PyTorch runs it, counted on fake tensors: nothing is recomputed.

    With parameters, gradients, one tensor of optimizer state for each parameter, buffers and the batch.
    """
    classes, shape = IMAGES[settings.data]
    model = channels_last(make_model(settings.model, classes=classes, image_shape=shape))
    with private_api.fake_mode() as mode:
        net = private_api.fake_copy(model, mode).train()
        images = torch.zeros(settings.batch, *shape).to(memory_format=torch.channels_last)
        labels = torch.zeros(settings.batch, dtype=torch.long)
        known = [*net.parameters(), *net.buffers(), images, labels]
        with LiveBytes(known=known, parameters=net.parameters()) as live:
            cross_entropy(net(images), labels).backward()
        state = sum(parameter.nbytes for parameter in net.parameters())
        return live.peak + state + sum(tensor.nbytes for tensor in known)


def has_costs(recipe: Recipe) -> bool:
    """Whether the paper prints a cost of this row, or describes it for its cost alone."""
    return recipe.kind == "cost" or any(one.quantity.is_cost for one in recipe.published)


def cost_rows(found: Sequence[Recipe], watch: Watch) -> list[CostRow]:
    """The costs of some recipes of a table, of the kinds that it prints; steps that several share are predicted once.

    A table that prints none gets both kinds.
    """
    printed = {one.quantity for recipe in found for one in recipe.published if one.quantity.is_cost}
    memory, macs = (not printed or quantity in printed for quantity in (Quantity.MEMORY, Quantity.MACS))
    known: dict[str, StepCost] = {}
    bps = {recipe.name: replace(recipe.settings, rule=BP(), modules="all") for recipe in found} if memory else {}
    steps = {repr(settings): settings for settings in (*bps.values(), *(recipe.settings for recipe in found))}
    for done, (key, settings) in enumerate(steps.items()):
        watch(f"{settings.model}, {settings.rule}", done, len(steps))
        known[key] = step_cost(settings, memory=memory, macs=macs)
    plain = {key: plain_bp_bytes(settings) for key, settings in {repr(bp): bp for bp in bps.values()}.items()}
    rows = []
    for recipe in found:
        bp = repr(bps[recipe.name]) if memory else ""
        both = (known[bp].peak_bytes, plain[bp]) if memory else (None, None)
        rows.append(_row(recipe, known[repr(recipe.settings)], *both))
    return rows


def _row(recipe: Recipe, step: StepCost, bp: int | None, plain_bp: int | None) -> CostRow:
    memory, bp_memory = _printed(recipe, Quantity.MEMORY), printed_bp(recipe.name, Quantity.MEMORY.title)
    return CostRow(
        recipe=recipe.name,
        batch=recipe.settings.batch,
        published_gb=memory,
        published_ratio=memory / bp_memory if memory and bp_memory else None,
        published_macs=_printed(recipe, Quantity.MACS),
        published_time=_printed(recipe, Quantity.TIME),
        step=step,
        ratio=step.peak_bytes / bp if step.peak_bytes and bp else None,
        plain_ratio=step.peak_bytes / plain_bp if step.peak_bytes and plain_bp else None,
    )


def _printed(recipe: Recipe, quantity: Quantity) -> float | None:
    return next((one.value for one in recipe.published if one.quantity is quantity), None)
