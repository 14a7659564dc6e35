"""Batches that can or cannot be cut among processes and into micro-batches."""

from __future__ import annotations

from typing import Any

import pytest

from locallearn import LocalLearnError
from locallearn.training.processes.parts import drops_single_image


def drops(count: int, batch: int, **changes: Any) -> bool:
    return drops_single_image(count, batch, **({"processes": 1, "micro_batches": 1, "needs_several": "head"} | changes))


def test_a_last_single_image_is_left_out_where_a_part_needs_several():
    assert drops(33, 16)
    assert drops(33, 16, processes=4)
    assert not drops(33, 16, needs_several=None)
    assert not drops(34, 16)


@pytest.mark.parametrize(
    ("count", "batch", "changes", "told"),
    [
        (33, 16, {"processes": 2, "needs_several": None}, "the last batch of 1 image cannot be cut among 2 processes"),
        (35, 16, {"processes": 4, "needs_several": None}, "the last batch of 3 images cannot be cut among 4 processes"),
        (32, 2, {"processes": 4, "needs_several": None}, "a batch of 2 images cannot be cut among 4 processes"),
        (32, 4, {"processes": 4}, "in 1 part for each of 4 processes leaves a single image in one, but head"),
        (32, 16, {"processes": 4, "micro_batches": 3}, "a batch of 16 images in 3 parts for each of 4 processes"),
        (32, 16, {"micro_batches": 16}, "a batch of 16 images in 16 parts leaves a single image"),
        (
            71,
            64,
            {"processes": 2, "micro_batches": 4, "needs_several": None, "synchronised": True},
            "a batch of 7 images among 2 processes makes 3 micro-batches in some and 4 in others",
        ),
    ],
)
def test_other_batches_that_cannot_be_cut_are_refused(count, batch, changes, told):
    with pytest.raises(LocalLearnError, match=told):
        drops(count, batch, **changes)
