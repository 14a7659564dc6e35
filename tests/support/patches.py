"""Patches of maps, and InfoPro's parts, for the tests of HPFF."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product

import torch
import torch.nn.functional as F
from torch import nn

import locallearn as ll
from locallearn._objectives.decoders import Decoder, Reconstruction
from networks import parts


def without_decoder(auxiliary: ll.Auxiliary) -> ll.Auxiliary:
    return auxiliary.with_parts(lambda part: None if isinstance(part, Reconstruction) else part)


@dataclass(frozen=True, kw_only=True)
class Heads(ll.InfoPro):
    """InfoPro's task heads alone."""

    head: str = "2c2f"

    def auxiliary(self, site):
        return without_decoder(super().auxiliary(site))


def cells(maps: torch.Tensor, n: int) -> list[torch.Tensor]:
    """The n x n patches, row by row."""
    rows, columns = ([i * size // n for i in range(n + 1)] for size in maps.shape[2:])
    return [maps[:, :, a:b, c:d] for (a, b), (c, d) in product(pairwise(rows), pairwise(columns))]


def restored(images: torch.Tensor) -> torch.Tensor:
    return (images * 0.25 + 0.5).clamp(0, 1)


def four_distances(auxiliary: nn.Module, features: torch.Tensor, images: torch.Tensor) -> list[torch.Tensor]:
    """Binary cross entropy of each quadrant after its own decoder, or after the only one."""
    decoders = parts(auxiliary, Decoder)
    found = zip(decoders * (4 // len(decoders)), cells(features, 2), cells(restored(images), 2), strict=True)
    return [
        F.binary_cross_entropy_with_logits(_decoded(decoder, part, image.shape[2:]), image)
        for decoder, part, image in found
    ]


def _decoded(decoder: nn.Module, part: torch.Tensor, size: torch.Size) -> torch.Tensor:
    first, large = decoder.first, F.interpolate(part, size, mode="bilinear", align_corners=True)
    return decoder.rest(F.conv2d(large, first.weight, first.bias, padding=1))
