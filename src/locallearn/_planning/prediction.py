"""Peak memory, multiply-accumulates and predicted time of a step, all counted in one run on fake tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from locallearn._engine.local_net import LocalNet
from locallearn._planning.peak_memory import MakeStepper, PeakMemory, example_batch, measure, nesterov_sgd, without_data
from locallearn._torch import private_api
from locallearn._torch.device import mixed
from locallearn._torch.op_counter import Work, seconds


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The predicted cost of a training step.

    Attributes:
        peak: bytes.
        macs: multiply-accumulates of all that runs.
        seconds: time of the step on the processor where the constants were measured. Use ratios between steps.
        work: counted work, by kind.
    """

    peak: PeakMemory
    macs: int
    seconds: float
    work: Mapping[str, float]


def predict(
    net: LocalNet, batch: int, *, make_stepper: MakeStepper = nesterov_sgd, autocast: torch.dtype | None = None
) -> Prediction:
    """Predict a step's memory, work and time by running it on fake tensors; the network is not changed.

    Time is a sum over operators: a constant for each call, for each byte read or written, and for each
    multiply-accumulate of convolutions or of matrix products. `benchmarks/plan.py` measures the constants. The sum
    ranks settings; it ignores caches, compiled code and the machine at hand.

    Args:
        net: the network.
        batch: images in the batch.
        make_stepper: makes the optimizer.
        autocast: dtype of mixed precision, or None.
    """
    with private_api.fake_mode() as mode:
        net = without_data(net, mode)
        images, labels = example_batch(net, batch)
        with mixed(images.device, autocast):
            net.step(images, labels)  # whose recompute plan is made before anything is counted
        with Work() as work:
            peak = measure(net, make_stepper(net), images, labels, autocast=autocast)
    counts = {kind: count / 2 for kind, count in work.counts.items()}  # of two steps
    return Prediction(peak=peak, macs=work.macs // 2, seconds=seconds(counts), work=counts)
