"""Top-1 and top-5 accuracy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_runs import many_classes, settings, stripes
from torch import nn

import locallearn as ll
from locallearn._planning.prediction import bytes_of, known_tensors
from locallearn.cli import main
from locallearn.cost import LiveBytes
from locallearn.data import Feed
from locallearn.training import Fit, evaluate, train
from networks import SMALL, resnet20


def test_top5_counts_images_whose_class_is_among_the_five_largest_logits():
    torch.manual_seed(0)
    net = ll.localize(ll.models.resnet20(num_classes=120), ll.BP(), input_shape=SMALL)
    draw = np.random.default_rng(0)
    split = replace(stripes(Path()).test, images=draw.integers(0, 256, (40, 32, 32, 3)).astype(np.uint8))
    images = replace(many_classes(Path()), train=split, test=split)
    result = evaluate(net, images.testing(Feed(batch=3)))
    net.eval()
    batches = list(images.testing(Feed(batch=3)).epoch(1))
    pairs = [pair for x, y in batches for pair in zip(net(x).tolist(), y.tolist(), strict=True)]
    ranks = [sorted(row, reverse=True).index(row[label]) for row, label in pairs]
    assert result.top5_accuracy == sum(rank < 5 for rank in ranks) / len(ranks)
    assert result.accuracy == sum(rank < 1 for rank in ranks) / len(ranks)


class DropsInTraining(nn.Module):
    """Other operations in evaluation than in training."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 3)

    def forward(self, x):
        x = self.one(x).relu()
        if self.training:
            x = F.dropout(x, 0.5)
        return self.last(self.two(x).relu().mean((2, 3)))


def test_the_heads_leave_the_networks_own_numbers_as_they_are():
    torch.manual_seed(0)
    net = ll.localize(DropsInTraining(), ll.DGL(), layers=["one", "two"], input_shape=(3, 12, 12))
    plain, with_heads = (evaluate(net, stripes(Path()).testing(Feed(batch=40)), heads=heads) for heads in (False, True))
    assert (with_heads.loss, with_heads.accuracy) == (plain.loss, plain.accuracy)
    assert with_heads.head_accuracies[-1] == plain.accuracy


def test_below_a_hundred_classes_there_is_no_top5():
    net = ll.localize(resnet20(), ll.BP(), input_shape=SMALL)
    images = replace(stripes(Path()), classes=tuple("0123456789")).resized(32)
    assert evaluate(net, images.testing(Feed(batch=40))).top5_accuracy is None


def test_top5_stands_beside_top1_in_metrics_results_and_tables(tmp_path, capsys):
    result = train(settings(data="small_runs.many_classes", epochs=1), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert result["test_accuracy"] <= result["test_top5_accuracy"] == rows[-1]["test_top5_accuracy"] <= 1
    assert main(["evaluate", str(tmp_path / "run"), "--json", "--trust-code"]) == 0
    (tested,) = json.loads(capsys.readouterr().out).values()
    assert tested["top5_accuracy"] == result["test_top5_accuracy"]
    assert main(["evaluate", str(tmp_path / "run"), "--trust-code"]) == 0
    assert "top-5" in capsys.readouterr().out


@pytest.mark.parametrize("rule", [ll.DGL(hidden=1), ll.Checkpoint()], ids=str)
@pytest.mark.parametrize("batch", [32, 400])
def test_no_test_needs_more_memory_than_the_promised_peak(rule, batch, tmp_path, monkeypatch):
    def counted(fit, **of):
        known = known_tensors(fit.net, fit.stepper, torch.empty(0), torch.empty(0))
        with LiveBytes(known=known, parameters=[]) as live:
            result = evaluated(fit, **of)
        needed.append(bytes_of(known) + live.peak)
        return result

    evaluated, needed = Fit._evaluated, []
    monkeypatch.setattr(Fit, "_evaluated", counted)
    asked = settings(rule=rule, batch=batch, accumulate=4, eval_heads=True, validation=0.5, epochs=1)
    result = train(asked, tmp_path / "run")
    assert 0 < max(needed) <= result["peak_total_bytes"]


def test_tests_read_one_micro_batch_of_each_process_at_a_time():
    asked = settings(batch=32, accumulate=5)
    assert asked.testing_feed(Feed(batch=32)).batch == 7
    assert asked.testing_feed(Feed(batch=32, part=1, parts=3)).batch == 9
