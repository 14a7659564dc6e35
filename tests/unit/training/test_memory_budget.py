"""A run that asks for a budget of memory keeps it, or does not begin."""

from __future__ import annotations

import pytest
from small_runs import settings

import locallearn as ll
from locallearn.training import AdamW, train

KIB = 1024


@pytest.mark.parametrize(
    ("modules", "changes", "sentence"),
    [
        (
            "memory:1GiB@32",
            {"batch": 64},
            r"is for 32 images at a time, and this run has 64 \(.*: write memory:1GiB@64\.",
        ),
        ("memory:1GiB@32", {"accumulate": 2}, r"has 16 \(batch 32, accumulate 2\): write memory:1GiB@16\."),
        (
            "memory:1372KiB@32",
            {"optimizer": AdamW()},
            r"a step needs .* --optimizer locallearn.training.AdamW .* 1372KiB",
        ),
        ("memory:1372KiB@32", {"ema": 0.9}, "a step needs .* MiB. To find settings that fit: locallearn plan "),
    ],
)
def test_a_run_whose_step_is_not_that_of_the_budget_is_refused(modules, changes, sentence, tmp_path):
    with pytest.raises(ll.LocalLearnError, match=sentence):
        train(settings(model="small_runs.plain", rule=ll.Pooling(), modules=modules, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_its_budget(tmp_path):
    result = train(
        settings(model="small_runs.plain", rule=ll.Pooling(), modules="memory:1372KiB@32", epochs=1), tmp_path / "run"
    )
    assert result["peak_total_bytes"] <= 1372 * KIB
