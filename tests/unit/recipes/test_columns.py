"""The numbers of reproduced tables beside each other: with which BP they are compared, and in which picture."""

from __future__ import annotations

import pytest

from locallearn.recipes import find
from locallearn.recipes.columns import BPs, bp_accuracies
from locallearn.recipes.figures import pairs_of
from locallearn.training import rule_text

PLAIN = "hpff/table4a/cifar10-resnet32-il"


def test_pictures_show_distances_to_bp_where_both_are_known():
    def row(name: str, rule: str, values: list[float]) -> dict:
        one = {"quantity": "test error", "published": 14.08, "deviation": None, "values": values}
        return {"recipe": name, "data": "cifar10", "model": "resnet32", "rule": rule, "measured": [one]}

    rows = [row(PLAIN, "dgl", [40.0, 42.0]), row("hpff/table1/cifar10-resnet32-bp", "bp", [30.0])]
    values = {"table": "hpff/table4a", "what": "small", "rows": rows}
    axis, (pair,) = pairs_of(values, dict.fromkeys([(row["recipe"], "test error") for row in rows], 70.0))
    assert axis == "points below BP"
    assert (pair.published, pair.here, pair.deviation) == pytest.approx((7.71, 11.0, 2**0.5))
    axis, pairs = pairs_of(values, {})
    assert (axis, [pair.here for pair in pairs]) == ("test accuracy or error, %", [41.0, 30.0])


def row_of(name: str, accuracy: float) -> dict:
    """A row of a results file whose recipe was trained once."""
    recipe = find(name)
    one = {"quantity": "test accuracy", "published": 90.0, "deviation": None, "values": [accuracy]}
    settings = recipe.settings
    rule = rule_text(settings.rule)
    return {"recipe": name, "data": settings.data, "model": settings.model, "rule": rule, "measured": [one]}


def table_of(table: str, what: str, **accuracies: float) -> dict:
    rows = [row_of(f"{table}/{name.replace('_', '-')}", accuracy) for name, accuracy in accuracies.items()]
    return {"table": table, "what": what, "rows": rows}


def compared(table: dict, bps: BPs) -> list[float | None]:
    return [bps.get((row["recipe"], row["measured"][0]["quantity"])) for row in table["rows"]]


def test_each_row_is_compared_with_bp_trained_and_tested_alike():
    first = table_of("auglocal/table1", "small", cifar10_resnet32_bp=71.7, cifar10_resnet32_dgl=58.7)
    other_images = table_of("mlaan/table6", "small", cifar10_resnet32_bp=33.0, cifar10_resnet32_dgl=30.0)
    without_bp = table_of("mlaan/table4", "small", cifar10_resnet32_mlm_lam=65.0)
    bps = bp_accuracies([first, other_images, without_bp])
    assert compared(first, bps) == [71.7, 71.7]
    assert compared(other_images, bps) == [33.0, 33.0]
    assert compared(without_bp, bps) == [71.7]
    assert compared(without_bp, bp_accuracies([other_images, without_bp])) == [None]
    long = table_of("auglocal/table3", "full", imagenet_resnet101_bp=77.0, imagenet_resnet101_auglocal_d4=76.0)
    short = table_of("man/table2", "full", imagenet_resnet101_bp=75.0, imagenet_resnet101_k4_infopro=74.0)
    bps = bp_accuracies([long, short])
    assert compared(long, bps) + compared(short, bps) == [77.0, 77.0, 75.0, 75.0]


def test_the_best_five_classes_are_compared_with_bps():
    table = table_of("man/table2", "full", imagenet_resnet101_bp=75.0, imagenet_resnet101_k4_infopro=74.0)
    for row, accuracy in zip(table["rows"], (92.0, 91.0), strict=True):
        row["measured"].append(row["measured"][0] | {"quantity": "top-5 accuracy", "values": [accuracy]})
    assert list(bp_accuracies([table]).values()) == [75.0, 92.0] * 2
