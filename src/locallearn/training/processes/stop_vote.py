"""All processes stop after the same step, though a signal reaches each at another one."""

from __future__ import annotations

from collections import deque

import torch
import torch.distributed as dist
from torch import Tensor


class StopVote:
    """After each step every process says whether it wants to stop; the answer of all comes some steps later.

    So nobody waits for the others: under module parallelism, a process is some steps ahead of the next one.

    Args:
        lag: after how many more steps the answer is needed.
    """

    def __init__(self, lag: int) -> None:
        self._lag = lag
        self._open: deque[tuple[Tensor, dist.Work]] = deque()

    def after_step(self, wanted: bool) -> bool:
        """Whether all stop after this step."""
        self._say(wanted)
        return len(self._open) > self._lag and self._oldest()

    def now(self, wanted: bool) -> bool:
        """Whether anybody wants to stop, also in the steps before; waits for all."""
        self._say(wanted)
        answers = [self._oldest() for _ in range(len(self._open))]
        return any(answers)

    def _say(self, wanted: bool) -> None:
        vote = torch.tensor([int(wanted)])
        work = dist.all_reduce(vote, dist.ReduceOp.MAX, async_op=True)
        assert work is not None
        self._open.append((vote, work))

    def _oldest(self) -> bool:
        vote, work = self._open.popleft()
        work.wait()
        return bool(vote)
