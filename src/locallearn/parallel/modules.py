"""Module parallel: each process has consecutive local modules, and works on a batch while others work on the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from locallearn._engine.local_net import LocalNet
from locallearn._engine.model_watch import ModelWatch
from locallearn._engine.refusals import refuse_image_type
from locallearn._engine.step import Step
from locallearn._nn.outputs import main_output
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted
from locallearn.parallel.agreement import refuse_other_networks, refuse_other_settings
from locallearn.parallel.assignment import (
    Assignment,
    balanced,
    ended_at_borders,
    given,
    module_seconds,
    own_tensors,
    owners,
    refuse_too_few,
)
from locallearn.parallel.asynchronous import AsynchronousPipeline, refuse_waiting
from locallearn.parallel.channel import share_values
from locallearn.parallel.followed import links
from locallearn.parallel.part import NetPart
from locallearn.parallel.pipeline import Pipeline, Work
from locallearn.parallel.replay import Staleness
from locallearn.parallel.routes import Routes


def modules(
    net: LocalNet,
    *,
    assignment: Sequence[int] | None = None,
    group: dist.ProcessGroup | None = None,
    send_labels: bool = False,
    end_cascades: bool = False,
    stale_copies: bool = False,
    replay_buffer: int | None = None,
) -> ModulePart:
    """Give each process some of a network's local modules, with their auxiliary networks, and only those.

    Every process makes the same network and calls this; all get the weights of the first one. Then each process calls
    `backward` for each batch. The first one runs on the images, the others on the features that come from the process
    before, which meanwhile works on the next batch. After the same batches, all weights are those of one process, bit
    for bit, where no random numbers are drawn (each process draws its own).

    Features travel forward as soon as the last module of a process has run, before its backward pass. For rules
    without cascades, and without copies of later layers, nothing travels back:

    - The gradient of a cascade over modules of several processes travels back, and the process that has its first
      modules waits for it.
    - The weights of a layer that EMA copies of an earlier process follow (MAN, LAM) travel back once a step. The copy
      moves before it is used next, towards the layer as it was before the step.

    Args:
        net: the network, on its device. It is taken over: use what is returned instead.
        assignment: number of local modules of each process; by default such that the slowest process is fastest, by
            predicted times.
        group: the processes, in order of their modules; by default all of them.
        send_labels: whether labels travel with the features, and images where auxiliary networks of later processes
            read them. Then only the first process gives images and labels. By default each process gives its own.
        end_cascades: whether cascades end at the first module of the process that has their last one. Then no gradient
            travels back, and earlier modules are trained by the objectives that end in their own process alone.
        stale_copies: whether EMA copies follow weights that are n - 1 steps older, where the layer is n > 1 processes
            ahead. By default they wait for it, up to n - 1 steps of the slowest process.
        replay_buffer: the asynchronous form (DGL, Algorithm 2), in which no process waits for another one: each
            `backward` of a later process trains on one batch out of a buffer of this many (M), the newest of those used
            least; a full buffer drops the oldest. Labels travel along, so what later processes give is not looked at.
            The results depend on the processes' speeds; `part.staleness` reports how old the batches were. Refused
            where anything travels back. By default every process trains on the same batches in the same order.

    Returns:
        The process's part of the network.

    Raises:
        LocalLearnError: there is no process group; the processes have different networks or settings; there are more
            of them than local modules; two processes would train one parameter; or `replay_buffer` does not fit.
    """
    _refuse_unready(net)
    if replay_buffer is not None and replay_buffer < 1:
        raise LocalLearnError(f"replay_buffer={replay_buffer} must be at least 1 batch.")
    size = dist.get_world_size(group)
    refuse_too_few(len(net.partition), size)
    refuse_other_networks(net, group)
    settings = {
        "assignment": None if assignment is None else tuple(assignment),
        "send_labels": send_labels,
        "end_cascades": end_cascades,
        "stale_copies": stale_copies,
        "replay_buffer": replay_buffer,
        "objectives": tuple((o.first, o.last, o.weight) for o in net.objectives),
    }
    refuse_other_settings(settings, group)
    chosen = _assignment(net, assignment, size, group)
    if end_cascades:
        net.objectives = tuple(ended_at_borders(net.objectives, chosen))
    return ModulePart(
        net, chosen, group, send_labels=send_labels, stale_copies=stale_copies, replay_buffer=replay_buffer
    )


class ModulePart(NetPart):
    """The part of a network that one of several processes trains. Made by `parallel.modules`.

    It is used as the whole network would be, in all processes alike. `backward` returns the losses of this process's
    objectives. A call of the network, `state_dict` and `logits` need all processes at once; the first two return the
    whole result in each. Other processes' tensors are on the meta device.

    Attributes:
        owner_of: the rank of the process that has each entry of the state dict.
        replay_buffer: as given to `modules`.
    """

    def __init__(
        self,
        net: LocalNet,
        assignment: Assignment,
        group: dist.ProcessGroup | None,
        *,
        send_labels: bool,
        stale_copies: bool,
        replay_buffer: int | None,
    ) -> None:
        rank, owner = dist.get_rank(group), owners(net, assignment)
        linked = links(net.objectives, assignment, owner)
        if replay_buffer is not None:
            refuse_waiting(net.objectives, assignment, linked)
        needs_several = net.needs_several  # before anything is dropped
        super().__init__(net, assignment, rank, owner)
        vars(self)["needs_several"] = needs_several
        self.replay_buffer = replay_buffer
        self._routes = Routes(group, next(net.parameters()).device)
        self._sends_labels = send_labels or replay_buffer is not None
        self._sends_images = self.reads_images(self.part.stop)
        self.owner_of = {name: owner[id(tensor)] for name, tensor in net.state_dict(keep_vars=True).items()}
        share_values((*net.parameters(), *net.buffers()), group)
        if replay_buffer is None:
            self._pipeline = Pipeline(self._routes, assignment, self.of_network, linked, stale_copies=stale_copies)
        else:
            self._pipeline = AsynchronousPipeline(self._routes, assignment, self.of_network, replay_buffer)
        run = (*net.local_modules, self.chain.classifier)
        auxiliaries = (objective.auxiliary for objective in self.of_network)
        _drop_others([self.model, self.auxiliary, *run, *auxiliaries], own_tensors(net, assignment, rank, owner))
        self._watch = ModelWatch(self.model, run)
        self._features: Tensor | None = None

    def backward(
        self,
        images: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        scale: float | Tensor = 1.0,
        final: bool = True,
        on_complete: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Forward and local backwards of one (micro-)batch through this process's modules, as `LocalNet.backward`.

        Args:
            images: the batch, of which later processes need the number of images, and decoders the values. With
                `send_labels` the first process alone gives it.
            labels: its labels.
            scale: factor of every loss.
            final: whether an optimizer step follows.
            on_complete: called with a module's number as soon as its gradients are complete.

        Returns:
            The losses of the objectives that end in this process, of shape (objectives,).
        """
        if self._sends_labels and not self._is_first:
            self._begin(final=final)
            assert self._features is not None
            labels, *rest = self._pipeline.along
            images = rest[0] if rest else self._without_values(len(self._features))
        if images is None or labels is None:
            raise LocalLearnError(
                f"process {self.rank} has no images or no labels: give each process the same batch, or call"
                " parallel.modules with send_labels=True and give it to the first one."
            )
        return super().backward(images, labels, scale=scale, final=final, on_complete=on_complete)

    def step(self, images: Tensor, labels: Tensor, **settings: Any) -> Step:
        if self._features is None and not self._is_first:
            self._begin(final=settings.get("final", True))
        elif self._is_first:
            self._pipeline.begin(final=settings.get("final", True))
            if self._sends_labels:
                self._pipeline.along = (labels, images) if self._sends_images else (labels,)
        features, self._features = self._features, None
        if features is not None and len(features) != len(images):
            raise LocalLearnError(
                f"process {self.rank} was given {counted(len(images), 'image')}, and the one before {len(features)}:"
                " give the same batches in the same order to all processes."
            )
        return super().step(images, labels, features=features, neighbours=self._pipeline, **settings)

    @torch.no_grad()
    def forward(self, images: Tensor | None = None) -> Tensor:
        """Inference: the backbone alone. All processes call it; the first one gives the images, all get the logits."""
        features = self._given(images)
        for module in self.local_modules:
            features = module(features)
        logits = None
        if self.rank == self._routes.size - 1:
            logits = main_output(self.chain.classifier(features))
        else:
            self._pipeline.pass_on(Work.inference, features)
        return self._routes.broadcast(logits, self._routes.size - 1)

    @torch.no_grad()
    def logits(self, images: Tensor | None = None) -> list[Tensor | None]:
        """Logits of each objective of this process, as `LocalNet.logits`; all processes call it."""
        self._pipeline.settle()
        features, logits = self._given(images), []
        for index, module in zip(self.part, self.local_modules, strict=True):
            features = module(features)
            logits += [objective.logits(features) for objective in self.objectives_of(index)]
        self._pipeline.pass_on(Work.inference, features)
        return logits

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """The state of the whole network, in each process; all processes call it."""
        self._pipeline.settle()
        self._pipeline.meet()
        state = super().state_dict(*args, destination=destination, prefix=prefix, keep_vars=keep_vars)
        for name, owner in self.owner_of.items():
            tensor = state[prefix + name]
            state[prefix + name] = self._routes.broadcast(tensor if owner == self.rank else None, owner)
        return state

    def own_state(self) -> dict[str, Tensor]:
        """This process's part of the state dict, by the names in the whole one; each process may call it alone."""
        self._pipeline.settle()
        state = super().state_dict()
        return {name: state[name] for name, owner in self.owner_of.items() if owner == self.rank}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load this process's part of the whole network's state."""
        self._pipeline.settle()
        others = {name for name, owner in self.owner_of.items() if owner != self.rank}
        part = {name: torch.empty_like(v, device="meta") if name in others else v for name, v in state_dict.items()}
        return super().load_state_dict(part, *args, **kwargs)

    @property
    def sent_bytes(self) -> int:
        """Bytes of tensors that this process has sent to others in training and inference."""
        return self._pipeline.sent_bytes

    @property
    def staleness(self) -> Staleness | None:
        """How old the batches out of the replay buffer were; None for the first process, or without `replay_buffer`."""
        return self._pipeline.staleness

    @property
    def _is_first(self) -> bool:
        return self.rank == 0

    def _begin(self, *, final: bool) -> None:
        """Receive the features of a batch, after what other processes wait for has been sent."""
        self._pipeline.begin(final=final)
        self._features, *_ = self._pipeline.receive(Work.backward)

    def _given(self, images: Tensor | None) -> Tensor:
        """The input of the first module, for inference."""
        if not self._is_first:
            return self._pipeline.receive(Work.inference)[0]
        if images is None:
            raise LocalLearnError("the first process gives the images: call net(images).")
        return images

    def _without_values(self, images: int) -> Tensor:
        """What stands for images that no auxiliary network reads."""
        return next(self.parameters()).new_zeros(()).expand(images, *self.chain.image_shape)

    def _refuse_image_type(self, images: Tensor) -> None:
        if self._is_first:
            super()._refuse_image_type(images)
        elif images.device != self._routes.device:
            refuse_image_type(images, next(self.parameters()))

    def __deepcopy__(self, known: dict[int, object]) -> ModulePart:
        raise LocalLearnError(
            f"process {self.rank} has a part of the network, which cannot be copied: copy what localize returned, or"
            " load the state dict into another network."
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def on_own(tensor: Tensor) -> Tensor:
            return tensor if tensor.is_meta else fn(tensor)

        return super()._apply(on_own, recurse)


def _refuse_unready(net: LocalNet) -> None:
    if not dist.is_initialized():
        raise LocalLearnError(
            "parallel.modules needs a process group: start the program by torchrun, and call"
            " torch.distributed.init_process_group() first."
        )
    if isinstance(net, ModulePart):
        raise LocalLearnError("the network is divided among processes already: give the one that localize returned.")
    if net.gradient_sharing is not None:
        raise LocalLearnError(
            "the network shares gradients already: call parallel.modules first, and parallel.data on what it returns."
        )
    refuse_overlap(net)
    if net.steps:
        raise LocalLearnError(
            f"the network was trained for {counted(net.steps, 'step')}: call parallel.modules first, then load its"
            " state."
        )
    if any(tensor.is_meta for tensor in chain(net.parameters(), net.buffers())):
        raise LocalLearnError("the network is on the meta device: localize it once it has weights.")


def refuse_overlap(net: LocalNet) -> None:
    """Refuse modules that run on several streams: what travels between processes is queued on one."""
    if net.overlap:
        raise LocalLearnError(f"overlap={net.overlap} goes with one process alone: leave it out in localize.")


def _assignment(
    net: LocalNet, counts: Sequence[int] | None, processes: int, group: dist.ProcessGroup | None
) -> Assignment:
    """The given assignment, or the one that the first process finds best."""
    if counts is not None:
        return given(counts, len(net.partition), processes)
    chosen = [balanced(module_seconds(net), processes) if dist.get_rank(group) == 0 else None]
    dist.broadcast_object_list(chosen, group=group, group_src=0)
    assert chosen[0] is not None
    return chosen[0]


def _drop_others(parts: Iterable[nn.Module], own: set[int]) -> None:
    """Put all tensors that are not this process's on the meta device, where they take no memory."""
    on_meta: dict[int, Tensor] = {}
    for part in {id(inner): inner for outer in parts for inner in outer.modules()}.values():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is None or tensor.is_meta or id(tensor) in own:
                    continue
                if id(tensor) not in on_meta:
                    meta = torch.empty_like(tensor, device="meta")
                    is_parameter = isinstance(tensor, nn.Parameter)
                    on_meta[id(tensor)] = nn.Parameter(meta, tensor.requires_grad) if is_parameter else meta
                tensors[name] = on_meta[id(tensor)]  # pyright: ignore[reportArgumentType]
