"""Linear probes: how well a linear classifier tells the classes apart after each layer of a frozen backbone.

AugLocal (Fig. 4) and HPFF, MAN and MLAAN (the "decoupled layer accuracy") freeze the backbone and train a linear
classifier for each hidden layer; none says how a map becomes a vector. Here it is the mean of each channel, as the
backbone's own classifier and DGL's auxiliary networks see it. Each value is then standardised by running statistics, so
that one learning rate suits all layers; after training this is part of the linear map.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted
from locallearn.analysis.cache import Say, answered, silent
from locallearn.analysis.runs import Run, Watch, pooled, unwatched
from locallearn.data import Batches
from locallearn.data.order import order_of
from locallearn.training import evaluate


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Test accuracy after each layer.

    Attributes:
        layers: names.
        accuracy: of each layer's linear probe.
        heads: of each local module's own auxiliary head, by the module's last layer, and of the backbone's classifier;
            only of heads that classify, and empty for a `Run` without settings.
    """

    layers: tuple[str, ...]
    accuracy: tuple[float, ...]
    heads: dict[str, float]

    @staticmethod
    def of(values: Mapping[str, Any]) -> Probes:
        """The probes in a file of results.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it holds something else.
        """
        layers, accuracy = tuple(values["layers"]), tuple(map(float, values["accuracy"]))
        if len(layers) != len(accuracy):
            raise ValueError("accuracy")
        heads = {layer: float(accuracy) for layer, accuracy in values["heads"].items()}
        return Probes(layers=layers, accuracy=accuracy, heads=heads)


def probes(
    run: Run,
    *,
    epochs: int = 10,
    images: int | None = None,
    batch: int = 128,
    lr: float = 0.01,
    seed: int = 0,
    watch: Watch = unwatched,
    say: Say = silent,
) -> Probes:
    """Train a linear probe for every layer, all from the same forward passes of the frozen backbone; test them.

    Training images are not augmented, and features are not stored. All weights begin at zero and are trained by AdamW
    with a cosine schedule, so that equal seeds give equal probes. The result lies in `RUN/analysis/probes.json` and
    answers the same question again.

    Args:
        run: the run.
        epochs: passes over the training images.
        images: how many training images, drawn at random; all by default. Tests are always on all test images.
        batch: images in a batch.
        lr: learning rate at the start.
        seed: of the choice and the order of the images.
        watch: told of progress.
        say: told why an earlier result is not used.

    Raises:
        LocalLearnError: there are fewer images, or too few for all classes.
    """
    classes = len(run.card.classes)
    if images is not None and images < classes:
        raise LocalLearnError(
            f"images={images} for {counted(classes, 'class')}: give at least one training image for each."
        )
    if epochs < 1 or batch < 2:
        raise LocalLearnError(f"epochs={epochs}, batch={batch}: give at least 1 epoch and 2 images in a batch.")
    heads = "of the largest weight" if run.has_heads else None
    question = {"checkpoint": run.fingerprint, "heads": heads, "epochs": epochs, "images": images}
    question |= {"batch": batch, "lr": lr, "seed": seed}

    def compute() -> dict[str, Any]:
        rows = run.train_rows(images, seed=seed)
        test = run.testing(run.test_rows(None, seed=seed), batch=batch)
        orders = (rows[order_of(len(rows), seed=seed, epoch=epoch)] for epoch in range(1, epochs + 1))
        trained = _trained(run, (run.training(order, batch=batch) for order in orders), epochs, lr, test, watch)
        accuracy = _tested(run, trained, test)
        return {"layers": list(run.layers), "accuracy": accuracy, "heads": _heads(run, test) if run.has_heads else {}}

    return Probes.of(answered(run.result("probes"), question, compute, say=say))


class _Probe(nn.Module):
    """A linear classifier of standardised features, which begins at zero."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.standardised = nn.BatchNorm1d(width, affine=False)
        self.weight = nn.Parameter(torch.zeros(classes, width))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(self.standardised(features), self.weight, self.bias)


def _trained(run: Run, epochs: Iterator[Batches], count: int, lr: float, test: Batches, watch: Watch) -> list[_Probe]:
    """A probe for each layer, trained on these epochs of batches."""
    classes = len(run.card.classes)
    probes = nn.ModuleList(_Probe(shape[0], classes) for shape in run.net.chain.shapes).to(run.device)
    optimizer = torch.optim.AdamW(probes.parameters(), lr=lr)
    schedule, done = None, 0
    for batches in epochs:
        steps = count * len(batches)
        schedule = schedule or torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for images, labels in batches.epoch(1):
            for probe, features in zip(probes, run.outputs(images), strict=True):
                F.cross_entropy(probe(pooled(features)), labels).backward()  # each its own graph, freed at once
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            watch(f"linear probes of {run.name}", done := done + 1, steps)
    return list(probes.eval())  # pyright: ignore[reportReturnType]


@torch.no_grad()
def _tested(run: Run, probes: list[_Probe], test: Batches) -> list[float]:
    """The test accuracy of each probe."""
    correct, seen = torch.zeros(len(probes), dtype=torch.int64, device=run.device), 0
    for images, labels in test.epoch(1):
        answers = [probe(pooled(part)).argmax(1) for probe, part in zip(probes, run.outputs(images), strict=True)]
        correct += (torch.stack(answers) == labels).sum(1)
        seen += len(labels)
    return (correct.double() / seen).tolist()


def _heads(run: Run, test: Batches) -> dict[str, float]:
    """The test accuracy of each local module's own head: of those that classify, the one of the largest weight.

    HiLo, for instance, weighs the cascade that ends with a module 999 times as much as the module alone.
    """
    net = run.net
    accuracies = evaluate(net, test, heads=True, autocast=run.settings.autocast).head_accuracies
    heads: dict[int, tuple[float, float]] = {}
    for objective, accuracy in zip(net.objectives, accuracies, strict=True):
        if accuracy is not None and (objective.last not in heads or objective.weight > heads[objective.last][0]):
            heads[objective.last] = objective.weight, accuracy
    return {run.layers[net.partition.ends[last]]: heads[last][1] for last in sorted(heads)}
