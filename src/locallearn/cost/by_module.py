"""The bytes of a step, module by module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from locallearn._engine.local_net import LocalNet
from locallearn._engine.segment import segment_spans
from locallearn._objectives.auxiliary import Auxiliary
from locallearn._planning.prediction import without_data
from locallearn._torch.device import mixed
from locallearn._torch.live_bytes import LiveBytes


@dataclass(frozen=True, kw_only=True)
class ModuleBytes:
    """Bytes while one local module, or one graph segment of several, is trained.

    Attributes:
        first, last: the first and the last of these modules.
        before: activations alive when it begins: its input, and what unfinished objectives saved in earlier modules.
        saved: activations that its forward pass saves, with its output.
        auxiliary: the most that its auxiliary networks add to these.
        backward: the most that its own backward pass adds to these.
        peak: the most activations at any moment; a forward pass can need more than it saves.
        weights: parameters and buffers of the module and of the auxiliary networks that end there.
        gradients: gradients of these parameters, where they are trained.
    """

    first: int
    last: int
    before: int
    saved: int
    auxiliary: int
    backward: int
    peak: int
    weights: int
    gradients: int


class _Recorder:
    """Records live bytes where a module's forward pass, its auxiliary networks and its backward pass meet."""

    def __init__(self, live: LiveBytes) -> None:
        self._live = live
        self.rows: list[dict[str, int]] = []
        self._begin()

    def _begin(self) -> None:
        self._live.take_peak()
        self._now = {"before": self._live.activations, "saved": 0, "auxiliary": 0, "backward": 0, "peak": 0}
        self._saved = self._live.activations
        self._is_forward = True

    def _take(self, name: str) -> None:
        most = self._live.take_peak()
        self._now["peak"] = max(self._now["peak"], most)
        if name != "saved":
            self._now[name] = max(self._now[name], most - self._saved)

    def auxiliary_begins(self) -> None:
        self._take("saved" if self._is_forward else "backward")
        if self._is_forward:
            self._saved, self._is_forward = self._live.activations, False
            self._now["saved"] = self._saved - self._now["before"]

    def auxiliary_ends(self) -> None:
        self._take("auxiliary")

    def segment_ends(self) -> None:
        self._take("backward")
        self.rows.append(self._now)
        self._begin()


def bytes_by_module(net: LocalNet, batch: int, *, autocast: torch.dtype | None = None) -> list[ModuleBytes]:
    """Count the bytes of a step by module, without training; the network is not changed.

    Args:
        net: the network.
        batch: images in the batch.
        autocast: dtype of mixed precision, or None.
    """
    with without_data(net, batch) as (copy, images, labels), mixed(images.device, autocast):
        step = copy.step(images, labels)
        known = [*copy.parameters(), *copy.buffers(), images, labels]
        with LiveBytes(known=known, parameters=copy.parameters()) as live:
            recorder = _Recorder(live)
            for auxiliary in {id(o.auxiliary): o.auxiliary for o in copy.objectives}.values():
                _record(auxiliary, recorder)
            step.on_segment = recorder.segment_ends
            step.run()
    spans = segment_spans(net.objectives, net.part)
    return [_row(net, span, sizes) for span, sizes in zip(spans, recorder.rows, strict=True)]


def _record(auxiliary: Auxiliary, recorder: _Recorder) -> None:
    def begins(*_: object) -> None:
        recorder.auxiliary_begins()

    def ends(after: Callable[[], None] = auxiliary.after_backward) -> None:
        recorder.auxiliary_ends()
        after()

    auxiliary.register_forward_pre_hook(begins)
    auxiliary.after_backward = ends


def _row(net: LocalNet, span: range, sizes: dict[str, int]) -> ModuleBytes:
    auxiliaries = [objective.auxiliary for module in span for objective in net.objectives_of(module)]
    parts = nn.ModuleList([*(net.local_modules[module] for module in span), *auxiliaries])
    return ModuleBytes(
        first=span[0],
        last=span[-1],
        weights=sum(tensor.nbytes for tensor in (*parts.parameters(), *parts.buffers())),
        gradients=sum(p.nbytes for p in parts.parameters() if p.requires_grad),
        **sizes,
    )
