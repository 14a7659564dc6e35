"""torchvision and timm, imported where they are used."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from types import ModuleType

import torch

from locallearn._imports import optional
from locallearn._regions import nms, roi_align


@cache
def import_torchvision() -> ModuleType:
    """Import torchvision and its models, also where its compiled operators do not fit the installed PyTorch.

    A torchvision built for another PyTorch fails at its import, because operators that it describes are missing. Their
    schemas are then declared here; non-maximum suppression and RoIAlign get stand-ins for the CPU, written in PyTorch,
    so that models, detection, transforms and data sets work. Operators of other kinds fail when they are used.

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
    _declared().impl("nms", nms, "CPU")
    found = _imported()
    sys.modules["torchvision.ops.boxes"].__dict__["_assert_has_ops"] = lambda: None  # it asks for all or none
    # torchvision's own stand-in must be compiled first, and takes memory for each region as for the largest one
    sys.modules["torchvision.ops.roi_align"].__dict__["_roi_align"] = roi_align
    return found


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
