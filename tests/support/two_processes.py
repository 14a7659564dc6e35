"""What each of two processes does in the test of docs/several-processes.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed._composable.replicate import replicate
from torch.nn.parallel import DistributedDataParallel

import locallearn as ll

PAGE = Path(__file__).parents[2] / "docs" / "several-processes.md"


def made() -> ll.LocalNet:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    return ll.localize(nn.Sequential(*layers).double(), ll.HiLo(ll.Pooling()), input_shape=(3, 8, 8))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randn(8, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return images, torch.arange(8) % 3


def recipe() -> dict:
    *_, code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict = {}
    exec(code, names)
    return names


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        net = made()
        images, labels = batch()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        recipe()["train"](net, optimizer, [(images[rank::2], labels[rank::2])])
        torch.save(net.state_dict(), f"{folder}/{rank}.pt")
        wrapped = made()
        wrapper = DistributedDataParallel(wrapped)
        with pytest.raises(ll.LocalLearnError, match=r"on_complete.*several-processes"):
            wrapped.backward(images, labels)
        del wrapper
        net.backward(images, labels)  # a net that has trained, and was looked at
        wrapper = DistributedDataParallel(net.model[2])
        with pytest.raises(ll.LocalLearnError, match="DistributedDataParallel is around"):
            net.backward(images, labels)
        del wrapper
        net.backward(images, labels)
        replicate(net.model)
        with pytest.raises(ll.LocalLearnError, match="replicate is around"):
            net.backward(images, labels)
        with pytest.raises(ll.LocalLearnError, match="DistributedDataParallel"):
            ll.localize(DistributedDataParallel(made().model), ll.BP(), input_shape=(3, 8, 8))
    finally:
        dist.destroy_process_group()
