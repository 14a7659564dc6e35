"""The papers' splits of ResNets, as data: the last layer of each local module but the final one.

Sources: InfoPro's official code (`networks/configs.py`), whose names here are `infopro-K` and, balanced by memory,
`infopro-balanced-K` and `infopro-balanced-stl-K`; the official code of HPFF, MAN and MLAAN (`config.py`), `hpff-K`,
where the stem belongs to the first module, so that `hpff-16` has 15 modules and `hpff-55` has 54; that of MAN++,
`man++-K`, which has the same modules after the stem as a module of its own, so that `man++-8` has 9.

For ImageNet: InfoPro's (`infopro-2`; of ResNeXt-101, whose layers have the names of ResNet-101's, `infopro-resnext-2`),
HPFF's, MAN's and that of its successor MAN++, in all of which the stem belongs to the first module too, and MLAAN's,
every block a module, which the paper counts with the stem: `mlaan-17`, `mlaan-34` and `mlaan-51` have one less.
"""

from __future__ import annotations

from collections.abc import Sequence

from locallearn._utils.errors import LocalLearnError, did_you_mean

_Blocks = dict[int, Sequence[int]]
_STEM: _Blocks = {0: [0]}
_THIRDS = (1, 2, 4, 5, 7, 9, 11, 13, 14, 16, 17)

_RESNET32: dict[str, _Blocks] = {
    "infopro-2": {2: [1]},
    "infopro-3": {1: [4], 2: [4]},
    "infopro-4": {1: [2], 2: [1], 3: [0]},
    "infopro-8": {1: [0, 2, 4], 2: [1, 3], 3: [0, 2]},
    "infopro-16": {0: [0], 1: range(5), 2: range(5), 3: range(4)},
    "hpff-2": {2: [1]},
    "hpff-3": {1: [4], 2: [4]},
    "hpff-4": {1: [2], 2: [1], 3: [0]},
    "hpff-8": {1: [0, 2, 4], 2: [1, 3], 3: [0, 2]},
    "hpff-16": {1: range(5), 2: range(5), 3: range(4)},
}
_RESNET32 |= {f"man++-{K}": _STEM | _RESNET32[f"hpff-{K}"] for K in (8, 16)}
_RESNET110: dict[str, _Blocks] = {
    "infopro-2": {2: [8]},
    "infopro-3": {1: [17], 2: [17]},
    "infopro-4": {1: [11], 2: [7], 3: [3]},
    "infopro-8": {1: [4, 11], 2: [0, 7, 14], 3: [3, 10]},
    "infopro-16": {1: [1, 4, 7, 10, 13, 16], 2: [1, 4, 7, 11, 15], 3: [1, 5, 9, 13]},
    "infopro-balanced-2": {1: [14]},
    "infopro-balanced-3": {1: [9], 2: [2]},
    "infopro-balanced-4": {1: [6, 14], 2: [8]},
    "infopro-balanced-stl-2": {1: [14]},
    "infopro-balanced-stl-3": {1: [8], 2: [1]},
    "infopro-balanced-stl-4": {1: [6, 14], 2: [8]},
    "hpff-2": {2: [8]},
    "hpff-3": {1: [17], 2: [17]},
    "hpff-4": {1: [11], 2: [7], 3: [3]},
    "hpff-8": {1: [4, 11], 2: [0, 7, 14], 3: [3, 10]},
    "hpff-16": {1: [1, 4, 7, 10, 13, 16], 2: [1, 4, 7, 11, 15], 3: [1, 5, 9, 13]},
    "hpff-32": {1: _THIRDS, 2: _THIRDS, 3: [1, 3, 4, 6, 7, 9, 11, 13, 15]},
    "hpff-55": {1: range(18), 2: range(18), 3: range(17)},
}
_RESNET110 |= {f"man++-{K}": _STEM | _RESNET110[f"hpff-{K}"] for K in (32, 55)}
_HPFF4: _Blocks = {3: [0, 9, 17]}
_HPFF8: _Blocks = {2: [0], 3: [1, 5, 9, 13, 17, 21]}
_RESNET34: dict[str, _Blocks] = {"mlaan-17": {1: range(3), 2: range(4), 3: range(6), 4: range(2)}}
_RESNET50: dict[str, _Blocks] = {"hpff-4": {2: [0], 3: [0, 5]}, "man-2": {2: [0]}}
_RESNET101: dict[str, _Blocks] = {
    "infopro-2": {2: [0]},
    "infopro-resnext-2": {2: [2]},
    "hpff-4": _HPFF4,
    "hpff-8": _HPFF8,
    "man-2": {2: [0]},
    "man++-2": {2: [0]},
    "man++-4": {2: [2], 3: [8, 16]},
    "mlaan-34": {1: range(3), 2: range(4), 3: range(23), 4: range(2)},
}
_RESNET152: dict[str, _Blocks] = {
    "infopro-2": {2: [5]},
    "hpff-4": _HPFF4,
    "hpff-8": _HPFF8,
    "man-2": {2: [5]},
    "man++-2": {2: [5]},
    "man++-4": {2: [6], 3: [13, 25]},
    "mlaan-51": {1: range(3), 2: range(8), 3: range(36), 4: range(2)},
}
_TABLES = {
    ("layer3.4", 16): _RESNET32,
    ("layer3.17", 55): _RESNET110,
    ("layer4.2", 17): _RESNET34 | _RESNET50,  # their layers have the same names
    ("layer4.2", 34): _RESNET101,
    ("layer4.2", 51): _RESNET152,
}
_NETWORKS = {
    "resnet32": _RESNET32,
    "resnet110": _RESNET110,
    "resnet34": _RESNET34,
    "resnet50": _RESNET50,
    "resnet101": _RESNET101,
    "resnet152": _RESNET152,
}

SPLITS: dict[str, tuple[str, ...]] = {
    name: tuple(network for network, table in _NETWORKS.items() if name in table)
    for name in dict.fromkeys(name for table in _NETWORKS.values() for name in table)
}
"""Name of each published split to the networks that it is for."""


def published_split(name: str, layers: Sequence[str]) -> list[str]:
    """Names of the last layers of a published split's modules, for a network with these layers."""
    table = _TABLES.get((layers[-1], len(layers)), {})
    if name not in table:
        known = f"for this network, {did_you_mean(name, table)}" if table else "this network has no published splits."
        raise LocalLearnError(f"split {name!r} is for {' and '.join(SPLITS[name])}; {known}")
    return [
        "stem" if stage == 0 else f"layer{stage}.{block}" for stage, blocks in table[name].items() for block in blocks
    ]
