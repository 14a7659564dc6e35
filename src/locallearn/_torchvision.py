"""Importing torchvision, over a PyTorch too that its compiled operators were not built for."""

from __future__ import annotations

from types import ModuleType

import torch

from locallearn._imports import optional

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """torchvision, or the error that names the `pip install` line.

    Where its compiled operators do not fit the installed PyTorch (a CUDA build over a CPU one), they are not loaded and
    the import fails for want of their schemas; declared beforehand, models, transforms and data sets work.
    """
    try:
        return optional("torchvision", extra="vision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    _declare()
    return optional("torchvision", extra="vision")


def _declare() -> None:
    """Declare the operators that torchvision registers fake versions of; once."""
    if not _declared:
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _declared.append(library)
