"""A padded convolution that is correct, and cheap, on 1 x 1 maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PaddedConv(nn.Conv2d):
    """A convolution with an odd kernel, padded by half of it; on a single position the kernel's middle does all.

    The rest of the kernel meets padding alone. (Its gradient is zero, but oneDNN, PyTorch's library on a CPU, leaves it
    unset in bfloat16 with a stride of two.)
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[2:].numel() > 1:
            return super().forward(input)
        return F.conv2d(input, self.weight[:, :, self.kernel_size[0] // 2, self.kernel_size[1] // 2, None, None])
