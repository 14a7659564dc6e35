"""Which later layers a leap chain copies: the published tables of MLAAN, and a rule for any network."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from locallearn._chain.chain import TracedChain

_Leaps = Mapping[range, str]

_RESNET32_8: _Leaps = {
    range(2): "2.0 3.0 3.2 3.4",
    range(2, 3): "2.0 3.0 3.3 3.4",
    range(3, 5): "3.0 3.2 3.3 3.4",
    range(5, 6): "3.2 3.3 3.4",
    range(6, 7): "3.3 3.4",
}
_RESNET32_15: _Leaps = {
    range(2): "2.0 3.0 3.2 3.4",
    range(2, 3): "2.0 3.0 3.3 3.4",
    range(3, 4): "2.0 3.0 3.2 3.4",
    range(4, 5): "2.0 3.0 3.3 3.4",
    range(5, 10): "3.0 3.2 3.3 3.4",
    range(10, 11): "3.1 3.2 3.4",
    range(11, 12): "3.2 3.3 3.4",
    range(12, 13): "3.3 3.4",
    range(13, 14): "3.4",
}
_RESNET110_32: _Leaps = {
    range(11): "2.0 3.0 3.2 3.17",
    range(11, 21): "3.0 3.2 3.3 3.17",
    range(21, 22): "3.0 3.3 3.4 3.17",
    range(22, 26): "3.8 3.17",
    range(26, 28): "3.14 3.17",
    range(28, 29): "3.15 3.17",
    range(29, 30): "3.16 3.17",
    range(30, 31): "3.17",
}
_RESNET110_54: _Leaps = {
    range(18): "2.0 3.0 3.2 3.17",
    range(18, 35): "3.0 3.2 3.3 3.17",
    range(35, 36): "3.0 3.3 3.4 3.17",
    range(36, 43): "3.8 3.17",
    range(43, 47): "3.14 3.17",
    range(47, 49): "3.15 3.17",
    range(49, 52): "3.16 3.17",
    range(52, 53): "3.17",
}
_RESNET34_16: _Leaps = {
    range(3): "2.0 2.1 3.0 4.0 4.2",
    range(3, 7): "2.1 3.0 4.0 4.2",
    range(7, 13): "3.1 4.0 4.1",
    range(13, 14): "4.1 4.1 4.2",
    range(14, 15): "4.1 4.2",
}
_RESNET101_33: _Leaps = {
    range(3): "2.0 3.0 4.0 4.2",
    range(3, 7): "3.0 4.0 4.1",
    range(7, 30): "4.0 4.1",
    range(30, 32): "4.1 4.2",
}
_RESNET152_50: _Leaps = {
    range(3): "2.0 3.0 4.0 4.2",
    range(3, 11): "3.0 4.0 4.1",
    range(11, 47): "4.0 4.1",
    range(47, 49): "4.1 4.2",
}
_TABLES = {
    ("layer3.4", 16, 8): _RESNET32_8,
    ("layer3.4", 16, 15): _RESNET32_15,
    ("layer3.17", 55, 32): _RESNET110_32,
    ("layer3.17", 55, 54): _RESNET110_54,
    ("layer4.2", 17, 16): _RESNET34_16,
    ("layer4.2", 34, 33): _RESNET101_33,
    ("layer4.2", 51, 50): _RESNET152_50,
}
"""By last layer, number of layers and number of modules. Source: MLAAN, official code, `configAuxPlus_new.py` and, for
ImageNet, `configAux_new.py`, where some lists hold blocks that do not lie behind the module: there the general rule
stands in."""


def published_leap(chain: TracedChain, layer: int, module: int, modules: int) -> list[int] | None:
    """The published chain of a module that ends with `layer`, as indices of layers.

    None where there is no table, or its copies do not fit each other since the modules are others.
    """
    table = _TABLES.get((chain.names[-1], len(chain), modules), {})
    found = next((blocks for span, blocks in table.items() if module in span), None)
    if found is None:
        return None
    leap = [chain.names.index(f"layer{block}") for block in found.split()]
    before = [layer, *leap]
    fits = all(here < later and chain.shapes[here] == chain.shapes[later - 1] for here, later in pairwise(before))
    return leap if fits else None


def general_leap(chain: TracedChain, layer: int, length: int) -> list[int]:
    """A chain for any network: every later layer that changes the shape, so that copies fit each other, and more.

    The rest up to `length` is spread evenly over the layers behind the last of those, and ends with the network's last.
    """
    last = len(chain) - 1
    changes = [i for i in range(layer + 1, last + 1) if chain.shapes[i] != chain.shapes[i - 1]]
    begin = changes[-1] if changes else layer
    count = min(max(length - len(changes), 1), last - begin)
    return changes + [begin + round((last - begin) * i / count) for i in range(1, count + 1)]
