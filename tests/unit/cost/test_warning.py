"""What is said where auxiliary networks outweigh the activations that a rule saves."""

from __future__ import annotations

from typing import Any

from small_runs import settings

import locallearn as ll
from locallearn.cli import main
from locallearn.cost import Candidate, PeakMemory, Plan
from locallearn.cost.warning import advice_of, warning_of
from locallearn.training import train


def test_cost_says_so(capsys):
    network = ["cost", "--model", "small_runs.little", "--image", "3x12x12", "--rule", "dgl"]
    assert main([*network, "--rule.units", "2048", "--batch", "2"]) == 0
    captured = capsys.readouterr()
    text = " ".join((captured.out + captured.err).split())
    assert "DGL takes" in text
    assert "times the memory of backpropagation: parameters" in text
    assert "--modules 4" in text
    assert main([*network, "--batch", "64"]) == 0
    captured = capsys.readouterr()
    assert "times the memory" not in captured.out + captured.err


def test_auxiliary_networks_are_not_blamed_where_activations_are_as_many():
    said = warning_of(ll.HiLo(ll.DGL()), PeakMemory(activations=9, total=12), PeakMemory(activations=8, total=11))
    assert said is not None
    assert "auxiliary" not in said
    assert "HiLo(DGL) takes 1.1 times the memory of backpropagation, and saves no activations: more modules" in said
    assert warning_of(ll.DGL(), PeakMemory(activations=9, total=11), PeakMemory(activations=8, total=11)) is None


def test_training_says_so(tmp_path):
    said: list[str] = []
    heavy = settings(rule=ll.DGL(hidden=1, units=8000), epochs=1)
    result = train(heavy, tmp_path / "told", say=said.append)
    assert sum("times the memory of backpropagation" in sentence for sentence in said) == 1
    assert result["auxiliary_parameters"] > result["backbone_parameters"]
    said.clear()
    train(settings(epochs=1), tmp_path / "light", say=said.append)
    assert not any("times the memory" in sentence for sentence in said)


def test_advice_says_where_checkpointing_is_the_better_choice():
    def one(rule: ll.Rule, peak: int, seconds: float, **others: Any) -> Candidate:
        values: dict[str, Any] = {"memory": "fast", "accumulate": 1, "micro_batch": 8, "macs": 1} | others
        return Candidate(rule=rule, modules=("0",), peak=peak, seconds=seconds, **values)

    def advice(*baselines: Candidate) -> str:
        best = one(ll.DGL(), 50, 1.5)
        return advice_of(
            Plan(best=best, candidates=(best,), baselines=(one(ll.BP(), 300, 1.0), *baselines), budget=100)
        )

    assert "neither backpropagation nor checkpointing fits in 100 B, but DGL does" in advice()
    better = advice(one(ll.Checkpoint(), 90, 1.3, accumulate=2))
    assert "checkpointing with 2 micro-batches is the better choice: it fits too, with 90 B, in 1.30 times" in better
    slower = advice(one(ll.Checkpoint(), 90, 3.0, memory="lean"))
    assert "checkpointing in lean fits too" in slower
    assert "DGL takes 0.50 times its time" in slower
    assert "less --memory" not in slower
    roomy = Plan(
        best=(best := one(ll.DGL(), 350, 1.5)), candidates=(best,), baselines=(one(ll.BP(), 300, 1.0),), budget=400
    )
    assert "DGL takes more memory than BP: give less --memory." in advice_of(roomy)
