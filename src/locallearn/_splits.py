"""The papers' splits of CIFAR ResNets, as data: the last layer of each local module but the final one.

Sources: InfoPro's official code (`networks/configs.py`), whose names here are `infopro-K` and, balanced by memory,
`infopro-balanced-K` and `infopro-balanced-stl-K`; the official code of HPFF, MAN and MLAAN (`config.py`), `hpff-K`,
where the stem belongs to the first module, so that `hpff-16` has 15 modules and `hpff-55` has 54.
"""

from __future__ import annotations

from collections.abc import Sequence

from locallearn._errors import LocalLearnError, did_you_mean

_Blocks = dict[int, Sequence[int]]
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
_TABLES = {("layer3.4", 16): _RESNET32, ("layer3.17", 55): _RESNET110}

SPLITS: dict[str, tuple[str, ...]] = {
    name: tuple(network for network, table in (("resnet32", _RESNET32), ("resnet110", _RESNET110)) if name in table)
    for name in {**_RESNET32, **_RESNET110}
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
