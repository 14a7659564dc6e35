"""A process of a pipeline: what it exchanges with the others in a step."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from torch import Tensor

from locallearn._engine.neighbours import Neighbours
from locallearn._objectives.auxiliary import Auxiliary
from locallearn._objectives.objective import Objective
from locallearn._utils.errors import LocalLearnError
from locallearn.parallel.assignment import Assignment
from locallearn.parallel.channel import Message, Receiver, Sender
from locallearn.parallel.followed import FollowedLayers, Followers, Link
from locallearn.parallel.replay import Staleness
from locallearn.parallel.routes import Purpose, Routes


class Work(IntEnum):
    """What processes do with a batch; all must do the same."""

    backward = 0
    inference = 1
    micro_batch = 2
    meeting = 3


class Pipeline(Neighbours):
    """Receives features from the process before, passes them on to the next, and returns what later modules owe.

    Args:
        routes: to the other processes.
        assignment: of modules to processes.
        objectives: of the network.
        links: between EMA copies and layers of later processes, by the ranks of layers and copies.
        stale_copies: whether copies take older weights, so that nobody waits for more than the next process.

    Attributes:
        along: what travels on with the features of this batch: labels, images.
    """

    def __init__(
        self,
        routes: Routes,
        assignment: Assignment,
        objectives: Sequence[Objective],
        links: dict[tuple[int, int], Link],
        *,
        stale_copies: bool,
    ) -> None:
        rank = routes.rank
        part = assignment.part(rank)
        is_last = rank == routes.size - 1
        self.rank = rank
        self.along: tuple[Tensor, ...] = ()
        self._previous = Receiver(routes.route(Purpose.FEATURES, rank - 1, ahead=True)) if rank else None
        self._next = None if is_last else Sender(routes.route(Purpose.FEATURES, rank + 1, ahead=True))
        self._gradients_out = self._gradients_in = None
        if any(o.first < part.start <= o.last for o in objectives):
            self._gradients_out = Sender(routes.route(Purpose.GRADIENTS, rank - 1, ahead=False))
        if any(o.first < part.stop <= o.last for o in objectives):
            self._gradients_in = Receiver(routes.route(Purpose.GRADIENTS, rank + 1, ahead=False))
        self._followed: list[FollowedLayers] = []
        self._followers: list[Followers] = []
        for (source, follower), link in links.items():
            if source == rank:
                self._followed.append(
                    FollowedLayers(link, Sender(routes.route(Purpose.WEIGHTS, follower, ahead=True), must_arrive=False))
                )
            if follower == rank:
                age = source - follower - 1 if stale_copies else 0
                receiver = Receiver(routes.route(Purpose.WEIGHTS, source, ahead=True))
                self._followers.append(Followers(link, receiver, age=age))

    def begin(self, *, final: bool) -> None:
        """Send what earlier processes need of this one's weights, before a (micro-)batch changes them."""
        for layers in self._followed if final else ():
            layers.send()

    def meet(self) -> None:
        """Called before all processes do something together that sends no features."""

    def settle(self) -> None:
        """Move all EMA copies that are due."""
        for followers in self._followers:
            followers.settle()

    def receive(self, work: Work) -> tuple[Tensor, ...]:
        """The features of the next batch, and what travels along.

        Raises:
            LocalLearnError: the process before does something else.
        """
        assert self._previous is not None
        message = self._of_kind(work, self._previous.receive())
        if self._gradients_out is not None:
            self._gradients_out.drain()  # the process before has taken them: it goes on with the next batch
        features, *along = message.tensors
        self.along = tuple(along)
        return features, *along

    def _of_kind(self, work: Work, message: Message) -> Message:
        """The message, if the process before does this work too."""
        if message.kind != work:
            peer = self.rank - 1
            raise LocalLearnError(
                f"process {peer} runs {Work(message.kind).name} and process {peer + 1} {work.name} on a batch: call the"
                " same methods in the same order in all processes."
            )
        return message

    def pass_on(self, work: Work, *tensors: Tensor) -> None:
        """Send features, and what travels along, to the next process, if there is one."""
        if self._next is not None:
            self._next.send(work, *tensors)

    def passed_on(self, features: Tensor) -> None:
        self.pass_on(Work.backward, features, *self.along)

    def send_gradient(self, stop_module: int, gradient: Tensor | None) -> None:
        assert self._gradients_out is not None
        self._gradients_out.send(stop_module, *([] if gradient is None else [gradient]))

    def receive_gradient(self, stop_module: int) -> Tensor | None:
        assert self._gradients_in is not None
        message = self._gradients_in.receive()
        assert message.kind == stop_module
        return message.tensors[0] if message.tensors else None

    def before_use(self, auxiliary: Auxiliary) -> None:
        for followers in self._followers:
            followers.before_use(auxiliary)

    def after_last_use(self, auxiliary: Auxiliary) -> None:
        for followers in self._followers:
            followers.after_last_use(auxiliary)

    @property
    def staleness(self) -> Staleness | None:
        """How old the batches were that this process has trained on; None where all are of the same step."""
        return None

    @property
    def sent_bytes(self) -> int:
        """Bytes of tensors sent so far."""
        senders = [self._next, self._gradients_out, *(layers.sender for layers in self._followed)]
        return sum(sender.sent_bytes for sender in senders if sender is not None)
