"""The recipe of docs/several-processes.md: two processes give the gradients of one on the whole batch."""

from __future__ import annotations

import torch
from two_processes import batch, made, worker


def test_two_processes_step_as_one_on_the_whole_batch(tmp_path):
    torch.multiprocessing.spawn(worker, args=(str(tmp_path),), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]
    net = made()
    net.backward(*batch())
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    for rank in (0, 1):
        weights = torch.load(tmp_path / f"{rank}.pt")
        for name, value in net.state_dict().items():
            torch.testing.assert_close(weights[name], value, rtol=1e-12, atol=1e-14)
