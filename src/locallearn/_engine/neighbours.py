"""What a step over some of a network's modules exchanges with the processes that run the others."""

from __future__ import annotations

from torch import Tensor

from locallearn._objectives.auxiliary import Auxiliary


class Neighbours:
    """Exchanges nothing: the step runs all modules. `parallel` overrides the methods."""

    def passed_on(self, features: Tensor) -> None:
        """Called with the output of the last module once it is computed."""

    def send_gradient(self, stop_module: int, gradient: Tensor | None) -> None:
        """Called with the gradient of the first module's input that is to end at an earlier module."""

    def receive_gradient(self, stop_module: int) -> Tensor | None:
        """The gradient of the last module's output that later modules send to a stop module."""

    def before_use(self, auxiliary: Auxiliary) -> None:
        """Called before an auxiliary network runs."""

    def after_last_use(self, auxiliary: Auxiliary) -> None:
        """Called after the last backward through an auxiliary network in a step, before the optimizer."""


ALONE = Neighbours()
