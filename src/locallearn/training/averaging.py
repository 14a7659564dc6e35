"""The moving average of a backbone's weights, with which it is evaluated and exported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from locallearn._engine.local_net import LocalNet


class WeightAverage:
    r"""The exponential moving average of a backbone's weights over training steps t = 1, 2, ...

    .. math::
        \bar w_t = d_t\, \bar w_{t-1} + (1 - d_t)\, w_t, \qquad d_t = \min\Bigl(d, \frac{1 + t}{10 + t}\Bigr)

    The decay rises to d (as in TensorFlow's `ExponentialMovingAverage`), so that the first weights do not count in a
    short run. Running statistics are averaged too; numbers without fractions are copied. Auxiliary networks, which are
    thrown away, have no average. The average takes the memory of the backbone's weights once more.

    PyTorch's `AveragedModel` is not used: it runs a copy of the whole network, and some processes have a part of it.

    Args:
        net: the network, or this process's part of it, on its device.
        decay: d, from 0 to below 1.
    """

    def __init__(self, net: LocalNet, decay: float) -> None:
        self._net, self.decay = net, decay
        self._names = {f"model.{name}" for name in net.model.state_dict()}
        tensors = dict[str, Tensor]((*net.named_parameters(), *net.named_buffers()))
        self._current = [tensor for name, tensor in tensors.items() if name in self._names]
        self._averages = [tensor.detach().clone() for tensor in self._current]

    @property
    def nbytes(self) -> int:
        """Bytes of the averages."""
        return sum(average.nbytes for average in self._averages)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after a training step.

        Args:
            step: its number over all epochs, from 1.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = list(zip(self._averages, self._current, strict=True))
        moving = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([average for average, _ in moving], [tensor for _, tensor in moving], 1 - decay)
        for average, tensor in pairs:
            if not average.is_floating_point():
                average.copy_(tensor)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The network has the averages as its weights; no memory moves."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by the names of weights in the network's state dict; all processes of a network call it."""
        with self.in_use():
            state = self._net.state_dict()
        return {name: tensor for name, tensor in state.items() if name in self._names}

    def _exchange(self) -> None:
        for place, tensor in enumerate(self._current):
            self._averages[place], tensor.data = tensor.data, self._averages[place]
