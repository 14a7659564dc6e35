"""The replay buffer: what a read takes, what a write drops, how old it is."""

from __future__ import annotations

import torch

from locallearn.parallel import Staleness
from locallearn.parallel.replay import ReplayBuffer


def number(buffer: ReplayBuffer) -> int:
    tensors = buffer.read()
    assert tensors is not None
    return int(tensors[0])


def test_the_newest_of_those_used_least_is_read_and_the_oldest_is_dropped():
    buffer = ReplayBuffer(3)
    for batch in range(4):  # the fourth drops the first
        buffer.write([torch.tensor(batch)], final=True)
    assert [number(buffer) for _ in range(5)] == [3, 2, 1, 3, 2]
    buffer.write([torch.tensor(4)], final=True)
    assert [number(buffer) for _ in range(2)] == [4, 4]
    assert buffer.staleness == Staleness(batches=7, mean=(0 + 1 + 2 + 0 + 1 + 0 + 0) / 7, largest=2, reused=3, missed=1)


def test_micro_batches_of_one_step_have_one_age():
    buffer = ReplayBuffer(4)
    for final in (False, True, False, True):
        buffer.write([torch.zeros(1)], final=final)
    for _ in range(4):
        buffer.read()
    assert buffer.staleness == Staleness(batches=4, mean=0.5, largest=1, reused=0, missed=0)


def test_without_a_batch_nothing_is_read_once_none_will_come():
    buffer = ReplayBuffer(1)
    buffer.open(False)
    assert buffer.read() is None
