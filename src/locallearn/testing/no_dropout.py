"""Dropout switched off: the checks compare steps that would draw random numbers in another order."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from locallearn.testing.case import Case

Check = Callable[[Case], None]

_DROPOUT = {
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout),
    *(torch.dropout, torch.feature_dropout, torch.alpha_dropout, torch.feature_alpha_dropout),
}


class _NoDropout(TorchFunctionMode):
    """While active, functions of dropout return their input; so do the modules, which call them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUT:
            return args[0] if args else kwargs["input"]
        return func(*args, **kwargs)


def without_dropout(check: Check) -> Check:
    """The check, in which functions of dropout return their input."""

    @wraps(check)
    def run(case: Case) -> None:
        with _NoDropout():
            check(case)

    return run
