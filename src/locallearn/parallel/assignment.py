"""Which process of a pipeline runs which local modules, and which tensors are its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from torch import Tensor, nn

from locallearn._engine.local_net import LocalNet
from locallearn._objectives.objective import Objective
from locallearn._planning.dynamic_program import smallest_largest, summed
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted
from locallearn.cost.timeline import timeline

_BATCH = 32


@dataclass(frozen=True)
class Assignment:
    """Consecutive local modules for each process.

    Attributes:
        counts: how many modules each process has.
    """

    counts: tuple[int, ...]

    def part(self, rank: int) -> range:
        """The modules of a process."""
        ends = [0, *accumulate(self.counts)]
        return range(ends[rank], ends[rank + 1])

    def rank_of(self, module: int) -> int:
        """The process of a module."""
        return next(rank for rank in range(len(self.counts)) if module in self.part(rank))


def module_seconds(net: LocalNet, batch: int = _BATCH) -> list[float]:
    """The predicted time of each local module in a step, with the auxiliary networks that end there."""
    seconds = [0.0] * len(net.partition)
    for phase in timeline(net, batch).phases:
        seconds[phase.module] += phase.end - phase.start
    return seconds


def balanced(seconds: Sequence[float], processes: int) -> Assignment:
    """The assignment whose slowest process is fastest, from the time of each module.

    Raises:
        LocalLearnError: there are more processes than modules.
    """
    refuse_too_few(len(seconds), processes)
    ends = smallest_largest(summed(seconds), range(len(seconds)), processes)
    return Assignment(tuple(end - before for before, end in zip((-1, *ends[:-1]), ends, strict=True)))


def refuse_too_few(modules: int, processes: int) -> None:
    """Refuse more processes than local modules."""
    if processes > modules:
        raise LocalLearnError(
            f"{processes} processes for {counted(modules, 'local module')}: each needs at least one, so start at most"
            f" {modules}, or divide the network into more modules."
        )


def given(counts: Sequence[int], modules: int, processes: int) -> Assignment:
    """The assignment that a user gives.

    Raises:
        LocalLearnError: it has another number of processes or of modules.
    """
    refuse_too_few(modules, processes)
    if len(counts) != processes or sum(counts) != modules or min(counts) < 1:
        raise LocalLearnError(
            f"assignment={tuple(counts)}: give the number of local modules of each of the {processes} processes, at"
            f" least 1 and {modules} in all."
        )
    return Assignment(tuple(counts))


def ended_at_borders(objectives: Sequence[Objective], assignment: Assignment) -> list[Objective]:
    """The objectives, each cut off before the first module of the process that has its last one.

    Raises:
        LocalLearnError: a module would not be trained.
    """
    cut = [replace(o, first=max(o.first, assignment.part(assignment.rank_of(o.last)).start)) for o in objectives]
    trained = {module for o in cut for module in range(o.first, o.last + 1)}
    if missing := sorted(set(range(sum(assignment.counts))) - trained):
        raise LocalLearnError(
            f"end_cascades=True: local module {missing[0]} is trained by cascades of later processes alone, so nothing"
            f" would train it with assignment {assignment.counts}: give another assignment, or leave end_cascades out."
        )
    return sorted(cut, key=lambda o: (o.last, -o.first))


def owners(net: LocalNet, assignment: Assignment) -> dict[int, int]:
    """The process of each parameter and buffer, by its id. Those that no module uses belong to the first process.

    Raises:
        LocalLearnError: two processes would train one parameter.
    """
    names = {id(tensor): name for name, tensor in (*net.named_parameters(), *net.named_buffers())}
    owner: dict[int, int] = {}
    for rank in range(len(assignment.counts)):
        for tensor in _tensors_of(net, assignment.part(rank)):
            if owner.setdefault(id(tensor), rank) != rank and isinstance(tensor, nn.Parameter):
                raise LocalLearnError(
                    f"processes {owner[id(tensor)]} and {rank} would both train parameter {names[id(tensor)]!r}, which"
                    " several local modules share: give these modules to one process by assignment."
                )
    return {key: owner.get(key, 0) for key in names} | owner


def own_tensors(net: LocalNet, assignment: Assignment, rank: int, owner: dict[int, int]) -> set[int]:
    """Ids of the tensors that a process needs: its own, and buffers that it shares with others."""
    return {key for key, of in owner.items() if of == rank} | {
        id(tensor) for tensor in _tensors_of(net, assignment.part(rank))
    }


def _tensors_of(net: LocalNet, part: range) -> Iterator[Tensor]:
    auxiliaries = [objective.auxiliary for objective in net.objectives if objective.last in part]
    for module in (*net.local_modules[part.start : part.stop], *auxiliaries):
        yield from module.parameters()
        yield from module.buffers()
