"""torchvision and timm, imported where they are used."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from types import ModuleType

import torch

from locallearn._utils.optional_imports import optional


@cache
def import_torchvision() -> ModuleType:
    """Import torchvision and its models, also where its compiled operators do not fit the installed PyTorch.

    A torchvision built for another PyTorch fails at its import, because operators that it describes are missing. This
    declares the schemas of two of them, so that models, transforms and data sets work. Operators on regions, which
    detection needs, come from `detection.region_operators`; those of other kinds fail when they are used.

    Raises:
        LocalLearnError: torchvision is not installed.
    """
    try:
        return _imported()
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    for operator in ("nms", "qnms"):
        declared_operators().define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return _imported()


def import_timm() -> ModuleType:
    """Import timm, which imports torchvision.

    Raises:
        LocalLearnError: one of them is not installed.
    """
    import_torchvision()
    return optional("timm", extra="vision")


def _imported() -> ModuleType:
    found = optional("torchvision", extra="vision")
    import_module("torchvision.models")
    return found


@cache
def declared_operators() -> torch.library.Library:
    """Torchvision's operators that are declared here."""
    return torch.library.Library("torchvision", "DEF")
