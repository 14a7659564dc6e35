"""Which later layers a leap chain copies: the published tables of MLAAN, and a rule for any network.

Source: MLAAN, official code, `configAuxPlus_new.py` (ResNet-32 and -110) and `configAux_new.py` (ImageNet). A row has
modules, counted from 0, and the blocks of their chain as stage.block: `2.0` is `layer2.0`. Some rows for ImageNet name
blocks that are not after the module; there `published_leap` gives none, and `general_leap` takes their place.
"""

from __future__ import annotations

from itertools import pairwise

from locallearn._chain.chain import TracedChain

_TABLES = {  # by last layer, number of layers and number of modules
    # ResNet-32
    ("layer3.4", 16, 8): {
        (0, 1): "2.0 3.0 3.2 3.4",
        (2, 2): "2.0 3.0 3.3 3.4",
        (3, 4): "3.0 3.2 3.3 3.4",
        (5, 5): "3.2 3.3 3.4",
        (6, 6): "3.3 3.4",
    },
    # ResNet-32
    ("layer3.4", 16, 15): {
        (0, 1): "2.0 3.0 3.2 3.4",
        (2, 2): "2.0 3.0 3.3 3.4",
        (3, 3): "2.0 3.0 3.2 3.4",
        (4, 4): "2.0 3.0 3.3 3.4",
        (5, 9): "3.0 3.2 3.3 3.4",
        (10, 10): "3.1 3.2 3.4",
        (11, 11): "3.2 3.3 3.4",
        (12, 12): "3.3 3.4",
        (13, 13): "3.4",
    },
    # ResNet-110
    ("layer3.17", 55, 32): {
        (0, 10): "2.0 3.0 3.2 3.17",
        (11, 20): "3.0 3.2 3.3 3.17",
        (21, 21): "3.0 3.3 3.4 3.17",
        (22, 25): "3.8 3.17",
        (26, 27): "3.14 3.17",
        (28, 28): "3.15 3.17",
        (29, 29): "3.16 3.17",
        (30, 30): "3.17",
    },
    # ResNet-110
    ("layer3.17", 55, 54): {
        (0, 17): "2.0 3.0 3.2 3.17",
        (18, 34): "3.0 3.2 3.3 3.17",
        (35, 35): "3.0 3.3 3.4 3.17",
        (36, 42): "3.8 3.17",
        (43, 46): "3.14 3.17",
        (47, 48): "3.15 3.17",
        (49, 51): "3.16 3.17",
        (52, 52): "3.17",
    },
    # ResNet-34
    ("layer4.2", 17, 16): {
        (0, 2): "2.0 2.1 3.0 4.0 4.2",
        (3, 6): "2.1 3.0 4.0 4.2",
        (7, 12): "3.1 4.0 4.1",
        (13, 13): "4.1 4.1 4.2",
        (14, 14): "4.1 4.2",
    },
    # ResNet-101
    ("layer4.2", 34, 33): {
        (0, 2): "2.0 3.0 4.0 4.2",
        (3, 6): "3.0 4.0 4.1",
        (7, 29): "4.0 4.1",
        (30, 31): "4.1 4.2",
    },
    # ResNet-152
    ("layer4.2", 51, 50): {
        (0, 2): "2.0 3.0 4.0 4.2",
        (3, 10): "3.0 4.0 4.1",
        (11, 46): "4.0 4.1",
        (47, 48): "4.1 4.2",
    },
}
"""Rows: first and last module, and the blocks of their leap chain."""


def published_leap(chain: TracedChain, layer: int, module: int, modules: int) -> list[int] | None:
    """The published chain of a module that ends with `layer`, as indices of layers.

    None where there is no table, or where its copies do not fit each other, because the modules are others.
    """
    table = _TABLES.get((chain.names[-1], len(chain), modules), {})
    for (first, last), blocks in table.items():
        if first <= module <= last:
            leap = [chain.names.index(f"layer{block}") for block in blocks.split()]
            steps = pairwise([layer, *leap])
            fits = all(before < after and chain.shapes[before] == chain.shapes[after - 1] for before, after in steps)
            return leap if fits else None
    return None


def general_leap(chain: TracedChain, layer: int, length: int) -> list[int]:
    """A chain for any network: every later layer that changes the shape, so that copies fit each other, and more.

    The rest, up to `length`, is spread evenly over the layers after the last of those, the network's last included.
    """
    last = len(chain) - 1
    changes = [i for i in range(layer + 1, last + 1) if chain.shapes[i] != chain.shapes[i - 1]]
    begin = changes[-1] if changes else layer
    count = min(max(length - len(changes), 1), last - begin)
    return changes + [begin + round((last - begin) * i / count) for i in range(1, count + 1)]
