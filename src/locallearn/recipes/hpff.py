"""HPFF's tables (Su et al., ECCV 2024). A star there, `hpff-` here, is HPFF added to a method.

No code is published for DGL, PredSim and VGG13.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from locallearn.recipes.protocols import EVERY_LAYER, Method, PaperTable, divided, imagenet, tops
from locallearn.recipes.recipe import Quantity, Recipe
from locallearn.rules import BP, DGL, HPFF, PFF, HiLo, ImageNetInfoPro, InfoPro, PredSim, Rule

INFOPRO = InfoPro.published("hpff")
BASES: dict[str, Method] = {
    "predsim": ("PredSim", PredSim()),
    "dgl": ("DGL", DGL()),
    "infopro": ("InfoPro", INFOPRO),
}


def hpff(rule: Rule) -> Rule:
    """HPFF as in the official code; around rules without a decoder, where that has no PFF, with PFF as in the paper."""
    return HPFF(rule) if isinstance(rule, InfoPro) else HiLo(PFF(rule, fidelity="paper"))


METHODS: dict[str, Method] = {"bp": ("BP", BP()), **BASES} | {
    f"hpff-{name}": (f"{label}*", hpff(rule)) for name, (label, rule) in BASES.items()
}

TABLE1 = {  # test error; columns: ResNet-32 with K=8 and 16, ResNet-110 with K=32 and 55; BP: one of each network
    "cifar10": {
        "bp": (None, 6.37, None, 5.42),
        "predsim": (20.62, 22.71, 22.08, 24.74),
        "hpff-predsim": (13.73, 15.74, 16.51, 18.49),
        "dgl": (11.63, 14.08, 12.51, 14.45),
        "hpff-dgl": (8.08, 8.94, 8.15, 8.74),
        "infopro": (11.51, 12.93, 12.26, 13.22),
        "hpff-infopro": (7.79, 8.99, 8.21, 8.96),
    },
    "stl10": {
        "bp": (None, 19.35, None, 19.67),
        "predsim": (31.97, 32.90, 32.05, 33.27),
        "hpff-predsim": (28.53, 29.05, 31.04, 31.75),
        "dgl": (25.05, 27.14, 25.67, 28.16),
        "hpff-dgl": (20.17, 21.77, 21.29, 21.36),
        "infopro": (27.32, 29.28, 28.58, 29.20),
        "hpff-infopro": (22.18, 22.37, 21.39, 22.74),
    },
    "svhn": {
        "bp": (None, 2.99, None, 2.92),
        "predsim": (6.91, 8.08, 9.12, 10.47),
        "hpff-predsim": (5.74, 6.70, 6.92, 8.41),
        "dgl": (4.83, 5.05, 5.12, 5.36),
        "hpff-dgl": (3.37, 3.59, 3.21, 3.53),
        "infopro": (5.61, 5.97, 5.89, 6.11),
        "hpff-infopro": (3.91, 4.48, 4.17, 4.84),
    },
}

TABLE2 = {  # top-1 and top-5 error on ImageNet
    "vgg13": {"bp": (28.41, 9.63), "dgl": (35.60, 14.20), "hpff-dgl": (32.49, 11.22)},
    "resnet101": {"bp": (22.03, 5.93), "infopro": (22.81, 6.54), "hpff-infopro": (21.14, 5.49)},
    "resnet152": {"bp": (21.60, 5.92), "infopro": (22.93, 6.71), "hpff-infopro": (20.99, 5.29)},
    "resnext101-32x8d": {"bp": (20.64, 5.40), "infopro": (21.69, 6.11), "hpff-infopro": (19.94, 5.09)},
}

TABLE3 = {  # GPU memory, GB
    ("cifar10", "resnet32"): {"bp": 3.37, "hpff-dgl": 2.25, "hpff-infopro": 2.31, "hpff-predsim": 1.91},
    ("cifar10", "resnet110"): {"bp": 9.26, "hpff-dgl": 2.44, "hpff-infopro": 2.38, "hpff-predsim": 1.90},
    ("imagenet", "resnet101"): {"bp": 19.71, "hpff-infopro": 15.87},
    ("imagenet", "resnet152"): {"bp": 26.29, "hpff-infopro": 20.79},
    ("imagenet", "resnext101-32x8d"): {"bp": 19.22, "hpff-infopro": 15.41},
}

TABLE4A = {  # test error; levels and PFF
    "il": ("IL", DGL(), 14.08),
    "cl": ("CL", HiLo(DGL(), independent=0.0), 10.51),
    "il-cl": ("IL, CL", HiLo(DGL()), 9.44),
    "il-cl-pff": ("IL, CL, PFF", hpff(DGL()), 8.94),
}

TABLE4B = {  # top-1 and top-5 error
    "il": ("IL", ImageNetInfoPro(), (22.81, 6.54)),
    "cl": ("CL", HiLo(ImageNetInfoPro(), independent=0.0), (22.12, 5.99)),
    "il-cl": ("IL, CL", HiLo(ImageNetInfoPro()), (21.35, 5.68)),
    "il-cl-pff": ("IL, CL, PFF", HPFF.imagenet(), (21.14, 5.49)),
}

TABLE5 = {  # GPU memory, GB, and test error
    "resnet32": {"infopro": (2.67, 12.93), "hilo-infopro": (3.13, 9.59), "hpff-infopro": (2.31, 8.99)},
    "resnet110": {"infopro": (2.62, 13.62), "hilo-infopro": (3.28, 9.35), "hpff-infopro": (2.38, 8.96)},
}

LR_AND_BATCH = {
    "vgg13": (0.025, 64),
    "resnet101": (0.05, 128),
    "resnet152": (0.05, 128),
    "resnext101-32x8d": (0.025, 64),
}


def recipes() -> Iterator[Recipe]:
    """All rows of Tables 1 to 5."""
    yield from PaperTable(paper="HPFF", number="1", trials=5).first(TABLE1, METHODS)
    table = PaperTable(paper="HPFF", number="2")
    for model, rows in TABLE2.items():
        for method, errors in rows.items():
            yield _imagenet(table, model, method, tops(errors))
    table = PaperTable(paper="HPFF", number="3")
    for (data, model), rows in TABLE3.items():
        for method, memory in rows.items():
            numbers = {Quantity.MEMORY: str(memory)}
            label, rule = METHODS[method]
            if data == "imagenet":
                yield _imagenet(table, model, method, numbers)
            else:
                shown = None if method == "bp" else EVERY_LAYER[model]
                yield table.row(divided(data, model, rule), method, label, numbers, k=shown)
    table = PaperTable(paper="HPFF", number="4(a)")
    for row, (label, rule, error) in TABLE4A.items():
        yield table.row(divided("cifar10", "resnet32", rule), row, label, {Quantity.ERROR: str(error)}, k=16)
    table = PaperTable(paper="HPFF", number="4(b)")
    for row, (label, rule, errors) in TABLE4B.items():
        settings = imagenet("resnet101", rule, "hpff-4", lr=0.05, batch=128)
        yield table.row(settings, row, label, tops(errors), k=4, **(_BY_CODE if rule == HPFF.imagenet() else {}))
    table = PaperTable(paper="HPFF", number="5")
    for model, rows in TABLE5.items():
        for method, (memory, error) in rows.items():
            rule = {"infopro": INFOPRO, "hilo-infopro": HiLo(INFOPRO), "hpff-infopro": HPFF(INFOPRO)}[method]
            label = {"infopro": "InfoPro", "hilo-infopro": "InfoPro+HiLo", "hpff-infopro": "InfoPro+HPFF"}[method]
            numbers = {Quantity.MEMORY: str(memory), Quantity.ERROR: str(error)}
            note = "Table 1 has 13.22." if error == 13.62 else ""
            yield table.row(divided("cifar10", model, rule), method, label, numbers, k=EVERY_LAYER[model], note=note)


_BY_CODE: dict[str, Any] = {
    "paper_rule": HPFF(ImageNetInfoPro(), fidelity="paper"),
    "note": "The code for ImageNet trains cascades alone, without patches; -paper has both levels and patches.",
}
"""Options of the rows with HPFF on ImageNet."""


def _imagenet(table: PaperTable, model: str, method: str, numbers: Mapping[Quantity, str]) -> Recipe:
    """A row of ImageNet: VGG13 with every layer a module, others in 4 modules."""
    label, rule = METHODS[method]
    rule = {"infopro": ImageNetInfoPro(), "hpff-infopro": HPFF.imagenet()}.get(method, rule)
    k = None if method == "bp" else EVERY_LAYER["vgg13"] if model == "vgg13" else 4
    lr, batch = LR_AND_BATCH[model]
    settings = imagenet(model, rule, "hpff-4" if k == 4 else "all", lr=lr, batch=batch)
    return table.row(settings, method, label, numbers, k=k, **(_BY_CODE if method == "hpff-infopro" else {}))
