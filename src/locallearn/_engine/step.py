"""The engine: runs one training step of a list of objectives, with no more graphs alive than unfinished ones need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import Tensor

from locallearn._chain.local_module import LocalModule
from locallearn._engine.segment import Stretch, stretches
from locallearn._engine.streams import IN_ORDER, InOrder
from locallearn._objectives.objective import Objective
from locallearn._recompute.policy import KEEP_ALL, Thrift, ThriftPlan
from locallearn._utils.errors import LocalLearnError, NonFiniteLossError


def run_step(
    modules: Sequence[LocalModule],
    objectives: Sequence[Objective],
    images: Tensor,
    labels: Tensor,
    *,
    scale: float | Tensor = 1.0,
    final: bool = True,
    on_complete: Callable[[int], None] | None = None,
    thrift: ThriftPlan | None = None,
    features: Tensor | None = None,
    on_stretch: Callable[[], None] | None = None,
    lanes: InOrder = IN_ORDER,
) -> Tensor:
    """Run every module forward once and every objective backward, in their order.

    An auxiliary network's graph is freed before the next one begins, and a module's as soon as the last objective over
    it has sent its gradient through. After its last backward an auxiliary network moves what moves once a step, before
    any module after it is stepped.

    Args:
        modules: the local modules.
        objectives: the objectives over them, in order of `last`, narrow spans first.
        images: the network's input.
        labels: the targets.
        scale: factor of every loss.
        final: whether an optimizer step follows.
        on_complete: called with a module's index when its gradients are complete.
        thrift: what each part computes again instead of keeping; by default nothing.
        features: what the first module gets; by default the images.
        on_stretch: called when all objectives that end with a stretch have gone backward.
        lanes: where the work of each stretch is queued; other than in order only for objectives of one module each
            that share no parameter (`independent`).

    Returns:
        Losses, detached and unweighted, of shape (objectives,).
    """
    losses = []
    waiting: list[Stretch] = []
    last_of_role = {objective.first: index for index, objective in enumerate(objectives)}
    last_use = {id(objective.auxiliary): index for index, objective in enumerate(objectives)}
    reached = images if features is None else features

    def complete(module: int) -> None:
        if on_complete is not None:
            lanes.wait_for_earlier()  # copies of this module in earlier auxiliary networks move before it is stepped
            on_complete(module)

    def run_stretch(number: int, span: range) -> None:
        nonlocal reached, waiting
        roles = {objective.first for objective in objectives if objective.first <= span.start <= objective.last}
        frugal = KEEP_ALL if thrift is None else thrift.stretches[number]
        stretch = Stretch([modules[module] for module in span], span, roles, reached, frugal)
        waiting.append(stretch)
        reached = stretch.output.detach()
        lanes.passed_on(reached)
        ending = [(index, objective) for index, objective in enumerate(objectives) if objective.last == span[-1]]
        for _, group in groupby(ending, key=lambda found: id(found[1].auxiliary)):
            members = list(group)  # they share one network, which runs once
            auxiliary = members[0][1].auxiliary
            weight = sum(objective.weight for _, objective in members)
            frugal = KEEP_ALL if thrift is None else thrift.objectives[members[0][0]]
            loss, gradient = local_loss(members[0][1], stretch, images, labels, weight * scale, frugal)
            losses.extend([loss] * len(members))
            with torch.autocast(images.device.type, enabled=False):
                if final and last_use[id(auxiliary)] == members[-1][0]:
                    auxiliary.after_backward()
                for _, objective in members:
                    share = objective.weight / weight if weight else 0.0
                    stretch.receive(objective.first, gradient if gradient is None or share == 1 else gradient * share)
                del gradient
                for index, objective in members:
                    if last_of_role[objective.first] == index:
                        waiting = _send_back(waiting, objective.first, complete)
            torch.clear_autocast_cache()  # else the cast weights of all modules would stay alive

    with lanes.step():
        for number, span in enumerate(stretches(objectives)):
            with lanes.module():
                run_stretch(number, span)
            if on_stretch is not None:
                on_stretch()
    return torch.stack(losses)


def independent(modules: Sequence[LocalModule], objectives: Sequence[Objective]) -> bool:
    """Whether each module has one objective, of its own, and no two of these share a parameter."""
    if [(objective.first, objective.last) for objective in objectives] != [(i, i) for i in range(len(modules))]:
        return False
    groups = zip(modules, (objective.auxiliary for objective in objectives), strict=True)
    owned = [{id(p) for part in group for p in part.parameters()} for group in groups]
    return sum(map(len, owned)) == len(set().union(*owned))


def local_loss(
    objective: Objective, stretch: Stretch, images: Tensor, labels: Tensor, weight: float | Tensor, thrift: Thrift
) -> tuple[Tensor, Tensor | None]:
    """An objective's loss, detached, after its backward through the auxiliary network; and the features' gradient."""
    features = stretch.output.detach().requires_grad_(stretch.trains)
    with thrift.around(objective.auxiliary) as tape:
        loss = objective.loss(features, images, labels)
    if loss.dim():
        raise LocalLearnError(
            f"the loss of the objective over local modules {objective.first} to {objective.last} has shape"
            f" {tuple(loss.shape)}: it must be one number, as by reduction='mean'."
        )
    # Operators must run in the precision that the forward pass chose for them, optimizers in that of the weights.
    with torch.autocast(images.device.type, enabled=False):
        if loss.requires_grad:
            (loss * weight).backward()
            loss = loss.detach()  # its graph would hold what the tape ran last
            tape.unwind()
    return loss.detach(), features.grad


def _send_back(waiting: list[Stretch], role: int, on_complete: Callable[[int], None]) -> list[Stretch]:
    """Send a role's gradient from the last stretch to the one it ends in; returns those that still wait."""
    for index in reversed(range(len(waiting))):
        stretch = waiting[index]
        if role not in stretch.roles:
            continue
        gradient = stretch.backward(role)
        if stretch.span.start > role:
            waiting[index - 1].receive(role, gradient)
        del gradient
        if not stretch.roles:
            for module in stretch.span:
                on_complete(module)
    return [stretch for stretch in waiting if stretch.roles]


def refuse_non_finite(losses: Tensor, objectives: Sequence[Objective], *, step: int, completed: Sequence[int]) -> None:
    """Stop at a NaN or infinite loss; one look at the device for all losses of a step."""
    finite = torch.isfinite(losses)
    if finite.all():
        return
    index = int(finite.logical_not().nonzero()[0])
    module = objectives[index].last
    done = "nothing was stepped"
    if completed:
        done = (
            f"on_complete was called for modules {', '.join(map(str, completed))} before, which may be stepped already"
        )
    raise NonFiniteLossError(
        f"the loss of objective {index} (local module {module}) is {losses[index].item()} at step {step}; {done}."
        " Lower the learning rate, or look at this batch.",
        objective=index,
        module=module,
        step=step,
    )
