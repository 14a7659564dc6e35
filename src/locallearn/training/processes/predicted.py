"""What each process of a run needs, predicted before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from locallearn._engine.local_net import LocalNet
from locallearn.parallel import ProcessCost, predict_modules
from locallearn.training.processes.grid import ProcessGrid


def process_rows(net: LocalNet, settings: Any, layout: ProcessGrid, batch: int) -> list[dict[str, Any]]:
    """What the processes need that have the same local modules, as plain values.

    Args:
        net: the whole network.
        settings: of the run.
        layout: of its processes.
        batch: images in a process's batch.
    """
    costs = predict_modules(
        net,
        layout.modules,
        batch,
        **settings.step_options,
        replay_buffer=settings.replay_buffer,
    )
    return rows_of(costs, copies=layout.data)


def rows_of(costs: Sequence[ProcessCost], *, copies: int = 1) -> list[dict[str, Any]]:
    """What processes need, as plain values; as many have the same local modules as there are copies."""
    slowest = max(cost.seconds for cost in costs)
    return [
        {
            "processes": list(range(row * copies, (row + 1) * copies)),
            "modules": [cost.modules.start, cost.modules.stop - 1],
            "share_of_slowest": cost.seconds / slowest,
            "peak_activation_bytes": cost.peak.activations,
            "peak_total_bytes": cost.peak.total,
            "sent_bytes": cost.sent,
        }
        for row, cost in enumerate(costs)
    ]
