"""An `nn.Sequential` as layers and a classifier."""

from __future__ import annotations

from torch import nn

from locallearn._nn.layer_types import NORMS, POOLS
from locallearn._utils.errors import LocalLearnError


def split_sequential(model: nn.Sequential) -> tuple[dict[str, nn.Module], nn.Module]:
    """Layers by name of their first child, and the classifier.

    A layer starts at each child with weights of its own; normalisations, activations and other children without
    parameters join the layer before them (the first layer, where they come first). The classifier starts at the
    trailing pool or flatten, else at the last linear child.
    """
    children = [(name, child) for name, child in model._modules.items() if child is not None]  # also a child used twice
    weighted = [i for i, (_, child) in enumerate(children) if _starts_layer(child)]
    if not weighted:
        raise LocalLearnError("this nn.Sequential has no child with weights: nothing to train.")
    start = _classifier_start(children, weighted)
    firsts = [i for i in weighted if i < start]
    bounds = [*firsts[1:], start]
    begin, layers = 0, {}
    for first, end in zip(firsts, bounds, strict=False):
        layers[children[first][0]] = nn.Sequential(*(child for _, child in children[begin:end]))
        begin = end
    return layers, nn.Sequential(*(child for _, child in children[start:]))


def _classifier_start(children: list[tuple[str, nn.Module]], weighted: list[int]) -> int:
    linear = [i for i in weighted if isinstance(children[i][1], nn.Linear)]
    if not linear or linear[-1] != weighted[-1]:
        # no linear output, a fully convolutional head say: the classifier starts at the trailing pool, if there is one
        tail = [i for i in range(weighted[-1] + 1, len(children)) if _reshapes(children[i][1])]
        return tail[0] if tail else weighted[-1]
    last_other = max((i for i in weighted if i not in linear), default=-1)
    tail = [i for i in range(last_other + 1, linear[-1]) if _reshapes(children[i][1])]
    if tail and any(i < tail[0] for i in weighted):
        return tail[0]
    return linear[-1]


def _starts_layer(child: nn.Module) -> bool:
    return not isinstance(child, (*NORMS, nn.PReLU)) and any(True for _ in child.parameters())


def _reshapes(child: nn.Module) -> bool:
    return isinstance(child, (*POOLS, nn.Flatten))
