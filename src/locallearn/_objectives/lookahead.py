"""What auxiliary networks that look ahead ask of a chain: the stage of a layer, and copies of later layers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from torch import nn

from locallearn._chain.chain import TracedChain
from locallearn._chain.local_module import LocalModule
from locallearn._nn.ema import EmaCopy, frozen
from locallearn._nn.init import fresh_copy, trainable_copy
from locallearn._objectives.objective import Site


def stage(chain: TracedChain, layer: int) -> int:
    """Number of a layer's stage, from 1: it rises where height or width shrinks."""
    sizes = [shape[1:] for shape in chain.shapes[: layer + 1]]
    return 1 + sum(after < before for before, after in pairwise(sizes))


def counted_by_stage(site: Site) -> Site:
    """The site with its stage in place of its index in schedules, as the official code of MAN and MLAAN has it.

    The stage is that of the layer behind the module. Where a weight would turn negative the index is kept.
    """
    found = replace(site, schedule_index=stage(site.chain, site.layer + 1))
    return found if found.progress <= 1 else site


def site_after(site: Site, layer: int) -> Site:
    """The place behind a later layer, for the same module."""
    return replace(site, layer=layer)


def fresh_like(site: Site, layer: int) -> nn.Module:
    """A layer like a later one, with first weights of its own."""
    return _safe(site, layer, fresh_copy(site.chain.layers[layer]))


def trainable_like(site: Site, layer: int) -> nn.Module:
    """A trainable copy of a later layer that starts with its weights."""
    return _safe(site, layer, trainable_copy(site.chain.layers[layer]))


def ema_copy(site: Site, layer: int, momentum: float, *, fresh: bool) -> nn.Module:
    """An EMA copy of a later layer, starting with first weights of its own or with the layer's."""
    source = site.chain.layers[layer]
    start = frozen(fresh_copy(source) if fresh else trainable_copy(source))
    return _safe(site, layer, EmaCopy(start, source, momentum))


def trainable_ema_copy(site: Site, layer: int, momentum: float) -> nn.Module:
    """A copy of a later layer that is trained and follows it besides."""
    source = site.chain.layers[layer]
    return _safe(site, layer, EmaCopy(fresh_copy(source), source, momentum))


def _safe(site: Site, layer: int, copied: nn.Module) -> nn.Module:
    """Several copies may see one input, so a layer that begins in place is given a copy of it; all see maps."""
    safe = LocalModule([copied], begins_in_place=True) if site.chain.begins_in_place[layer] else copied
    return site.chain.on_maps(layer, safe)
