"""PFF, one half of HPFF: Hierarchical Locally Supervised Learning with Patch Feature Fusion (Su et al., ECCV 2024)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, get_args

import torch
from torch import Tensor, nn

from locallearn._auxiliary import Auxiliary, Outputs
from locallearn._decoders import Reconstruction
from locallearn._ema import fresh_copy
from locallearn._errors import LocalLearnError, LocalLearnWarning, refuse_unknown
from locallearn._objectives import Site
from locallearn._recompute import Recomputed
from locallearn.rules._rule import Fidelity
from locallearn.rules._wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class PFF(Wrapper):
    r"""Any rule, its auxiliary networks applied patch by patch.

    Where the paper (section 3.3, Eq. 6-7) and the official code (`network/auxiliary_net.py`) differ:

    ================ =========================================== ===============================================
    \                `fidelity="official"`                       `fidelity="paper"`
    ================ =========================================== ===============================================
    what is patched  decoders; a rule without any stays as it    whole auxiliary networks
                     is, with a warning
    parameters       a decoder of its own for each patch         one network for all patches
    outputs          the losses of the patches are added         vectors are averaged; parts of the image are put
                                                                 together, so that each pixel counts once
    memory           all patches at once                         one patch at once, computed twice
    ================ =========================================== ===============================================

    Batch normalisation sees each patch as a batch. Patch borders lie at floor(i * size / n), of features and image
    alike, so odd sizes work (the official code fails on odd images). Features smaller than n x n, and vectors, are
    taken whole, with a warning.

    Args:
        patches: n, for n x n patches.
        fidelity: see the table.
    """

    does = frozenset({"cuts features into patches"})

    patches: int = 2
    fidelity: Fidelity = "official"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unknown("fidelity", self.fidelity, get_args(Fidelity))
        if self.patches < 1:
            raise LocalLearnError(f"{type(self).__name__}: patches={self.patches} must be at least 1.")

    def auxiliary(self, site: Site) -> Auxiliary:
        auxiliary = self.rule.auxiliary(site)
        if min(site.shape[1:]) < self.patches or site.is_vector:
            _say(f"PFF takes features smaller than {self.patches} x {self.patches} whole.")
            return auxiliary
        if self.fidelity == "official":
            return self._official(auxiliary)
        for part in auxiliary.modules():
            if isinstance(part, Auxiliary) and type(part).outputs is Auxiliary.outputs:
                raise LocalLearnError(
                    f"PFF needs the outputs of an auxiliary network apart from its loss: give {type(part).__name__}"
                    " methods outputs() and loss_of() instead of forward()."
                )
        return Patchwise(auxiliary, self.patches)

    def _official(self, auxiliary: Auxiliary) -> Auxiliary:
        found = []

        def own_decoders(part: Auxiliary) -> Auxiliary:
            if not isinstance(part, Reconstruction):
                return part
            found.append(part)
            return ReconstructionOfPatches(part, self.patches)

        auxiliary = auxiliary.with_parts(own_decoders) or auxiliary
        if not found:
            _say(
                f"PFF as in the official code patches decoders alone, and {type(self.rule).__name__} has none: it"
                " changes nothing there. PFF as in the paper (fidelity='paper') patches every auxiliary network."
            )
        return auxiliary


class Patchwise(Auxiliary):
    """One auxiliary network for n x n patches: its outputs are averaged, or put together where they are images.

    Each patch is computed without keeping anything and once more in the backward pass, so that one is alive at a time.
    Its gradient is that of the average in one graph (Eq. 7).
    """

    def __init__(self, auxiliary: Auxiliary, patches: int) -> None:
        super().__init__()
        self.patches = patches
        self.recomputed = Recomputed(
            _OutputsOf(auxiliary), copy_input=True
        )  # of a patch, for convolutions like it dense

    @property
    def auxiliary(self) -> Auxiliary:
        """The network."""
        return self.recomputed.once.layer.auxiliary  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]

    def outputs(self, features: Tensor, images: Tensor) -> Outputs:
        pairs = zip(cut_once(features, self.patches), cut(images, self.patches), strict=True)
        return _fused([self.recomputed(patch, image) for patch, image in pairs], self.patches)

    def loss_of(self, outputs: Outputs, images: Tensor, labels: Tensor) -> Tensor:
        return self.auxiliary.loss_of(outputs, images, labels)

    def logits(self, features: Tensor) -> Tensor | None:
        found = [self.auxiliary.logits(patch.clone()) for patch in cut(features, self.patches)]
        return None if found[0] is None else torch.stack([x for x in found if x is not None]).mean(0)

    def with_parts(self, change: Callable[[Auxiliary], Auxiliary | None]) -> Auxiliary | None:
        changed = self.auxiliary.with_parts(change)
        return None if changed is None else Patchwise(changed, self.patches)


class ReconstructionOfPatches(Reconstruction):
    """A decoder for each patch of features, and the sum of their losses on the patches of the image."""

    def __init__(self, whole: Reconstruction, patches: int) -> None:
        super().__init__(whole.decoder, *(whole.get_buffer(name).flatten().tolist() for name in ("mean", "std")))
        self.patches = patches
        self.others = nn.ModuleList(fresh_copy(whole.decoder) for _ in range(patches**2 - 1))

    def outputs(self, features: Tensor, images: Tensor) -> Outputs:
        decoders = [self.decoder, *self.others]
        found = zip(decoders, cut(features, self.patches), cut(images, self.patches), strict=True)
        return tuple(decoder(patch, image.shape[2:]) for decoder, patch, image in found)

    def loss_of(self, outputs: Outputs, images: Tensor, labels: Tensor) -> Tensor:
        found = zip(outputs, cut(images, self.patches), strict=True)
        distances = [self.distance(output, image) for output, image in found if isinstance(output, Tensor)]
        return torch.stack(distances).sum()


class _OutputsOf(nn.Module):
    """An auxiliary network's outputs."""

    def __init__(self, auxiliary: Auxiliary) -> None:
        super().__init__()
        self.auxiliary = auxiliary

    def forward(self, features: Tensor, images: Tensor) -> Outputs:
        return self.auxiliary.outputs(features, images)


def borders(size: int, patches: int) -> list[int]:
    """Where patches begin and end."""
    return [index * size // patches for index in range(patches + 1)]


def places(maps: Tensor, patches: int) -> Iterator[tuple[slice, ...]]:
    """Where the n x n patches of maps (batch, channels, height, width) are, row by row."""
    height, width = maps.shape[2:]
    for top, bottom in pairwise(borders(height, patches)):
        for left, right in pairwise(borders(width, patches)):
            yield slice(None), slice(None), slice(top, bottom), slice(left, right)


def cut(maps: Tensor, patches: int) -> Iterator[Tensor]:
    """The patches, as views."""
    return (maps[place] for place in places(maps, patches))


def cut_once(maps: Tensor, patches: int) -> list[Tensor]:
    """The patches, each to be used once; their gradients are put into one tensor as they come.

    By slicing, each would become a tensor of the maps' whole size, and they would be added up.
    """
    gradient = _Gradient()
    return [_Patch.apply(maps, place, gradient, patches**2) for place in places(maps, patches)]


class _Gradient:
    """Of the maps, while its patches come."""

    def __init__(self) -> None:
        self.whole: Tensor | None = None
        self.patches = 0


class _Patch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, place: tuple[slice, ...], gradient: _Gradient, patches: int) -> Tensor:
        ctx.place, ctx.gradient, ctx.patches, ctx.shape = place, gradient, patches, maps.shape
        return maps[place]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        found: _Gradient = ctx.gradient
        if found.whole is None:
            found.whole = gradients[0].new_empty(ctx.shape)
        found.whole[ctx.place] = gradients[0]
        found.patches += 1
        if found.patches < ctx.patches:
            return None, None, None, None
        whole, found.whole, found.patches = found.whole, None, 0
        return whole, None, None, None


def _fused(outputs: Sequence[Outputs], patches: int) -> Outputs:
    """The outputs of all patches as one: images put together, all else averaged."""
    first = outputs[0]
    if not isinstance(first, Tensor):
        return tuple(_fused(parts, patches) for parts in zip(*outputs, strict=True))
    tensors = [output for output in outputs if isinstance(output, Tensor)]
    if first.dim() == 2:
        return torch.stack(tensors).mean(0)
    rows = [torch.cat(tensors[i : i + patches], dim=3) for i in range(0, len(tensors), patches)]
    return torch.cat(rows, dim=2)


def _say(sentence: str) -> None:
    warnings.warn(sentence, LocalLearnWarning, stacklevel=2)
