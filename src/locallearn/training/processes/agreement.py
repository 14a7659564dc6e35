"""What the processes of a run must have in common, checked before anything is trained."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch

import locallearn
from locallearn._utils.errors import LocalLearnError
from locallearn.data import Batches, OrderedBatches, TensorBatches
from locallearn.parallel.agreement import first_difference
from locallearn.training.processes.processes import Processes

_OWN = {"data_dir", "workers", "loggers"}
"""Settings in which processes may differ."""


def facts_of(settings: Any) -> dict[str, str]:
    """Versions and settings, by their names."""
    versions = {module.__name__: module.__version__ for module in (locallearn, torch, np)}
    values = {field.name: repr(getattr(settings, field.name)) for field in fields(settings) if field.name not in _OWN}
    return {"python": platform.python_version(), **versions, **values}


def digest(batches: Batches) -> str:
    """The SHA-256 of a split: of its labels in their order, and of its images where these are in memory.

    Batches that cannot be cut among processes have none.
    """
    if not isinstance(batches, OrderedBatches):
        return type(batches).__name__
    content = hashlib.sha256(np.ascontiguousarray(batches.labels).data)
    if isinstance(batches, TensorBatches):
        content.update(np.ascontiguousarray(batches.images).data)
    return content.hexdigest()


def refuse_uncut(batches: Batches, data: str) -> None:
    """Refuse batches of a user's own class, of which every process would read the whole.

    Raises:
        LocalLearnError: names the class.
    """
    if not isinstance(batches, OrderedBatches):
        raise LocalLearnError(
            f"{data} makes its batches by {type(batches).__name__}, which cannot be cut among processes: derive it from"
            " locallearn.data.OrderedBatches."
        )


def refuse_differences(processes: Processes, facts: Mapping[str, str]) -> None:
    """Refuse processes that differ in settings, data or versions.

    Raises:
        LocalLearnError: on every process; names the first difference.
    """
    if difference := first_difference(processes.of_all(facts)):
        rank, name, here, there = difference
        raise LocalLearnError(
            f"process {rank} has another {name} than process 0: {here or 'none'}, not {there or 'none'}. Give all"
            " processes the same settings, data and versions."
        )
