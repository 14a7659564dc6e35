"""For auxiliary networks that look ahead: the stage of a layer, and copies of later layers.

A copy takes the features of its site, with the prefix tokens that these carry.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from torch import nn

from locallearn._chain.chain import TracedChain
from locallearn._chain.local_module import LocalModule
from locallearn._nn.ema import EmaCopy, parameters_to_buffers
from locallearn._nn.init import fresh_copy, trainable_copy
from locallearn._objectives.objective import Site


def stage(chain: TracedChain, layer: int) -> int:
    """Number of a layer's stage, from 1: it rises where height or width shrinks."""
    sizes = [shape[1:] for shape in chain.shapes[: layer + 1]]
    return 1 + sum(after < before for before, after in pairwise(sizes))


def counted_by_stage(site: Site, layer: int) -> Site:
    """The site with the stage of a layer as its index in schedules (MAN and MLAAN, official code).

    Where a weight would turn negative, the index of the module stays.
    """
    by_stage = replace(site, schedule_index=stage(site.chain, layer))
    return by_stage if by_stage.progress <= 1 else site


def site_after(site: Site, layer: int) -> Site:
    """The site of the same module, but after a later layer; reduced features stay reduced."""
    if site.reduced is None:
        return replace(site, layer=layer)
    before, (width, *after) = site.chain.shapes[site.layer], site.chain.shapes[layer]
    height, length = (-(-side * new // old) for side, old, new in zip(site.reduced[1:], before[1:], after, strict=True))
    return replace(site, layer=layer, reduced=(width, height, length))


def fresh_like(site: Site, layer: int) -> nn.Module:
    """A copy of a later layer, newly initialised."""
    return _safe(site, layer, fresh_copy(site.chain.layers[layer]))


def trainable_like(site: Site, layer: int) -> nn.Module:
    """A trainable copy of a later layer that starts with its weights."""
    return _safe(site, layer, trainable_copy(site.chain.layers[layer]))


def ema_copy(site: Site, layer: int, momentum: float, *, fresh: bool) -> nn.Module:
    """An EMA copy of a later layer; it starts with the layer's weights, or newly initialised if `fresh`."""
    source = site.chain.layers[layer]
    start = parameters_to_buffers(fresh_copy(source) if fresh else trainable_copy(source))
    return _safe(site, layer, EmaCopy(start, source, momentum))


def trainable_ema_copy(site: Site, layer: int, momentum: float, *, fresh: bool) -> nn.Module:
    """An EMA copy of a later layer that is trained too; it starts as `ema_copy` does."""
    source = site.chain.layers[layer]
    return _safe(site, layer, EmaCopy(fresh_copy(source) if fresh else trainable_copy(source), source, momentum))


def _safe(site: Site, layer: int, copied: nn.Module) -> nn.Module:
    """Copies share their input, so one that writes on its input gets a clone of it; all take and return maps."""
    module = LocalModule([copied], begins_in_place=True) if site.chain.begins_in_place[layer] else copied
    return site.chain.on_maps(layer, module, prefix=site.prefix)
