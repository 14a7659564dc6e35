"""torchvision and timm, imported where they are used."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from types import ModuleType

import torch

from locallearn._imports import optional


@cache
def import_torchvision() -> ModuleType:
    """Import torchvision and its models, also where its compiled operators do not fit the installed PyTorch.

    A torchvision built for another PyTorch fails at its import, because operators that it describes are missing. Their
    schemas are then declared here, without an implementation: models, transforms and data sets work, and what needs
    the operators (non-maximum suppression) fails when it is used.

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
        _declared().define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
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
def _declared() -> torch.library.Library:
    return torch.library.Library("torchvision", "DEF")
