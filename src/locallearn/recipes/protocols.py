"""How the papers train, and how their tables become recipes.

Small images: `train.py` of each official code. CIFAR-10 and SVHN with batch 1024 and learning rate 0.8, STL-10 with
batch 128 and 0.1; 400 epochs of `PaperCosine`; SGD with Nesterov momentum 0.9 and decay 1e-4 of all parameters; 32-bit
floats. ImageNet: the same optimizer with `ImageNetCosine`. Augmentation and normalisation are the data set's own, which
are the papers'. No validation images are held out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from types import MappingProxyType
from typing import Any

from locallearn.detection import DetectSettings
from locallearn.recipes.recipe import Kind, Published, Quantity, Recipe
from locallearn.rules import BP, Rule
from locallearn.training import SGD, ImageNetCosine, PaperCosine, TrainSettings

Modules = int | str | list[str]

DATA = {"cifar10": "CIFAR-10", "svhn": "SVHN", "stl10": "STL-10", "imagenet": "ImageNet"}
NETWORKS = {
    "resnet32": "ResNet-32",
    "resnet110": "ResNet-110",
    "resnet34": "ResNet-34",
    "resnet101": "ResNet-101",
    "resnet152": "ResNet-152",
    "resnext101-32x8d": "ResNeXt-101, 32x8d",
    "vgg13": "VGG13",
    "cifar-vgg19": "VGG19",
    "cifar-mobilenet-v2": "MobileNetV2",
    "cifar-efficientnet-b0": "EfficientNetB0",
    "cifar-regnet-x-400mf": "RegNetX_400MF",
}

COLUMNS = (("resnet32", 8), ("resnet32", 16), ("resnet110", 32), ("resnet110", 55))
"""Networks and K of the first table of HPFF, MAN and MLAAN."""

EVERY_LAYER = {"resnet32": 16, "resnet110": 55, "vgg13": 10, "resnet34": 17, "resnet101": 34, "resnet152": 51}
"""K by which the papers call every layer a module; in the split of their code the stem is in the first module."""

EPOCHS = 400
"""Of training on small images."""

Method = tuple[str, Rule]
"""A method as printed, and its rule."""


def small_images(data: str, model: str, rule: Rule, modules: Modules = "all", *, epochs: int = EPOCHS) -> TrainSettings:
    """Training on CIFAR-10, SVHN or STL-10."""
    batch, lr = (128, 0.1) if data == "stl10" else (1024, 0.8)
    return TrainSettings(
        data=data,
        model=model,
        rule=rule,
        modules=modules,
        epochs=epochs,
        batch=batch,
        optimizer=SGD(lr=lr),
        schedule=PaperCosine(),
    )


def divided(data: str, model: str, rule: Rule, k: int | None = None, *, epochs: int = EPOCHS) -> TrainSettings:
    """Training on small images with the split `hpff-K` of HPFF, MAN and MLAAN; by default every layer is a module."""
    k = EVERY_LAYER[model] if k is None else k
    return small_images(data, model, rule, "all" if isinstance(rule, BP) else f"hpff-{k}", epochs=epochs)


def imagenet(
    model: str, rule: Rule, modules: Modules = "all", *, lr: float, batch: int, epochs: int = 90
) -> TrainSettings:
    """Training on ImageNet."""
    return TrainSettings(
        data="imagenet",
        model=model,
        rule=rule,
        modules=modules,
        epochs=epochs,
        batch=batch,
        optimizer=SGD(lr=lr),
        schedule=ImageNetCosine(),
    )


def in_papers_form(rule: Rule) -> Rule:
    """The rule, and all rules in it, with `fidelity="paper"` where they have that setting."""

    def changed(value: Any) -> Any:
        if isinstance(value, Rule):
            return in_papers_form(value)
        return tuple(map(changed, value)) if isinstance(value, tuple) else value

    assert is_dataclass(rule)
    settings = {one.name: changed(getattr(rule, one.name)) for one in fields(rule)}
    return replace(rule, **settings | ({"fidelity": "paper"} if "fidelity" in settings else {}))


def as_in_text(settings: TrainSettings, rule: Rule | None = None) -> TrainSettings | None:
    """Settings as the paper's text has them, or None where they are the official code's.

    Rules in their paper's form; no warm-up, which no text mentions; every layer a module where K says so.

    Args:
        settings: the official code's.
        rule: the paper's rule, where it is not `in_papers_form`.
    """
    schedule, every = settings.schedule, EVERY_LAYER.get(settings.model)
    changes: dict[str, Any] = {
        "rule": in_papers_form(settings.rule) if rule is None else rule,
        "schedule": PaperCosine(warmup_epochs=0) if isinstance(schedule, PaperCosine) else schedule,
        "modules": "all" if settings.modules in (f"hpff-{every}", f"mlaan-{every}") else settings.modules,
    }
    found = replace(settings, **changes)
    return None if found == settings else found


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of a paper, which makes recipes of its rows.

    Attributes:
        paper: its name as printed.
        number: of the table as printed, in Arabic digits.
        trials: over which its numbers are means.
    """

    paper: str
    number: str
    trials: int = 1

    def row(
        self,
        settings: TrainSettings,
        method: str,
        label: str,
        numbers: Mapping[Quantity, str],
        *,
        k: int | None = None,
        test_data: str | None = None,
        detection: DetectSettings | None = None,
        paper_rule: Rule | None = None,
        missing: str = "",
        note: str = "",
    ) -> Recipe:
        """A recipe.

        Args:
            settings: the official code's.
            method: the end of its name.
            label: the method as printed.
            numbers: the row's, such as "93.73±0.04".
            k: number of modules as printed; in the name unless every layer is one.
            test_data: see `Recipe`.
            detection: see `Recipe`.
            paper_rule: as in `as_in_text`.
            missing: why the library cannot run it.
            note: what else one must know.
        """
        in_name = k is not None and k != EVERY_LAYER.get(settings.model)
        row = "-".join([settings.data, settings.model.removeprefix("cifar-"), *([f"k{k}"] if in_name else []), method])
        network = NETWORKS[settings.model] + ("" if k is None else f" (K={k})")
        cell = f"{self.paper}, Table {self.number}: {DATA[settings.data]}, {network}, {label}"
        published = tuple(
            Published(quantity=quantity, value=value, deviation=deviation, cell=cell)
            for quantity, text in numbers.items()
            for value, deviation in values(text)
        )
        kind: Kind = "cost" if all(one.quantity.is_cost for one in published) else "train"
        kind = "evaluate" if test_data else "detect" if detection else kind
        return Recipe(
            name=f"{self.paper.lower()}/table{self.number.replace('(', '').replace(')', '')}/{row}",
            kind=kind,
            settings=settings,
            paper=as_in_text(settings, paper_rule),
            published=published,
            trials=self.trials,
            missing=missing,
            note=note,
            test_data=test_data,
            detection=detection,
        )

    def first(
        self,
        tables: Mapping[str, Mapping[str, Sequence[Any]]],
        methods: Mapping[str, Method],
        *,
        paper_rules: Mapping[str, Rule] = MappingProxyType({}),
    ) -> Iterator[Recipe]:
        """The rows of the first table of HPFF, MAN and MLAAN.

        Args:
            tables: by data set and method, the test errors of `COLUMNS`; None where there is none.
            methods: by name.
            paper_rules: of methods whose `paper_rule` in `row` is not the default.
        """
        for data, rows in tables.items():
            for method, errors in rows.items():
                label, rule = methods[method]
                for (model, k), error in zip(COLUMNS, errors, strict=True):
                    if error is not None:
                        settings = divided(data, model, rule, k)
                        shown, text = None if method == "bp" else k, paper_rules.get(method)
                        yield self.row(settings, method, label, {Quantity.ERROR: str(error)}, k=shown, paper_rule=text)


def tops(errors: Sequence[float]) -> dict[Quantity, str]:
    """Top-1 and top-5 error."""
    return dict(zip((Quantity.TOP1_ERROR, Quantity.TOP5_ERROR), map(str, errors), strict=True))


def values(text: str) -> Iterator[tuple[float, float | None]]:
    """The numbers of a text such as "93.73±0.04 97.01", each with its deviation or None."""
    for value, deviation in re.findall(r"([\d.]+)(?:±([\d.]+))?", text):
        yield float(value), float(deviation) if deviation else None
