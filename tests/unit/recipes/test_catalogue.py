"""Recipes: one for each row of the papers' tables, with settings that build, found by their names."""

from __future__ import annotations

import re

import pytest
import torch

import locallearn as ll
from locallearn import LocalLearnError
from locallearn.recipes import Quantity, find, matching, recipes, rows_of, tables
from locallearn.recipes.catalogue import matching_rows
from locallearn.training import TrainSettings, make_model, rule_text

CELLS = {  # rows and printed numbers of each table
    "auglocal/table1": (54, 54),  # 2 networks, 9 methods, 3 data sets
    "auglocal/table2": (12, 12),
    "auglocal/table3": (7, 14),
    "auglocal/table4": (9, 9),
    "auglocal/table5": (40, 40),
    "auglocal/table6": (4, 0),  # describes auxiliary networks
    "auglocal/table7": (10, 39),  # BP has no time above BP's
    "auglocal/table8": (15, 15),
    "auglocal/table9": (20, 20),
    "auglocal/table10": (7, 7),
    "auglocal/table11": (26, 26),  # BP is in the caption
    "auglocal/table12": (2, 12),
    "auglocal/table13": (16, 16),
    "hpff/table1": (78, 78),  # 3 data sets: 6 methods in 4 columns, BP for 2 networks
    "hpff/table2": (12, 24),
    "hpff/table3": (14, 14),
    "hpff/table4a": (4, 4),
    "hpff/table4b": (4, 8),
    "hpff/table5": (6, 12),
    "mlaan/table1": (66, 66),
    "mlaan/table2": (6, 12),
    "mlaan/table3": (10, 10),
    "mlaan/table4": (4, 4),
    "mlaan/table5": (4, 4),
    "mlaan/table6": (6, 6),
    "man/table1": (78, 78),
    "man/table2": (18, 36),
    "man/table3": (15, 15),
    "man/table4a": (3, 3),
    "man/table4b": (3, 6),
    "man/table5a": (3, 3),
    "man/table5b": (3, 6),
}

SHAPES = {"stl10": (3, 96, 96), "imagenet": (3, 224, 224)}


def settings_to_build() -> dict[str, TrainSettings]:
    """Settings of all recipes, official and in text; of those that differ in numbers of the rule or in data, one."""
    found: dict[tuple[str, str, str], tuple[str, TrainSettings]] = {}
    for recipe in recipes().values():
        for settings in filter(None, (recipe.settings, recipe.paper)):
            rule = re.sub(r"[\d.]+", "N", rule_text(settings.rule))
            key = settings.model, rule, str(settings.modules)
            found.setdefault(key, (" ".join(key), settings))
    return dict(found.values())


BUILT = settings_to_build()
QUICK = [name for name in BUILT if name.startswith("resnet32") and name.endswith(" man(dgl) hpff-16")]


def test_every_cell_of_every_table_is_a_recipe():
    assert {table: (len(rows_of(table)), sum(len(r.published) for r in rows_of(table))) for table in tables()} == CELLS


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in BUILT])
def test_rules_and_partitions_build_on_their_networks(name):
    settings = BUILT[name]
    shape = SHAPES.get(settings.data, (3, 32, 32))
    model = make_model(settings.model, classes=10, image_shape=shape)
    net = ll.localize(model, settings.rule, modules=settings.modules, input_shape=shape)
    assert len(net.objectives) >= len(net.partition) or isinstance(settings.rule, ll.BP | ll.Checkpoint | ll.HiLo)


@pytest.mark.parametrize(
    ("name", "quantity", "value", "deviation"),
    [
        ("auglocal/table1/stl10-resnet32-auglocal-d6", Quantity.ACCURACY, 80.95, 0.55),
        ("auglocal/table7/cifar10-resnet110-infopro", Quantity.TIME, 292.3, None),
        ("auglocal/table12/imagenet-resnet34-auglocal-d5", Quantity.MASK_AP75, 35.7, None),
        ("hpff/table1/svhn-resnet110-k32-hpff-dgl", Quantity.ERROR, 3.21, None),
        ("hpff/table3/imagenet-resnet152-k4-hpff-infopro", Quantity.MEMORY, 20.79, None),
        ("mlaan/table1/svhn-resnet32-mlaan-infopro", Quantity.ERROR, 2.95, 0.2),
        ("man/table2/imagenet-vgg13-man-dgl", Quantity.TOP5_ERROR, 10.84, None),
    ],
)
def test_published_numbers(name, quantity, value, deviation):
    found = next(one for one in find(name).published if one.quantity is quantity)
    assert (found.value, found.deviation) == (value, deviation)


GAINS = {  # printed differences, K=16 and K=55 of CIFAR-10
    "hpff/table1": {"predsim": (6.97, 6.25), "dgl": (5.14, 5.71), "infopro": (3.94, 4.26)},
    "man/table1": {"predsim": (7.13, 6.72), "dgl": (4.97, 4.72), "infopro": (3.28, 3.45)},
}


@pytest.mark.parametrize("table", GAINS)
def test_published_differences(table):
    wrapper = table.partition("/")[0]
    for base, printed in GAINS[table].items():
        for model, gain in zip(("resnet32", "resnet110"), printed, strict=True):
            before, after = (
                find(f"{table}/cifar10-{model}-{method}").published[0].value for method in (base, f"{wrapper}-{base}")
            )
            assert before - after == pytest.approx(gain, abs=0.005)


def test_published_memory_savings():
    saved = {"hpff-dgl": 33.2, "hpff-infopro": 31.5, "hpff-predsim": 43.3}
    bp = find("hpff/table3/cifar10-resnet32-bp").published[0].value
    for method, percent in saved.items():
        memory = find(f"hpff/table3/cifar10-resnet32-{method}").published[0].value
        assert 100 * (1 - memory / bp) == pytest.approx(percent, abs=0.06)


def test_the_papers_own_settings_have_a_name():
    official, text = (
        find("hpff/table1/cifar10-resnet32-hpff-infopro"),
        find("hpff/table1/cifar10-resnet32-hpff-infopro-paper"),
    )
    assert official.settings.modules == "hpff-16"
    assert text.settings.modules == "all"
    assert text.settings.rule == ll.HPFF(ll.InfoPro.published("hpff"), fidelity="paper")
    assert find("mlaan/table1/cifar10-resnet32-mlaan-paper").settings.rule == ll.MLAAN(fidelity="paper")
    assert find("mlaan/table1/cifar10-resnet32-mlaan").settings.rule == ll.MLAAN(span=2)
    for table in ("table2", "table3"):
        text = find(f"mlaan/{table}/imagenet-resnet34-mlaan-paper").settings
        assert (text.rule, text.modules) == (ll.MLAAN(fidelity="paper"), "all")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hpff/table1/cifar10-resnet32-dlg", "did you mean 'hpff/table1/cifar10-resnet32-dgl'?"),
        ("hpf/table1/cifar10-resnet32-dgl", "did you mean 'hpff/table1'?"),
        ("dgl", "write paper, table and row"),
        ("auglocal/table9/cifar10-resnet110-predsim-d2", "cannot run: no rule adds similarity matching"),
    ],
)
def test_a_wrong_name_is_answered_by_the_nearest(name, sentence):
    with pytest.raises(LocalLearnError, match=re.escape(sentence)):
        find(name)


def test_patterns_match_parts_of_names():
    assert {recipe.table for recipe in matching("hpff/table4")} == {"hpff/table4a", "hpff/table4b"}
    assert len(matching("man/table1/*resnet32")) == 39
    rows = matching_rows(rows_of("man/table4a"), ["none", "*-lb"])
    assert [recipe.row for recipe in rows] == ["cifar10-resnet32-none", "cifar10-resnet32-ema-lb"]
    table = rows_of("hpff/table4a")
    assert matching_rows(table, ["cifar10-resnet32-il-cl"]) == [table[2]]  # and not the row whose name begins so
    with pytest.raises(LocalLearnError, match="no recipe has 'resnet33'"):
        matching("resnet33")


def test_epochs_learning_rates_and_batches():
    small, stl, large = (
        find(name).settings
        for name in (
            "hpff/table1/svhn-resnet32-dgl",
            "man/table1/stl10-resnet110-man-dgl",
            "auglocal/table3/imagenet-resnet101-auglocal-d4",
        )
    )
    assert (small.epochs, small.batch, small.optimizer.lr) == (400, 1024, 0.8)
    assert (stl.epochs, stl.batch, stl.optimizer.lr) == (400, 128, 0.1)
    assert (large.epochs, large.batch, large.optimizer.lr) == (200, 512, 0.2)
    rates = [small.lr(epoch=e, step=0, steps=72) for e in (1, 10, 400)]
    assert rates == pytest.approx([0.01, 0.71989, 0.0], abs=1e-5)
    assert large.lr(epoch=1, step=0, steps=2503) == 0.2
    assert torch.tensor(large.lr(epoch=200, step=0, steps=2503)) > 0
