"""What a training step asks of devices and links, phase by phase."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from locallearn.cost import Activity

Times = Mapping[tuple[Activity, int], float]
"""Seconds of a step for each activity of each local module."""


@dataclass(frozen=True, kw_only=True)
class PhaseLoad:
    """A time in which one local module does one thing.

    Attributes:
        activity: what it does.
        module: index of the module.
        fixed: seconds, whatever the number of images.
        per_image: seconds for each image, beside these.
        peak: bytes for each image that it holds at most, beyond those alive before.
        change: bytes for each image that stay alive after it, less those that it frees.
    """

    activity: Activity
    module: int
    fixed: float
    per_image: float
    peak: float = 0.0
    change: float = 0.0

    def seconds(self, images: int) -> float:
        """Its time with this number of images."""
        return self.fixed + self.per_image * images


@dataclass(frozen=True, kw_only=True)
class ModuleLoad:
    """What one local module asks for in all phases.

    Attributes:
        name: of its last layer.
        output: bytes of its output, for each image.
        state: bytes of its weights, buffers, gradients and optimizer state, with those of its auxiliary networks.
        gradients: bytes of these gradients.
        update: seconds of its optimizer step.
    """

    name: str
    output: float = 0.0
    state: float = 0.0
    gradients: float = 0.0
    update: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CopiedLayer:
    """A layer whose weights the auxiliary network of an earlier module averages (`EmaCopy`).

    Attributes:
        by: the module with the auxiliary network.
        of: the module with the layer.
        size: bytes of the weights.
    """

    by: int
    of: int
    size: float


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a training step asks of devices and links; made by `load_of`.

    Attributes:
        images: the number of images with which it was counted.
        image: bytes of one image.
        phases: the phases of a step on one device, in order.
        modules: the local modules.
        copied: the layers that EMA copies follow.
    """

    images: int
    image: float
    phases: tuple[PhaseLoad, ...]
    modules: tuple[ModuleLoad, ...]
    copied: tuple[CopiedLayer, ...] = ()

    def module_seconds(self, images: int) -> list[float]:
        """The time of each module in a step, with its optimizer step."""
        seconds = [module.update for module in self.modules]
        for phase in self.phases:
            seconds[phase.module] += phase.seconds(images)
        return seconds

    def times(self) -> dict[tuple[Activity, int], float]:
        """Seconds of each activity of each module, with `images` images."""
        seconds: defaultdict[tuple[Activity, int], float] = defaultdict(float)
        for phase in self.phases:
            seconds[phase.activity, phase.module] += phase.seconds(self.images)
        return dict(seconds)

    def with_times(self, times: Times) -> Load:
        """The same load with other times, those with `images` images; what they do not name takes no time.

        The part of each time that does not depend on the number of images stays as large in proportion.
        """
        before = self.times()
        scales = {what: times.get(what, 0.0) / seconds for what, seconds in before.items()}
        whole = sum(scales[what] * seconds for what, seconds in before.items()) / sum(before.values())
        return replace(
            self,
            phases=tuple(_scaled(phase, scales[phase.activity, phase.module]) for phase in self.phases),
            modules=tuple(replace(module, update=module.update * whole) for module in self.modules),
        )

    def on_faster_device(self, factor: float) -> Load:
        """The same load where everything is so many times faster."""
        return self.with_times({what: seconds / factor for what, seconds in self.times().items()})


def _scaled(phase: PhaseLoad, scale: float) -> PhaseLoad:
    return replace(phase, fixed=phase.fixed * scale, per_image=phase.per_image * scale)
