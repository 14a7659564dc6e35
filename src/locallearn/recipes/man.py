"""MAN's tables (Su et al., ECCV 2024). A star there, `man-` here, is MAN added to a method.

No code is published for DGL, PredSim, VGG13 and K=4; splits of K=4 are those of MAN++. InfoPro with K=2 on ImageNet has
the settings of InfoPro's own code, whose numbers the table repeats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from locallearn.recipes.hpff import BASES, LR_AND_BATCH
from locallearn.recipes.protocols import Method, PaperTable, divided, imagenet, tops
from locallearn.recipes.recipe import Quantity, Recipe
from locallearn.rules import BP, DGL, MAN, ImageNetInfoPro, InfoPro, Rule
from locallearn.training import SGD, TrainSettings

METHODS: Mapping[str, Method] = {"bp": ("E2E", BP()), **BASES} | {
    f"man-{name}": (f"{label}*", MAN(rule)) for name, (label, rule) in BASES.items()
}

TABLE1 = {  # test error; columns: ResNet-32 with K=8 and 16, ResNet-110 with K=32 and 55; E2E: one of each network
    "cifar10": {
        "bp": (None, 6.37, None, 5.42),
        "predsim": (20.62, 22.71, 22.08, 24.74),
        "man-predsim": (14.29, 15.58, 17.05, 18.02),
        "dgl": (11.63, 14.08, 12.51, 14.45),
        "man-dgl": (8.42, 9.11, 9.65, 9.73),
        "infopro": (11.51, 12.93, 12.26, 13.22),
        "man-infopro": (9.32, 9.65, 9.06, 9.77),
    },
    "stl10": {
        "bp": (None, 19.35, None, 19.67),
        "predsim": (31.97, 32.90, 32.05, 33.27),
        "man-predsim": (29.97, 29.99, 30.48, 31.55),
        "dgl": (25.05, 27.14, 25.67, 28.16),
        "man-dgl": (20.74, 21.37, 22.54, 22.69),
        "infopro": (27.32, 29.28, 28.58, 29.20),
        "man-infopro": (23.17, 23.54, 24.08, 24.74),
    },
    "svhn": {
        "bp": (None, 2.99, None, 2.92),
        "predsim": (6.91, 8.08, 9.12, 10.47),
        "man-predsim": (5.54, 6.39, 7.27, 8.24),
        "dgl": (4.83, 5.05, 5.12, 5.36),
        "man-dgl": (3.80, 4.04, 4.08, 4.52),
        "infopro": (5.61, 5.97, 5.89, 6.11),
        "man-infopro": (4.49, 5.19, 4.85, 4.99),
    },
}

TABLE2 = {  # top-1 and top-5 error on ImageNet, by method and K
    "resnet101": {
        ("bp", None): (22.03, 5.93),
        ("infopro", 2): (21.85, 5.89),
        ("man-infopro", 2): (21.65, 5.49),
        ("infopro", 4): (22.81, 6.54),
        ("man-infopro", 4): (21.73, 5.81),
    },
    "resnet152": {
        ("bp", None): (21.60, 5.92),
        ("infopro", 2): (21.45, 5.84),
        ("man-infopro", 2): (21.23, 5.53),
        ("infopro", 4): (22.93, 6.71),
        ("man-infopro", 4): (21.59, 5.89),
    },
    "resnext101-32x8d": {
        ("bp", None): (20.64, 5.40),
        ("infopro", 2): (20.35, 5.28),
        ("man-infopro", 2): (20.11, 5.18),
        ("infopro", 4): (21.69, 6.11),
        ("man-infopro", 4): (20.37, 5.34),
    },
    "vgg13": {("bp", None): (28.41, 9.63), ("dgl", 10): (35.60, 14.20), ("man-dgl", 10): (31.99, 10.84)},
}

TABLE3 = {  # GPU memory, GB; columns: ResNet-101, ResNet-152, ResNeXt-101
    ("bp", None): (19.71, 26.29, 19.22),
    ("infopro", 2): (12.06, 15.53, 11.55),
    ("man-infopro", 2): (12.32, 15.93, 11.73),
    ("infopro", 4): (10.37, 13.48, 10.24),
    ("man-infopro", 4): (10.69, 13.91, 10.49),
}

TABLE4A = {  # test error; EMA and learnable bias
    "none": ("neither", DGL(), 14.08),
    "ema": ("EMA", MAN(DGL(), bias=False), 11.07),
    "ema-lb": ("EMA, LB", MAN(DGL()), 9.11),
}

TABLE4B = {  # top-1 and top-5 error
    "none": ("neither", ImageNetInfoPro(), (22.81, 6.54)),
    "ema": ("EMA", MAN(ImageNetInfoPro(), bias=False), (22.09, 6.07)),
    "ema-lb": ("EMA, LB", MAN(ImageNetInfoPro()), (21.73, 5.81)),
}

TABLE5A = {  # test error; parameters of the next layer, and EMA
    "none": ("neither", DGL(), 14.08),
    "parameter": ("Parameter", MAN(DGL(), momentum=0.0, bias=False), 12.93),
    "parameter-ema": ("Parameter, EMA", MAN(DGL(), bias=False), 11.07),
}

TABLE5B = {  # top-1 and top-5 error
    "none": ("neither", ImageNetInfoPro(), (22.81, 6.54)),
    "parameter": ("Parameter", MAN(ImageNetInfoPro(), momentum=0.0, bias=False), (22.64, 6.41)),
    "parameter-ema": ("Parameter, EMA", MAN(ImageNetInfoPro(), bias=False), (22.09, 6.07)),
}


def recipes() -> Iterator[Recipe]:
    """All rows of Tables 1 to 5."""
    yield from PaperTable(paper="MAN", number="1", trials=5).first(TABLE1, METHODS)
    table = PaperTable(paper="MAN", number="2")
    for model, rows in TABLE2.items():
        for (method, k), errors in rows.items():
            yield table.row(_imagenet(model, method, k), method, METHODS[method][0], tops(errors), k=k)
    table = PaperTable(paper="MAN", number="3")
    for (method, k), columns in TABLE3.items():
        for model, memory in zip(("resnet101", "resnet152", "resnext101-32x8d"), columns, strict=True):
            numbers = {Quantity.MEMORY: str(memory)}
            lr, batch = LR_AND_BATCH[model]  # of BP too, with whose memory all is compared
            settings = replace(_imagenet(model, method, k), batch=batch, optimizer=SGD(lr=lr))
            yield table.row(settings, method, METHODS[method][0], numbers, k=k)
    for number, small, large in (("4", TABLE4A, TABLE4B), ("5", TABLE5A, TABLE5B)):
        table = PaperTable(paper="MAN", number=f"{number}(a)")
        for row, (label, rule, error) in small.items():
            yield table.row(divided("cifar10", "resnet32", rule), row, label, {Quantity.ERROR: str(error)}, k=16)
        table = PaperTable(paper="MAN", number=f"{number}(b)")
        for row, (label, rule, errors) in large.items():
            settings = imagenet("resnet101", rule, "man++-4", lr=0.05, batch=128)
            yield table.row(settings, row, label, tops(errors), k=4)


def _imagenet(model: str, method: str, k: int | None) -> TrainSettings:
    lr, batch = LR_AND_BATCH[model]
    if model == "vgg13" or k is None:
        return imagenet(model, METHODS[method][1], lr=lr, batch=batch)
    if method == "infopro" and k == 2:
        own: Rule = InfoPro.published("imagenet-resnet152") if model == "resnet152" else ImageNetInfoPro()
        split = "infopro-resnext-2" if model.startswith("resnext") else "infopro-2"
        return imagenet(model, own, split, lr=0.4, batch=1024)
    rule = ImageNetInfoPro() if method == "infopro" else MAN(ImageNetInfoPro())
    return imagenet(model, rule, "man-2" if k == 2 else "man++-4", lr=lr, batch=batch)
