"""What is said where auxiliary networks outweigh the activations that a rule saves."""

from __future__ import annotations

from small_runs import settings

import locallearn as ll
from locallearn.cli import main
from locallearn.training import train


def test_cost_says_so(capsys):
    network = ["cost", "--model", "small_runs.little", "--image", "3x12x12", "--rule", "dgl"]
    assert main([*network, "--rule.units", "2048", "--batch", "2"]) == 0
    captured = capsys.readouterr()
    text = " ".join((captured.out + captured.err).split())
    assert "DGL takes" in text
    assert "times the memory of backpropagation" in text
    assert "--modules 4" in text
    assert main([*network, "--batch", "64"]) == 0
    captured = capsys.readouterr()
    assert "times the memory" not in captured.out + captured.err


def test_training_says_so(tmp_path):
    said: list[str] = []
    heavy = settings(rule=ll.DGL(hidden=1, units=8000), epochs=1)
    result = train(heavy, tmp_path / "told", say=said.append)
    assert sum("times the memory of backpropagation" in sentence for sentence in said) == 1
    assert result["auxiliary_parameters"] > result["backbone_parameters"]
    said.clear()
    train(settings(epochs=1), tmp_path / "light", say=said.append)
    assert not any("times the memory" in sentence for sentence in said)
