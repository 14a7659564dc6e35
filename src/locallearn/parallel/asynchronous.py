"""Asynchronous module parallel: no process waits for another one to be in step with it (DGL, Algorithm 2)."""

from __future__ import annotations

import atexit
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Thread

import torch
from torch import Tensor

from locallearn._objectives.objective import Objective
from locallearn._utils.errors import LocalLearnError
from locallearn.parallel.assignment import Assignment
from locallearn.parallel.channel import Message, Receiver, Sender
from locallearn.parallel.followed import Link
from locallearn.parallel.pipeline import Pipeline, Work
from locallearn.parallel.replay import ReplayBuffer, Staleness
from locallearn.parallel.routes import Routes

_UPDATES = {Work.backward: True, Work.micro_batch: False}
"""The kinds of messages that bring a batch to train on, and whether an update of the weights follows."""


class AsynchronousPipeline(Pipeline):
    """A process that passes features on as soon as it has them, and trains on what is in its replay buffer.

    Inference, and what else all processes do together, goes in order, as in `Pipeline`.

    Args:
        routes: to the other processes.
        assignment: of modules to processes.
        objectives: of the network.
        size: of the buffer, in batches.
    """

    def __init__(self, routes: Routes, assignment: Assignment, objectives: Sequence[Objective], size: int) -> None:
        super().__init__(routes, assignment, objectives, {}, stale_copies=False)
        self._arrivals = None if self._previous is None else _Arrivals(self._previous, ReplayBuffer(size))
        self._final = True
        if self._next is not None:
            weakref.finalize(self, _tell_the_end, self._next)

    @property
    def staleness(self) -> Staleness | None:
        """Of the batches that this process has trained on; None for the first one, which reads the data."""
        return None if self._arrivals is None else self._arrivals.buffer.staleness

    def begin(self, *, final: bool) -> None:
        self._final = final

    def meet(self) -> None:
        self.pass_on(Work.meeting)
        if self._arrivals is not None:
            self._of_kind(Work.meeting, self._arrivals.other())

    def receive(self, work: Work) -> tuple[Tensor, ...]:
        assert self._arrivals is not None
        if work is Work.backward:
            tensors = self._arrivals.batch()
        else:
            tensors = self._of_kind(work, self._arrivals.other()).tensors
        for tensor in tensors:
            if tensor.is_cuda:  # its memory belongs to the thread's stream
                tensor.record_stream(torch.cuda.current_stream(tensor.device))
        self.along = tuple(tensors[1:])
        return tuple(tensors)

    def passed_on(self, features: Tensor) -> None:
        self.pass_on(Work.backward if self._final else Work.micro_batch, features, *self.along)


class _Arrivals:
    """Receives batches in a thread of its own, into a buffer, so that neither process waits for the other.

    The thread runs from the first batch that is read until another message comes, such as features for inference, which
    the main thread takes. A thread it must be: gloo tells nobody whether a message has come who does not wait for it.
    """

    def __init__(self, receiver: Receiver, buffer: ReplayBuffer) -> None:
        self._receiver, self.buffer = receiver, buffer
        self._thread: Thread | None = None
        self._other: Message | LocalLearnError | None = None

    def batch(self) -> Sequence[Tensor]:
        """A batch to train on.

        Raises:
            LocalLearnError: the process before is gone or silent, or has not trained on any batch.
        """
        if self._thread is None:
            self.buffer.open()
            self._thread = Thread(target=self._receive, name="replay buffer", daemon=True)
            self._thread.start()
            _threads.add(self._thread)
        tensors = self.buffer.read()
        if isinstance(self._other, LocalLearnError):
            raise self._other
        if tensors is None:
            peer = self._receiver.route.peer
            raise LocalLearnError(
                f"process {peer + 1} trains, and process {peer} has not trained on any batch: call backward in both."
            )
        return tensors

    def other(self) -> Message:
        """The next message that is no batch; batches before it go into the buffer.

        Raises:
            LocalLearnError: the process before is gone or silent.
        """
        if self._thread is None:
            self._receive()
        else:
            self._thread.join()
        message, self._thread, self._other = self._other, None, None
        if isinstance(message, LocalLearnError):
            raise message
        assert message is not None
        return message

    def _receive(self) -> None:
        device = self._receiver.route.device
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        try:
            with torch.cuda.stream(stream):
                while (message := self._next(stream)).kind in _UPDATES:
                    self.buffer.write(message.tensors, final=_UPDATES[Work(message.kind)])
            self._other = message
        except LocalLearnError as error:
            self._other = error
        finally:
            self.buffer.open(False)

    def _next(self, stream: torch.cuda.Stream | None) -> Message:
        """The next message, once its tensors are there."""
        message = self._receiver.receive()
        if stream is not None:
            stream.synchronize()
        return message


_threads: weakref.WeakSet[Thread] = weakref.WeakSet()


@atexit.register
def _wait_for_earlier() -> None:
    """Let the process before end first, which would fail without this one; unless this one failed itself."""
    if not hasattr(sys, "last_value"):
        for thread in list(_threads):
            thread.join()


def refuse_waiting(
    objectives: Sequence[Objective], assignment: Assignment, links: Mapping[tuple[int, int], Link]
) -> None:
    """Refuse what travels back to an earlier process, which nobody waits for in the asynchronous form.

    Raises:
        LocalLearnError: a cascade goes over a border, or EMA copies follow layers of a later process.
    """
    for objective in objectives:
        first, last = assignment.rank_of(objective.first), assignment.rank_of(objective.last)
        if first != last:
            raise LocalLearnError(
                f"replay_buffer: the gradient of local modules {objective.first} to {objective.last} travels from"
                f" process {last} back to {first}, which does not wait for it: end cascades at borders by"
                " end_cascades=True, choose another assignment, or leave replay_buffer out."
            )
    for source, follower in links:
        raise LocalLearnError(
            f"replay_buffer: EMA copies of process {follower} follow layers of process {source} step by step: leave"
            " replay_buffer out, or choose a rule without such copies."
        )


def _tell_the_end(sender: Sender) -> None:
    """Let the next process's thread end, where this one ends without a meeting."""
    if sender.last_kind in _UPDATES:
        with suppress(LocalLearnError, RuntimeError, ValueError):  # there are no processes any more
            sender.send(Work.meeting)
            sender.drain()
