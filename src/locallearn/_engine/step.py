"""The engine: one training step of a list of objectives, in which only the graphs that are still needed are alive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import torch
from torch import Tensor

from locallearn._chain.local_module import LocalModule
from locallearn._engine.neighbours import ALONE, Neighbours
from locallearn._engine.segment import GraphSegment, segment_spans
from locallearn._engine.streams import IN_ORDER, InOrder
from locallearn._objectives.auxiliary import Auxiliary, blocks_of
from locallearn._objectives.objective import Objective
from locallearn._recompute.policy import STORE_ALL, RecomputePlan, RecomputePolicy
from locallearn._torch import private_api
from locallearn._torch.device import is_out_of_memory, mixed_now
from locallearn._utils.errors import LocalLearnError, NonFiniteLossError, reason_of


@dataclass(kw_only=True)
class Step:
    """One training step: every module runs forward once, every objective backward, in their order.

    An auxiliary network's graph is freed before the next one begins, and a module's as soon as the last objective over
    it has sent its gradient through. After its last backward an auxiliary network moves its EMA copies, before any
    later module is stepped.

    The modules may be a part of the network's, and the others run in other processes (`neighbours`). Objectives that
    end before these modules play no part; those that begin before or end after them pass their gradient on.

    Attributes:
        modules: the local modules.
        objectives: the objectives of the network, in order of `last`, narrow spans first.
        images: the network's input.
        labels: the targets.
        scale: factor of every loss.
        final: whether an optimizer step follows.
        on_complete: called with a module's index when its gradients are complete, if this is the final micro-batch.
        completed: the modules for which `on_complete` was called.
        on_segment: called when all objectives that end with a graph segment have gone backward.
        plan: what each part recomputes in its backward pass; by default nothing.
        streams: where the work of each segment is queued; other than in order only for `independent` objectives.
        features: what the next segment gets: at first the input of the first module, by default the images.
        first: number of the first of the modules.
        neighbours: exchanges features and gradients with the processes of the other modules.
        span: the modules of the segment that runs.
    """

    modules: Sequence[LocalModule]
    objectives: Sequence[Objective]
    images: Tensor
    labels: Tensor
    scale: float | Tensor = 1.0
    final: bool = True
    on_complete: Callable[[int], None] | None = None
    completed: list[int] = field(default_factory=list)
    on_segment: Callable[[], None] | None = None
    plan: RecomputePlan | None = None
    streams: InOrder = IN_ORDER
    features: Tensor | None = None
    first: int = 0
    neighbours: Neighbours = ALONE
    span: range = range(1)
    _segments: list[GraphSegment] = field(default_factory=list, init=False)

    @property
    def inputs(self) -> Tensor:
        """What the next segment gets."""
        return self.images if self.features is None else self.features

    @property
    def part(self) -> range:
        """Numbers of the modules."""
        return range(self.first, self.first + len(self.modules))

    @property
    def spans(self) -> list[range]:
        """The modules of each graph segment."""
        return segment_spans(self.objectives, self.part)

    def run(self) -> Tensor:
        """Run the step; gradients are added to `.grad`.

        Returns:
            Losses of the objectives that end with one of the modules, detached and unweighted, of shape (objectives,).
        """
        losses: list[Tensor] = []
        with self.streams.step():
            for number, span in enumerate(self.spans):
                self.span = span
                with self.streams.module():
                    losses += self.run_segment(number)
                if self.on_segment is not None:
                    self.on_segment()
            for index, objective in enumerate(self.objectives):
                if objective.first < self.part.stop <= objective.last:
                    self.send_back(index)
        return torch.stack(losses) if losses else torch.zeros(0, device=self.images.device)

    def run_segment(self, number: int) -> list[Tensor]:
        """Run a segment forward, and backward all objectives that end with it; returns their losses."""
        losses: list[Tensor] = []
        segment = self.forward_segment(number)
        for auxiliary, indices in self._ending_here():
            losses += self.auxiliary_backward(segment, auxiliary, indices)
            for index in indices:
                self.send_back(index)
        return losses

    def forward_segment(self, number: int) -> GraphSegment:
        """Run the modules of a segment forward, from a detached leaf, and keep their graph."""
        span = self.span
        policy = STORE_ALL if self.plan is None else self.plan.segments[number]
        over = [o for o in self.objectives if o.first <= span.start <= o.last]
        if any((o.first, o.last) != (span[0], span[-1]) for o in over):
            policy = replace(policy, output=False)
        modules = [self.modules[module - self.first] for module in span]
        segment = GraphSegment(modules, span, {o.first for o in over}, self.inputs, policy)
        self._segments.append(segment)
        self.features = segment.output.detach()
        self.streams.passed_on(self.features)
        if span.stop == self.part.stop:
            self.neighbours.passed_on(self.features)
        return segment

    def auxiliary_backward(self, segment: GraphSegment, auxiliary: Auxiliary, indices: list[int]) -> list[Tensor]:
        """Forward and backward through an auxiliary network; the segment receives the gradient of its output.

        Args:
            segment: the segment whose output the auxiliary network takes.
            auxiliary: the network.
            indices: the objectives that share it and end here.

        Returns:
            The loss of each objective.
        """
        objectives = [self.objectives[index] for index in indices]
        policy = STORE_ALL if self.plan is None else self.plan.objectives[indices[0]]
        weight = sum(objective.weight for objective in objectives)
        self.neighbours.before_use(auxiliary)
        images = self.images.detach()  # they are targets of decoders: the gradient flows through the features alone
        loss, gradient = local_loss(objectives[0], segment, images, self.labels, weight * self.scale, policy)
        with torch.autocast(self.images.device.type, enabled=False):
            if self.final and self._is_last_use(auxiliary, indices[-1]):
                auxiliary.after_backward()
                self.neighbours.after_last_use(auxiliary)
            for objective in objectives:
                share = objective.weight / weight if weight else 0.0
                segment.receive(objective.first, gradient if gradient is None or share == 1 else gradient * share)
        torch.clear_autocast_cache()  # else the cast weights of all modules would stay alive
        return [loss] * len(objectives)

    def send_back(self, index: int) -> None:
        """Send an objective's gradient from segment to segment to the module where the objective begins.

        Objectives that begin at the same module go together: the gradient waits until the last of them has come. Where
        that one ends after these modules, its gradient comes from the next process; where they begin before these
        modules, the gradient goes on to the process before.
        """
        stop_module = self.objectives[index].first
        if any(later.first == stop_module for later in self.objectives[index + 1 :]):
            return
        if self.objectives[index].last >= self.part.stop:
            self._segments[-1].receive(stop_module, self.neighbours.receive_gradient(stop_module))
        with torch.autocast(self.images.device.type, enabled=False):
            for position in reversed(range(len(self._segments))):
                segment = self._segments[position]
                if stop_module not in segment.stop_modules:
                    continue
                gradient = self._backward(segment, stop_module)
                if segment.span.start > max(stop_module, self.first):
                    self._segments[position - 1].receive(stop_module, gradient)
                elif segment.span.start > stop_module:
                    self.neighbours.send_gradient(stop_module, gradient)
                del gradient
                if not segment.stop_modules:
                    self._complete(segment.span)
        self._segments = [segment for segment in self._segments if segment.stop_modules]
        torch.clear_autocast_cache()  # of parts that ran again

    def _backward(self, segment: GraphSegment, stop_module: int) -> Tensor | None:
        """Send the gradient through a segment, whose output, if it drops that, is computed again for the next one."""
        if not segment.drops_output:
            return segment.backward(stop_module)
        self.features = self.images.new_empty(0)
        gradient = segment.backward(stop_module)
        if self._has_next(segment.span):
            self.features = segment.output_again()
            self.streams.passed_on(self.features)
        return gradient

    def _has_next(self, span: range) -> bool:
        """Whether a segment's output is the input of another one here."""
        return span.stop < self.part.stop

    def _ending_here(self) -> Iterator[tuple[Auxiliary, list[int]]]:
        """Each auxiliary network that takes the segment's output, with the objectives that share it."""
        ending = [index for index, objective in enumerate(self.objectives) if objective.last == self.span[-1]]
        for _, indices in groupby(ending, key=lambda index: id(self.objectives[index].auxiliary)):
            shared = list(indices)
            yield self.objectives[shared[0]].auxiliary, shared

    def _is_last_use(self, auxiliary: Auxiliary, index: int) -> bool:
        return all(later.auxiliary is not auxiliary for later in self.objectives[index + 1 :])

    def _complete(self, span: range) -> None:
        if self.on_complete is None or not self.final:
            return
        for module in span:
            self.streams.wait_for_earlier()  # EMA copies of this module move before it is stepped
            self.completed.append(module)
            self.on_complete(module)


def local_loss(
    objective: Objective,
    segment: GraphSegment,
    images: Tensor,
    labels: Tensor,
    weight: float | Tensor,
    policy: RecomputePolicy,
) -> tuple[Tensor, Tensor | None]:
    """An objective's loss, detached, after its backward through the auxiliary network; and the features' gradient."""
    features = segment.output.detach().requires_grad_(segment.trains)
    what = f"the loss of the objective over local modules {objective.first} to {objective.last}"
    with policy.forward_of(blocks_of(objective.auxiliary) if policy.blocks else []) as tape:
        try:
            loss = objective.loss(features, images, labels)
        except LocalLearnError:
            raise
        except (TypeError, ValueError, IndexError, AssertionError, RuntimeError) as error:
            if is_out_of_memory(error) or private_api.is_of_backward_hook(error):
                raise
            if private_api.needs_values(error):
                raise private_api.unpredictable(what, error) from error
            refuse_other_type(features, objective.auxiliary, what, error)
            raise LocalLearnError(
                f"{what} cannot be computed on labels of shape {tuple(labels.shape)} and type {labels.dtype}"
                f" ({reason_of(error)}): do the loss and the labels fit the network?"
            ) from error
    if not isinstance(loss, Tensor):
        raise LocalLearnError(f"{what} is a {type(loss).__name__}: return one number, a tensor of no dimensions.")
    if loss.dim():
        raise LocalLearnError(f"{what} has shape {tuple(loss.shape)}: it must be one number, as by reduction='mean'.")
    if not loss.requires_grad and (segment.trains or any(p.requires_grad for p in objective.auxiliary.parameters())):
        raise LocalLearnError(f"{what} has no gradient, so nothing trains: compute it from the logits without detach.")
    # Operators must run in the precision that the forward pass chose for them, optimizers in that of the weights.
    with torch.autocast(images.device.type, enabled=False):
        if loss.requires_grad:
            (loss * weight).backward()
            loss = loss.detach()  # its graph would hold what the tape ran last
            tape.unwind()
    return loss.detach(), features.grad


def refuse_other_type(features: Tensor, auxiliary: Auxiliary, what: str, error: Exception) -> None:
    """Refuse features of a type that an auxiliary network does not have, once it failed on them."""
    types = {parameter.dtype for parameter in auxiliary.parameters()}
    if types and features.dtype not in types and mixed_now(features.device) is None:
        raise LocalLearnError(
            f"{what} cannot be computed: the features are {features.dtype} and the auxiliary network is"
            f" {' and '.join(sorted(map(str, types)))}. Convert the whole net, as by net.double(), not the model alone;"
            " a network that changes its type between layers needs a rule without heads, such as BP()."
        ) from error


def independent(modules: Sequence[LocalModule], objectives: Sequence[Objective]) -> bool:
    """Whether each module has one objective, of its own, and no two of these share a parameter."""
    if [(objective.first, objective.last) for objective in objectives] != [(i, i) for i in range(len(modules))]:
        return False
    groups = zip(modules, (objective.auxiliary for objective in objectives), strict=True)
    owned = [{id(p) for part in group for p in part.parameters()} for group in groups]
    return sum(map(len, owned)) == len(set().union(*owned))


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
        " Lower the learning rate, or look at this batch: where it holds NaN, running statistics do now too, so go back"
        " to a checkpoint.",
        objective=index,
        module=module,
        step=step,
    )
