"""The network that `localize` returns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from math import isfinite, prod
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from locallearn._chain.local_module import LocalModule
from locallearn._engine.model_watch import ModelWatch
from locallearn._engine.recompute_plan import Memory, plan_recompute
from locallearn._engine.refusals import (
    DistributedWatch,
    is_cross_entropy,
    refuse_frozen,
    refuse_image_type,
    refuse_label_shape,
    refuse_other_classes,
    refuse_other_images,
    refuse_other_labels,
    refuse_recomputing_compiled,
    refuse_stepping_hooks,
    refuse_without_gradients,
    takes_one_class,
)
from locallearn._engine.step import Step, independent, refuse_non_finite
from locallearn._engine.streams import streams_of
from locallearn._nn.checkpointed import Checkpointed
from locallearn._nn.outputs import main_output
from locallearn._objectives.checks import first_part_that_needs_several
from locallearn._objectives.objective import Objective
from locallearn._objectives.sites import Sites
from locallearn._recompute.policy import RecomputePlan
from locallearn._torch import private_api
from locallearn._torch.device import is_out_of_memory, mixed_now
from locallearn._utils.errors import LocalLearnError, LocalLearnWarning, UnpredictableError

_WORTH_A_PLAN = 2**26
"""Bytes of all layers' outputs below which `fast` recomputes nothing."""

GRADIENT_BUCKET = 2**20
"""Bytes of gradients that processes sum at once: those of small modules wait for the next ones."""


class GradientSharing(Protocol):
    """Shares the gradients of a step with other processes, each module's when they are complete.

    Attributes:
        images: of all processes in the last optimizer step.
    """

    images: int

    def begin(self, images: Tensor, on_complete: Callable[[int], None] | None, *, final: bool) -> Callable[[int], None]:
        """Start a (micro-)batch; what to call when a module's gradients are complete."""
        ...

    def end(self, losses: Tensor, *, final: bool) -> Tensor:
        """Finish it; the losses of all processes."""
        ...


ExplainOutOfMemory = Callable[["LocalNet", Tensor, range], Exception]
"""From the network, the images and the local modules that ran to the error that is raised."""


class LocalNet(nn.Module):
    """A backbone, trained in place by local objectives. Made by `localize`.

    Attributes:
        model: the backbone itself; its state-dict keys are unchanged.
        auxiliary: the auxiliary networks, thrown away after training.
        objectives: the objectives in order of `last`, narrow spans first.
        chain: the backbone's layers and their shapes.
        partition: which layers make which local module.
        local_modules: the local modules, which hold the backbone's own layers.
        part: numbers of these modules: all, except under `parallel.modules`.
        loss: the task's loss.
        label_shape: of one image, (), or (classes,) of probabilities and several labels; a predicted step needs it.
        memory: "fast", "lean" or "least".
        overlap: how many modules may still go backward while the next one runs forward, on a CUDA GPU.
        steps: number of finished training steps, by which errors name a step.
        gradient_sharing: shares the gradients of each step with other processes, or None.
        recomputes: whether a step may recompute in its backward pass.
        recompute_plans: plans of earlier steps, by memory setting, precision, mode and frozen parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Sites,
        local_modules: Sequence[LocalModule],
        objectives: Sequence[Objective],
        memory: Memory,
        *,
        explain_out_of_memory: ExplainOutOfMemory,
    ) -> None:
        super().__init__()
        self.model = model
        self.chain, self.partition, self.loss = sites.chain, sites.partition, sites.loss
        # Tuples are not registered, so that each tensor is in the state dict once, under the backbone's own name.
        self.local_modules = tuple(local_modules)
        self.part = range(len(self.local_modules))
        self.objectives = tuple(objectives)
        networks = {id(o.auxiliary): o.auxiliary for o in objectives if o.last < len(self.partition) - 1}
        self.auxiliary = nn.ModuleList(networks.values())
        if isinstance(module := getattr(self.loss, "func", None), nn.Module):
            self.loss_module = module  # its buffers follow the network
        self.steps = 0
        self.label_shape: tuple[int, ...] = ()
        self.memory: Memory = memory
        self.overlap = 0
        self._explain_out_of_memory = explain_out_of_memory
        self._compiled = False
        self._independent = independent(self.local_modules, self.objectives)
        self._watch = ModelWatch(model, (*local_modules, self.chain.classifier))
        self._distributed = DistributedWatch()
        self._known_types: set[Hashable] = set()
        self._warned_of: set[str] = set()
        self.recompute_plans: dict[Hashable, RecomputePlan | None] = {}
        self.gradient_sharing: GradientSharing | None = None
        self.recomputes = True

    def forward(self, images: Tensor) -> Tensor:
        """Inference: the backbone alone; of several outputs, `logits` or the first tensor."""
        return main_output(self.model(images))

    def backward(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        scale: float | Tensor = 1.0,
        final: bool = True,
        on_complete: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Forward and all local backwards of one (micro-)batch; gradients are added to `.grad`.

        Args:
            images: (batch, channels, height, width).
            labels: (batch,) class indices, or whatever the loss takes.
            scale: factor of every loss, for accumulation; for a gradient scaler `scaler.scale(torch.ones(()))`, on the
                images' device (`scaler.get_scale()` would leave the scaler unprepared).
            final: whether an optimizer step follows; False for all but the last micro-batch.
            on_complete: called with a local module's index as soon as the gradients of its parameters and of the
                auxiliary networks that end there (`parameters_of`) are complete, so that they can be clipped, stepped
                and freed.

        Returns:
            One loss per objective, detached and unweighted, of shape (objectives,).

        Raises:
            LocalLearnError: images of another size than localized for, labels outside the classes, or one image where a
                layer needs the statistics of several.
            OutOfMemoryError: memory ran out; gradients are incomplete, so zero them before you go on.
            NonFiniteLossError: a loss is NaN or infinite; gradients are spoilt, so zero them before you go on. EMA
                copies have moved towards their layers. Where the images held NaN, running statistics of normalisation
                do too: go back to a checkpoint.
        """
        self.check(images, labels)
        if not isinstance(scale, Tensor) and not isfinite(scale):
            raise LocalLearnError(f"scale={scale} must be a finite number: it is a factor of every loss.")
        completed: list[int] = []
        sharing = self.gradient_sharing
        if sharing is not None:
            on_complete = sharing.begin(images, on_complete, final=final)
        losses = self.unchecked_backward(
            images, labels, scale=scale, final=final, on_complete=on_complete, completed=completed
        )
        if sharing is not None:
            losses = sharing.end(losses, final=final)
        self.finish_step(losses, completed, final=final)
        return losses

    def unchecked_backward(self, images: Tensor, labels: Tensor, **settings: Any) -> Tensor:
        """As `backward`, but never waits for the device: it checks neither images nor losses."""
        step = self.step(images, labels, **settings)
        if private_api.has_global_backward_hooks():
            _out_of_place(self.auxiliary)
        try:
            return step.run()
        except (RuntimeError, MemoryError) as error:
            if private_api.is_of_backward_hook(error):
                raise LocalLearnError(
                    "a full backward hook is on a module before or after one that works in place, which PyTorch refuses"
                    " in any training: set inplace=False in the network, or remove the hook."
                ) from error
            if not is_out_of_memory(error):
                if mixed_now(images.device) is None:
                    refuse_image_type(images, next(self.parameters()), error)
                raise
        # outside of the handler, where the error's frames would hold the step's tensors
        span = step.span
        del step
        raise self._explain_out_of_memory(self, images, span)

    def step(self, images: Tensor, labels: Tensor, **settings: Any) -> Step:
        """A training step, not yet run; `settings` are the attributes of `Step`."""
        settings.setdefault("objectives", self.objectives)
        step = Step(modules=self.local_modules, images=images, labels=labels, first=self.part.start, **settings)
        step.plan = self._recompute_plan(step)
        if self._independent:
            step.streams = streams_of(images.device, self.overlap)
        return step

    def finish_step(self, losses: Tensor, completed: Sequence[int], *, final: bool = True) -> None:
        """Check the losses of an `unchecked_backward`, and count the step.

        Args:
            losses: of all objectives.
            completed: modules for which `on_complete` was called.
            final: whether an optimizer step follows.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite.
        """
        refuse_non_finite(losses, self.objectives, step=self.steps + 1, completed=completed)
        self.steps += final

    def _recompute_plan(self, step: Step) -> RecomputePlan | None:
        """What each part recomputes in its backward pass, as `memory` and the precision of this moment ask for.

        The first step finds it, in seconds. It is None for compiled parts, which decide for themselves, and for steps
        in `fast` that are too small to be worth it.
        """
        if self._compiled:
            refuse_recomputing_compiled(self.memory)
        images = step.images
        outputs = len(images) * images.element_size() * sum(map(prod, self.chain.shapes))
        if not self.recomputes or self._compiled or (self.memory == "fast" and outputs < _WORTH_A_PLAN):
            return None
        frozen = tuple(parameter.requires_grad for parameter in self.parameters())
        key = self.memory, mixed_now(images.device), self.training, frozen
        if key not in self.recompute_plans:
            try:
                self.recompute_plans[key] = plan_recompute(step, self.memory)
            except UnpredictableError as error:
                self.recompute_plans[key] = None
                if self.memory != "fast":
                    self._warn(f"memory={self.memory} recomputes nothing: {error}")
        return self.recompute_plans[key]

    def parameters_of(self, module: int) -> list[nn.Parameter]:
        """Parameters of a local module and of the auxiliary networks that end there; over all modules, each once.

        Raises:
            LocalLearnError: there is no such module.
        """
        if not 0 <= module < len(self.partition):
            raise LocalLearnError(f"module {module}: local modules are 0 to {len(self.partition) - 1}.")
        here = [self.local_modules[module - self.part.start]] if module in self.part else []
        parts = (*here, *(objective.auxiliary for objective in self.objectives_of(module)))
        return list({id(parameter): parameter for part in parts for parameter in part.parameters()}.values())

    def objectives_of(self, module: int) -> list[Objective]:
        """Objectives that end with a local module."""
        return [objective for objective in self.objectives if objective.last == module]

    @torch.no_grad()
    def logits(self, images: Tensor) -> list[Tensor | None]:
        """Logits of each objective, (batch, classes), or None where its auxiliary network does not classify.

        As for any inference, put the network in evaluation mode first.
        """
        features, logits = images, []
        for index, module in zip(self.part, self.local_modules, strict=True):
            features = module(features)
            logits += [objective.logits(features) for objective in self.objectives_of(index)]
        return logits

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile each local module and auxiliary network by itself, with the arguments of `torch.compile`.

        Where objectives overlap, compiled graphs go backward several times, so PyTorch's reuse of their memory (donated
        buffers) is switched off for the whole process.

        Raises:
            LocalLearnError: `memory` is not "fast".
        """
        refuse_recomputing_compiled(self.memory)
        parts = (*self.local_modules, *(objective.auxiliary for objective in self.objectives))
        checkpointed = [[layer for layer in part.modules() if isinstance(layer, Checkpointed)] for part in parts]
        compiled = [layer for part, layers in zip(parts, checkpointed, strict=True) for layer in (layers or [part])]
        private_api.allow_compilations(3 * len(compiled))  # in training, with and without a graph, and in evaluation
        if sum(1 + objective.last - objective.first for objective in self.objectives) > len(self.local_modules):
            private_api.keep_compiled_graphs()
        for part in compiled:
            part.compile(*args, **kwargs)
        self._compiled = True

    @cached_property
    def needs_several(self) -> str | None:
        """Name of a part that cannot train on a single image (it normalises vectors over the batch), or None."""
        return first_part_that_needs_several(self.local_modules, self.objectives, self.chain.image_shape)

    def check(self, images: Tensor, labels: Tensor) -> None:
        """Refuse images and labels that this network cannot be trained on, and a network that was changed."""
        refuse_without_gradients()
        refuse_frozen((*self.model.parameters(), *self.auxiliary.parameters()), self.steps)
        refuse_other_images(images, self.chain.image_shape)
        refuse_other_labels(labels, images)
        self._refuse_image_type(images)
        if takes_one_class(self.loss):
            refuse_label_shape(labels, self.chain.classes)
        if is_cross_entropy(self.loss):
            # Reading labels waits for an accelerator, so there the first step alone is checked.
            look = labels.device.type == "cpu" or self.steps == 0
            refuse_other_classes(labels, self.chain.classes, look=look)
        if len(images) == 1 and self.training and self.needs_several is not None:
            raise LocalLearnError(
                f"a batch of one image: {self.needs_several} normalises over the batch and needs at least two."
                " Drop the last batch, or choose another batch size."
            )
        if self.memory == "least":
            refuse_stepping_hooks(self.named_parameters())
        self._distributed.refuse(self)
        if replaced := self._watch.replaced():
            raise LocalLearnError(
                f"{replaced!r} was replaced after localize, so it would not be trained: change the network first, then"
                " call localize again."
            )
        self._warn_of_silence()

    def _refuse_image_type(self, images: Tensor) -> None:
        """Try the first local module on images of a type and device, without computing, once for each."""
        reference = next(self.parameters())
        if reference.is_meta and not images.is_meta:
            raise LocalLearnError(
                "the network is on the meta device, where nothing is computed: call net.model.to_empty(device=...),"
                " load its weights, and localize it again."
            )
        key = images.dtype, images.device, mixed_now(images.device)
        if (images.dtype, images.device) == (reference.dtype, reference.device) or key in self._known_types:
            return
        with private_api.fake_mode() as mode, torch.no_grad():
            first = private_api.fake_copy(self.local_modules[0], mode).train()
            try:
                first(mode.from_tensor(images[:1]).expand(2, *images.shape[1:]).clone())
            except (RuntimeError, TypeError, ValueError) as error:
                refuse_image_type(images, reference, error)
                raise
        self._known_types.add(key)

    def _warn_of_silence(self) -> None:
        """Warn once of hooks that do not fire, and of attributes whose change has no effect."""
        if names := self._watch.silent_hooks():
            self._warn(
                f"hooks on {', '.join(names)} do not fire in backward, which runs the layers inside: register them on"
                " the layers."
            )
        is_power_of_two = self.steps & (self.steps - 1) == 0
        for name in self._watch.changed_attributes(inside=is_power_of_two):
            self._warn(
                f"the attribute {name!r} changed after localize, which has no effect in backward where the network's"
                " own code uses it: call localize again, or put that code into a module of its own."
            )

    def _warn(self, sentence: str) -> None:
        if sentence not in self._warned_of:
            self._warned_of.add(sentence)
            warnings.warn(sentence, LocalLearnWarning, stacklevel=5)


def _out_of_place(auxiliary: nn.Module) -> None:
    """Let activations of auxiliary networks write on nothing: PyTorch refuses it beside hooks on every module."""
    for part in auxiliary.modules():
        if getattr(part, "inplace", False):
            object.__setattr__(part, "inplace", False)
