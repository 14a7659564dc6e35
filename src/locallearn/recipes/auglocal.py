"""AugLocal's tables (Ma et al., ICLR 2024).

Table 6 describes auxiliary networks and has no numbers; its recipes show what they cost. `checkpoint` is the paper's
gradient checkpointing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from locallearn.detection import DetectSettings
from locallearn.recipes.protocols import Method, PaperTable, imagenet, small_images
from locallearn.recipes.recipe import Quantity, Recipe
from locallearn.rules import (
    BP,
    DGL,
    AugLocal,
    Checkpoint,
    ConvolutionalAugLocal,
    ImageNetAugLocal,
    InfoPro,
    InfoProLoss,
    PredSim,
    RepetitiveAugLocal,
    Rule,
    SequentialAugLocal,
    table10,
)
from locallearn.training import TrainSettings

DEPTHS = range(2, 7)

TABLE1 = {  # test accuracy; columns: CIFAR-10, SVHN, STL-10
    "resnet32": {
        "bp": "93.73±0.04 97.01±0.03 80.80±0.17",
        "predsim": "79.29±0.37 92.02±0.35 70.67±0.39",
        "infopro": "87.26±0.16 93.30±0.73 70.85±0.14",
        "dgl": "86.30±0.12 95.14±0.09 73.13±1.08",
        "auglocal-d2": "91.12±0.24 95.86±0.04 78.58±0.66",
        "auglocal-d3": "92.26±0.20 96.43±0.02 79.79±0.27",
        "auglocal-d4": "93.08±0.10 96.79±0.08 80.65±0.16",
        "auglocal-d5": "93.38±0.11 96.87±0.03 80.73±0.18",
        "auglocal-d6": "93.47±0.09 96.85±0.08 80.95±0.55",
    },
    "resnet110": {
        "bp": "94.61±0.18 97.10±0.05 80.41±0.74",
        "predsim": "74.95±0.36 89.90±0.76 68.91±0.48",
        "infopro": "86.95±0.46 92.26±0.59 70.61±0.50",
        "dgl": "85.69±0.32 95.12±0.06 72.27±0.51",
        "auglocal-d2": "90.98±0.05 95.92±0.10 78.29±0.37",
        "auglocal-d3": "92.62±0.22 96.45±0.08 79.30±0.26",
        "auglocal-d4": "93.22±0.17 96.74±0.11 80.77±0.33",
        "auglocal-d5": "93.75±0.20 96.85±0.05 80.20±0.56",
        "auglocal-d6": "93.96±0.15 96.96±0.01 80.40±0.17",
    },
}

TABLE2 = {  # test accuracy of VGG19; columns: CIFAR-10, SVHN
    "bp": "93.68±0.11 96.79±0.08",
    "predsim": "86.49±0.30 94.07±0.43",
    "dgl": "92.48±0.06 96.63±0.08",
    "auglocal-d2": "93.16±0.28 96.48±0.07",
    "auglocal-d3": "93.46±0.19 96.65±0.04",
    "auglocal-d4": "93.69±0.05 96.64±0.06",
}

TABLE3 = {  # top-1 and top-5 accuracy on ImageNet
    # the text says that DGL is 3.6 points below AugLocal
    "vgg13": {"bp": (71.59, 90.37), "dgl": (67.32, 87.81), "auglocal-d3": (70.92, 90.13)},
    "resnet34": {"bp": (74.28, 91.76), "auglocal-d5": (73.95, 91.70)},
    "resnet101": {"bp": (77.34, 93.71), "auglocal-d4": (76.70, 93.29)},
}

TABLE4 = {  # GPU memory, GB, at batch 1024, of the best model
    "resnet32": {"bp": 3.15, "auglocal-d6": 1.67},
    "resnet110": {"bp": 9.27, "checkpoint": 3.03, "auglocal-d6": 1.72},
    "resnet34": {"bp": 42.95, "auglocal-d5": 29.04},
    "resnet101": {"bp": 157.12, "auglocal-d4": 97.65},
}

TABLE5 = {  # test accuracy of ResNet-110 on CIFAR-10; columns: d = 2 ... 9
    "uniform": "90.98±0.05 92.62±0.22 93.22±0.17 93.75±0.20 93.96±0.15 94.03±0.13 94.01±0.06 94.30±0.17",
    "sequential": "82.19±0.47 85.34±0.18 86.88±0.23 88.52±0.06 89.49±0.12 90.44±0.17 91.15±0.17 91.85±0.04",
    "repetitive": "82.24±0.25 85.16±0.21 86.47±0.09 87.64±0.20 88.59±0.26 89.30±0.20 89.85±0.11 90.79±0.09",
    "c1x1": "80.61±0.34 87.34±0.14 88.40±0.51 89.29±0.09 88.82±0.09 89.55±0.08 89.16±0.05 89.05±0.19",
    "c3x3": "83.03±0.24 85.82±0.08 87.84±0.46 89.19±0.20 90.01±0.05 90.73±0.11 91.11±0.21 91.50±0.12",
}

TABLE7 = {  # ResNet-110 on CIFAR-10: multiply-accumulates (G), GPU memory (GB), time above BP's (%), test accuracy
    "bp": ("0.25", "9.27", None, "94.61±0.18"),
    "checkpoint": ("0.25", "3.03", "34.1", "94.61±0.18"),
    "predsim": ("0.25", "1.54", "65.9", "74.95±0.36"),
    "dgl": ("0.26", "1.61", "76.2", "85.69±0.32"),
    "infopro": ("0.34", "3.98", "292.3", "86.95±0.46"),
    "auglocal-d2": ("0.63", "1.71", "87.2", "90.98±0.05"),
    "auglocal-d3": ("0.69", "1.62", "115.9", "92.62±0.22"),
    "auglocal-d4": ("0.80", "1.70", "135.6", "93.22±0.17"),
    "auglocal-d5": ("0.98", "1.71", "180.8", "93.75±0.20"),
    "auglocal-d6": ("1.13", "1.72", "214.6", "93.96±0.15"),
}

TABLE8 = {  # test accuracy on CIFAR-10; columns: BP, AugLocal with d = 3 ... 6
    "cifar-mobilenet-v2": "94.89±0.15 92.16±0.24 93.94±0.23 94.43±0.04 94.52±0.08",
    "cifar-efficientnet-b0": "93.52±0.15 92.70±0.14 92.84±0.15 93.03±0.16 93.13±0.08",
    "cifar-regnet-x-400mf": "95.70±0.12 94.42±0.11 94.72±0.01 94.96±0.12 95.09±0.10",
}

TABLE9 = {  # test accuracy of ResNet-110 on CIFAR-10 at equal cost; columns: d = 2 ... 6
    "auglocal": "90.98±0.05 92.62±0.22 93.22±0.17 93.75±0.20 93.96±0.15",
    "dgl": "83.03±0.24 85.82±0.08 87.84±0.46 89.19±0.20 90.01±0.05",
    "predsim": "72.06±0.63 80.16±0.47 86.00±0.56 88.27±0.72 88.34±0.34",
    "infopro": "83.71±0.20 89.14±0.17 90.75±0.22 91.45±0.05 92.10±0.17",
}

TABLE10 = {  # test accuracy of ResNet-110 on CIFAR-10, from AugLocal to DGL
    "auglocal": ("AugLocal (d = 6)", "93.96±0.15"),
    "repeat-ds-2": ("Replace with repe. and downsampling (ds.) in Stage 2", "92.75±0.09"),
    "repeat-2": ("Replace with repe. in Stage 2", "91.73±0.11"),
    "repeat-ds-1-ds-2": ("Replace with repe. and ds. in both Stage 1 and 2", "91.40±0.08"),
    "repeat-ds-1-2": ("Replace with repe. and ds. in Stage 1 and with repe. in Stage 2", "89.92±0.37"),
    "c3x3": ("Replace with 3x3 convolutional layers and downsampling in all stages", "88.28±0.24"),
    "dgl": ("DGL", "85.69±0.32"),
}

TABLE11 = {  # multiply-accumulates (G) of ResNet-110; rows: d; columns: tau = 1, 0.9, 0.8, 0.7, 0.6
    5: "0.79 0.83 0.87 0.89 0.93",
    6: "0.90 0.95 0.99 1.03 1.09",
    7: "0.99 1.06 1.11 1.17 1.22",
    8: "1.09 1.16 1.22 1.29 1.36",
    9: "1.18 1.26 1.35 1.41 1.49",
}

TABLE12 = {"bp": "36.3 56.4 39.4 33.8 53.9 36.1", "auglocal-d5": "36.2 56.0 39.1 33.4 53.2 35.7"}  # AP on COCO

TABLE13 = {  # test accuracy of ResNet-110 on CIFAR-10; columns: d = 2 ... 9
    "cross-entropy": TABLE5["uniform"],
    "infopro": "91.59±0.11 92.75±0.50 93.71±0.14 94.11±0.19 94.02±0.09 94.17±0.13 94.29±0.07 94.08±0.18",
}

PRINTED = {  # the rows of Tables 5, 9 and 13
    "uniform": "Unif.",
    "sequential": "Seq.",
    "repetitive": "Repe.",
    "c1x1": "C1x1",
    "c3x3": "C3x3",
    "auglocal": "AugLocal",
    "dgl": "DGL",
    "predsim": "PredSim",
    "infopro": "InfoPro",
    "cross-entropy": "CE",
}

IMAGENET = {"vgg13": (0.1, 256, 90), "resnet34": (0.4, 1024, 200), "resnet101": (0.2, 512, 200)}
"""Learning rate, batch and epochs."""


def method_of(name: str, model: str) -> Method:
    """A method of the comparisons, as printed and as a rule."""
    if name.startswith("auglocal-d"):
        depth = int(name[-1])
        return f"AugLocal (d = {depth})", AugLocal.imagenet(depth) if model in IMAGENET else AugLocal(depth=depth)
    infopro = InfoPro.published("auglocal-resnet110" if model == "resnet110" else "auglocal-resnet32")
    return {
        "bp": ("BP", BP()),
        "checkpoint": ("GC", Checkpoint()),
        "predsim": ("PredSim", PredSim()),
        "infopro": ("InfoPro", infopro),
        "dgl": ("DGL", DGL()),
    }[name]


def in_text(rule: Rule, model: str) -> Rule | None:
    """AugLocal on ImageNet as the text has it (4.1: tau = 0.5 on all data sets), where that is another class.

    VGG13's heads stay the official ones: the text names their units, which `AugLocal` does not have.
    """
    if not isinstance(rule, ImageNetAugLocal) or model == "vgg13":
        return None
    return AugLocal(depth=rule.depth, fidelity="paper")


def recipes() -> Iterator[Recipe]:
    """All rows of Tables 1 to 13."""
    table = _table(1, trials=3)
    for model, rows in TABLE1.items():
        for name, text in rows.items():
            label, rule = method_of(name, model)
            for data, accuracy in zip(("cifar10", "svhn", "stl10"), text.split(), strict=True):
                yield table.row(small_images(data, model, rule), name, label, {Quantity.ACCURACY: accuracy})
    table = _table(2, trials=3)
    for name, text in TABLE2.items():
        label, rule = method_of(name, "cifar-vgg19")
        for data, accuracy in zip(("cifar10", "svhn"), text.split(), strict=True):
            yield table.row(small_images(data, "cifar-vgg19", rule), name, label, {Quantity.ACCURACY: accuracy})
    table = _table(3)
    for model, rows in TABLE3.items():
        for name, (top1, top5) in rows.items():
            label, rule = method_of(name, model)
            numbers = {Quantity.TOP1_ACCURACY: str(top1), Quantity.TOP5_ACCURACY: str(top5)}
            yield table.row(_imagenet(model, rule), name, label, numbers, paper_rule=in_text(rule, model))
    table = _table(4)
    for model, rows in TABLE4.items():
        for name, memory in rows.items():
            label, rule = method_of(name, model)
            settings = _imagenet(model, rule, batch=1024) if model in IMAGENET else _resnet110(rule, model)
            numbers = {Quantity.MEMORY: str(memory)}
            yield table.row(settings, name, label, numbers, paper_rule=in_text(rule, model))
    yield from _of_depths(_table(5, trials=3), TABLE5, range(2, 10), _strategy)
    table = _table(6)
    for name in ("predsim", "infopro", "dgl", "auglocal-d2"):
        label, rule = method_of(name, "resnet110")
        yield table.row(_resnet110(rule), name, label, {}, note="The table describes auxiliary networks.")
    table = _table(7, trials=3)
    for name, columns in TABLE7.items():
        label, rule = method_of(name, "resnet110")
        quantities = (Quantity.MACS, Quantity.MEMORY, Quantity.TIME, Quantity.ACCURACY)
        numbers = {quantity: text for quantity, text in zip(quantities, columns, strict=True) if text is not None}
        yield table.row(_resnet110(rule), name, label, numbers)
    table = _table(8, trials=3)
    for model, text in TABLE8.items():
        for name, accuracy in zip(("bp", *(f"auglocal-d{d}" for d in range(3, 7))), text.split(), strict=True):
            label, rule = method_of(name, model)
            yield table.row(small_images("cifar10", model, rule), name, label, {Quantity.ACCURACY: accuracy})
    yield from _of_depths(_table(9, trials=3), TABLE9, DEPTHS, _at_equal_cost)
    table = _table(10, trials=3)
    for (row, (label, accuracy)), rule in zip(TABLE10.items(), table10().values(), strict=True):
        yield table.row(_resnet110(rule), row, label, {Quantity.ACCURACY: accuracy})
    table = _table(11)
    yield table.row(_resnet110(BP()), "bp", "BP (caption)", {Quantity.MACS: "0.25"})
    for depth, text in TABLE11.items():
        for tau, macs in zip((1.0, 0.9, 0.8, 0.7, 0.6), text.split(), strict=True):
            settings = _resnet110(AugLocal(depth=depth, tau=tau))
            yield table.row(settings, f"d{depth}-tau{tau:g}", f"d = {depth}, tau = {tau:g}", {Quantity.MACS: macs})
    table = _table(12)
    for name, text in TABLE12.items():
        rule = method_of(name, "resnet34")[1]
        quantities = (*(q for q in Quantity if q.title.startswith(("box", "mask"))),)
        numbers = dict(zip(quantities, text.split(), strict=True))
        note = "Trained on ImageNet, then Mask R-CNN on COCO: AdamW, 12 epochs, batch 16."
        label = "BP" if name == "bp" else "AugLocal"
        as_printed = in_text(rule, "resnet34")
        yield table.row(
            _imagenet("resnet34", rule),
            name,
            label,
            numbers,
            detection=DetectSettings(),
            paper_rule=as_printed,
            note=note,
        )
    yield from _of_depths(_table(13, trials=3), TABLE13, range(2, 10), _loss)


def _table(number: int, trials: int = 1) -> PaperTable:
    return PaperTable(paper="AugLocal", number=str(number), trials=trials)


def _resnet110(rule: Rule, model: str = "resnet110") -> TrainSettings:
    return small_images("cifar10", model, rule)


def _imagenet(model: str, rule: Rule, batch: int | None = None) -> TrainSettings:
    lr, usual, epochs = IMAGENET[model]
    return imagenet(model, rule, lr=lr, batch=batch or usual, epochs=epochs)


def _of_depths(
    table: PaperTable, rows: Mapping[str, str], depths: range, method: Callable[[str, int], tuple[Rule, str]]
) -> Iterator[Recipe]:
    """Rows of ResNet-110 on CIFAR-10, whose columns are depths.

    Args:
        table: the table.
        rows: accuracies by strategy.
        depths: of the columns.
        method: gives the rule of a strategy and a depth, and why the library cannot run it, or "".
    """
    for name, text in rows.items():
        for depth, accuracy in zip(depths, text.split(), strict=True):
            rule, missing = method(name, depth)
            numbers, label = {Quantity.ACCURACY: accuracy}, f"{PRINTED[name]} (d = {depth})"
            yield table.row(_resnet110(rule), f"{name}-d{depth}", label, numbers, missing=missing)


def _strategy(name: str, depth: int) -> tuple[Rule, str]:
    """Table 5."""
    rule: Rule = {
        "uniform": AugLocal(depth=depth),
        "sequential": SequentialAugLocal(depth=depth),
        "repetitive": RepetitiveAugLocal(depth=depth),
        "c1x1": ConvolutionalAugLocal(depth=depth, kernel=1),
        "c3x3": ConvolutionalAugLocal(depth=depth, kernel=3),
    }[name]
    return rule, ""


def _at_equal_cost(name: str, depth: int) -> tuple[Rule, str]:
    """Table 9. DGL's cells are those of C3x3 in Table 5, so its heads are; the paper describes no others."""
    heads = ConvolutionalAugLocal(depth=depth, kernel=3)
    rule: Rule = {
        "auglocal": AugLocal(depth=depth),
        "dgl": heads,
        "predsim": PredSim(),
        "infopro": _with_infopro(heads),
    }[name]
    unknown = "no rule adds similarity matching to a head of convolutions, and the paper gives no settings of one"
    return rule, unknown if name == "predsim" else ""


def _loss(name: str, depth: int) -> tuple[Rule, str]:
    """Table 13."""
    rule = AugLocal(depth=depth)
    return (rule if name == "cross-entropy" else _with_infopro(rule)), ""


def _with_infopro(rule: Rule) -> Rule:
    """A rule with InfoPro's loss on ResNet-110; its weights there are not published, so they are InfoPro's own."""
    weights = InfoPro.published("auglocal-resnet110")
    return InfoProLoss(rule, lambda1=weights.lambda1, lambda2=weights.lambda2)
