"""MLAAN's tables (Zhang et al., 2024). A star there, `mlaan-` here, is MLAAN added to a method; MLAAN alone pools.

The code that its README names has cascades of two modules; that for DGL and InfoPro has three, as the paper. DGL's head
there is in a file that is not published; recipes have the head of the other papers' DGL.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from locallearn.recipes.protocols import EVERY_LAYER, Method, PaperTable, divided, imagenet, tops
from locallearn.recipes.recipe import Quantity, Recipe
from locallearn.rules import BP, DGL, LAM, MLAAN, MLM, ImageNetPooling, InfoPro
from locallearn.training import TrainSettings

INFOPRO = InfoPro.published("mlaan")
ALONE = MLAAN(span=2)
TEXT = MLAAN(fidelity="paper")
"""MLAAN alone as in the text: cascades of three modules."""

IMAGENET = MLAAN(ImageNetPooling(), fresh=True)
METHODS: dict[str, Method] = {
    "bp": ("BP", BP()),
    "dgl": ("DGL", DGL()),
    "mlaan-dgl": ("DGL*", MLAAN(DGL())),
    "infopro": ("InfoPro", INFOPRO),
    "mlaan-infopro": ("InfoPro*", MLAAN(INFOPRO)),
    "mlaan": ("MLAAN", ALONE),
}

TABLE1 = {  # test error; columns: ResNet-32 with K=8 and 16, ResNet-110 with K=32 and 55; BP: one of each network
    "cifar10": {
        "bp": (None, 6.37, None, 5.42),
        "dgl": (11.63, 14.08, 12.51, 14.45),
        "mlaan-dgl": ("6.25±0.12", "6.36±0.15", "5.38±0.27", "5.42±0.52"),
        "infopro": (11.51, 12.93, 12.26, 13.22),
        "mlaan-infopro": ("6.37±0.50", "6.37±0.35", "5.41±0.49", "5.60±0.55"),
        "mlaan": ("6.36±0.23", "6.51±0.55", "5.41±0.62", "6.02±0.67"),
    },
    "stl10": {
        "bp": (None, 19.35, None, 19.67),
        "dgl": (25.05, 27.14, 25.67, 28.16),
        "mlaan-dgl": ("19.35±0.51", "19.02±0.11", "19.54±0.34", "19.66±0.55"),
        "infopro": (27.32, 29.28, 28.58, 29.20),
        "mlaan-infopro": ("19.21±0.19", "19.21±0.12", "19.51±0.16", "19.24±0.21"),
        "mlaan": ("19.34±0.15", "19.96±0.53", "20.46±0.64", "19.66±0.67"),
    },
    "svhn": {
        "bp": (None, 2.99, None, 2.92),
        "dgl": (4.83, 5.05, 5.12, 5.36),
        "mlaan-dgl": ("2.79±0.12", "2.73±0.19", "2.78±0.22", "2.90±0.14"),
        "infopro": (5.61, 5.97, 5.89, 6.11),
        "mlaan-infopro": ("2.97±0.18", "2.95±0.2", "2.87±0.32", "2.90±0.42"),
        "mlaan": ("2.85±0.22", "2.82±0.38", "2.79±0.31", "2.89±0.31"),
    },
}

TABLE2 = {  # top-1 and top-5 error on ImageNet
    "resnet34": {"bp": (25.38, 7.90), "mlaan": (25.31, 7.88)},
    "resnet101": {"bp": (22.03, 5.93), "mlaan": (21.69, 5.72)},
    "resnet152": {"bp": (21.60, 5.92), "mlaan": (21.34, 5.74)},
}

TABLE3 = {  # GPU memory, GB: BP, MLAAN
    ("cifar10", "resnet32"): (3.37, 2.62),
    ("cifar10", "resnet110"): (9.26, 2.76),
    ("imagenet", "resnet34"): (10.74, 9.09),
    ("imagenet", "resnet101"): (20.64, 17.93),
    ("imagenet", "resnet152"): (26.29, 23.01),
}

TABLE4 = {  # test error; MLM and LAM
    "none": ("neither", DGL(), 14.08),
    "mlm": ("MLM", MLM(DGL()), 8.46),
    "lam": ("LAM", LAM(DGL()), 7.64),
    "mlm-lam": ("MLM, LAM", MLAAN(DGL()), 6.36),
}

TABLE5 = {"dgl": (400, (14.08, 14.45)), "mlaan-dgl": (300, (7.79, 6.98))}  # epochs; ResNet-32, ResNet-110

TABLE6 = {"bp": (35.98, 36.78), "dgl": (31.95, 33.16), "mlaan-dgl": (37.65, 40.26)}  # accuracy on STL-10


def recipes() -> Iterator[Recipe]:
    """All rows of Tables I to VI."""
    yield from PaperTable(paper="MLAAN", number="1", trials=3).first(TABLE1, METHODS, paper_rules={"mlaan": TEXT})
    table = PaperTable(paper="MLAAN", number="2")
    for model, rows in TABLE2.items():
        for method, errors in rows.items():
            yield table.row(_imagenet(model, method), method, METHODS[method][0], tops(errors), **_alone(model, method))
    table = PaperTable(paper="MLAAN", number="3")
    for (data, model), columns in TABLE3.items():
        for method, memory in zip(("bp", "mlaan"), columns, strict=True):
            label, rule = METHODS[method]
            settings = _imagenet(model, method) if data == "imagenet" else divided(data, model, rule)
            yield table.row(settings, method, label, {Quantity.MEMORY: str(memory)}, **_alone(model, method))
    table = PaperTable(paper="MLAAN", number="4")
    for row, (label, rule, error) in TABLE4.items():
        note = "The text has 6.80." if row == "mlm-lam" else ""
        yield table.row(divided("cifar10", "resnet32", rule), row, label, {Quantity.ERROR: str(error)}, k=16, note=note)
    table = PaperTable(paper="MLAAN", number="5")
    for method, (epochs, errors) in TABLE5.items():
        label, rule = METHODS[method]
        for model, error in zip(("resnet32", "resnet110"), errors, strict=True):
            settings = divided("cifar10", model, rule, epochs=epochs)
            numbers, shown = {Quantity.ERROR: str(error)}, EVERY_LAYER[model]
            yield table.row(settings, method, f"{label} (Epochs={epochs})", numbers, k=shown)
    table = PaperTable(paper="MLAAN", number="6")
    for method, columns in TABLE6.items():
        label, rule = METHODS[method]
        for model, accuracy in zip(("resnet32", "resnet110"), columns, strict=True):
            numbers, shown = {Quantity.ACCURACY: str(accuracy)}, None if method == "bp" else EVERY_LAYER[model]
            tested: dict[str, Any] = {"test_data": "stl10", "note": "Trained on CIFAR-10, tested on STL-10."}
            yield table.row(divided("cifar10", model, rule), method, label, numbers, k=shown, **tested)


def _alone(model: str, method: str) -> dict[str, Any]:
    """Options of the rows of Tables II and III, in which MLAAN stands alone."""
    return {"k": EVERY_LAYER[model], "paper_rule": TEXT} if method == "mlaan" else {}


def _imagenet(model: str, method: str) -> TrainSettings:
    rule, modules = (BP(), "all") if method == "bp" else (IMAGENET, f"mlaan-{EVERY_LAYER[model]}")
    return imagenet(model, rule, modules, lr=0.05, batch=128, epochs=150)
