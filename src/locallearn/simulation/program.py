"""The tasks of training steps: batches that pass over devices, shared gradients, optimizer steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from locallearn.simulation.link import Link
from locallearn.simulation.load import Load
from locallearn.simulation.tasks import Place, Task


@dataclass(kw_only=True)
class Batch:
    """The tasks of one (micro-)batch, by number.

    Attributes:
        phases: of each phase of the load.
        forwards: of each module's forward pass.
        last: the last task of each module.
    """

    phases: list[int] = field(default_factory=list)
    forwards: dict[int, int] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)


class Program:
    """Tasks in the making.

    Args:
        load: of a step.
        device_of: the device of each local module.
        link: between devices.
        copies: how many groups of devices train on parts of the batch of their own; one group is simulated.
    """

    def __init__(self, load: Load, device_of: Sequence[int], link: Link, copies: int) -> None:
        self.load, self.device_of, self.link, self.copies = load, device_of, link, copies
        self.tasks: list[Task] = []

    def batch(self, images: int, number: int, *, backward_first: bool = False) -> Batch:
        """The phases of one (micro-)batch, each on its module's device, and what travels between devices.

        Within one device, earlier batches go first.

        Args:
            images: in the batch.
            number: of the batch.
            backward_first: whether a device rather goes backward with any batch than forward with an earlier one.
        """
        batch = Batch()
        held: defaultdict[Place, float] = defaultdict(float)  # of this batch
        uses: dict[Place, list[int]] = {device: [] for device in self.device_of}
        for position, phase in enumerate(self.load.phases):
            device = self.device_of[phase.module]
            is_forward = phase.activity == "forward"
            before = [batch.forwards[phase.module - 1]] if is_forward and phase.module else batch.phases[-1:]
            if before and (source := self.tasks[before[0]].place) != device:
                border = phase.module - 1 if is_forward else phase.module  # its features, or their gradient
                size = self.load.modules[border].output * images
                before = [self.send(source, size, before, (number, position), begins=[(device, size)])]
                held[device] += size
                uses[source].append(before[0])
            change = phase.change * images
            held[device] += change
            task = Task(
                place=device,
                seconds=phase.seconds(images),
                after=before,
                priority=(int(is_forward and backward_first), number, position),
                peak=phase.peak * images,
                ends=[(device, change)],
            )
            batch.phases.append(self.add(task))
            batch.last[phase.module] = batch.phases[-1]
            if is_forward:
                batch.forwards[phase.module] = batch.phases[-1]
            uses[device].append(batch.phases[-1])
        for device, after in uses.items():  # its output, which the next module would free on one device
            self.add(
                Task(place=("free", device), seconds=0.0, after=after, priority=(), ends=[(device, -held[device])])
            )
        return batch

    def send(
        self,
        source: Place,
        size: float,
        after: list[int],
        priority: tuple[int, ...],
        begins: Sequence[tuple[Place, float]] = (),
    ) -> int:
        """A message from one device to another."""
        return self.add(
            Task(
                place=("link", source),
                seconds=self.link.seconds(size),
                after=after,
                priority=priority,
                sent=size,
                begins=list(begins),
            )
        )

    def share(self, modules: Sequence[int], after: list[int], priority: tuple[int, ...]) -> int:
        """Sum the gradients of modules of one device over all copies."""
        size = sum(self.load.modules[module].gradients for module in modules)
        seconds, sent = self.link.all_reduce(size, self.copies)
        return self.add(
            Task(
                place=("link", self.device_of[modules[0]]),
                seconds=seconds,
                after=after,
                priority=priority,
                sent=sent,
            )
        )

    def update(self, module: int, after: list[int], priority: tuple[int, ...]) -> int:
        """The optimizer step of a module."""
        seconds = self.load.modules[module].update
        return self.add(Task(place=self.device_of[module], seconds=seconds, after=after, priority=priority))

    def add(self, task: Task) -> int:
        """Add a task; its number."""
        self.tasks.append(task)
        return len(self.tasks) - 1
