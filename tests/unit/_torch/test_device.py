"""Devices by name, their random state, their mixed precision."""

import pytest
import torch

from locallearn._torch.device import (
    device_name,
    device_of,
    is_out_of_memory,
    mixed,
    mixed_now,
    random_state,
    set_random_state,
)
from locallearn._utils.errors import LocalLearnError

CPU = torch.device("cpu")


def pretend_gpus(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (1, "cuda")])
def test_auto_is_a_gpu_where_there_is_one(monkeypatch, gpus, device):
    pretend_gpus(monkeypatch, gpus)
    assert device_of("auto") == torch.device(device)


@pytest.mark.parametrize(
    ("name", "gpus", "reason"),
    [
        ("gpu", 0, "unknown device 'gpu': give auto, cpu, cuda or cuda:0"),
        ("cuda", 0, "finds no CUDA GPU here: use --device cpu"),
        ("cuda:2", 2, "'cuda:2' is asked for, but there are 2 GPUs"),
        ("vulkan", 0, "this PyTorch cannot compute on device 'vulkan': give auto"),
        ("meta", 0, "'meta' computes nothing"),
    ],
)
def test_a_device_that_does_not_exist_is_refused(monkeypatch, name, gpus, reason):
    pretend_gpus(monkeypatch, gpus)
    with pytest.raises(LocalLearnError, match=reason):
        device_of(name)


def test_a_cpu_has_the_name_of_its_model():
    assert device_name(device_of("cpu")) not in ("", "cpu")


def test_random_numbers_repeat_from_a_saved_state():
    state = random_state(CPU)
    first = torch.rand(3)
    set_random_state(state, CPU)
    assert torch.equal(torch.rand(3), first)


def test_mixed_precision_is_known_while_it_is_on():
    assert mixed_now(CPU) is None
    with mixed(CPU, torch.bfloat16):
        assert mixed_now(CPU) == torch.bfloat16
        with mixed(CPU, None):
            assert mixed_now(CPU) == torch.bfloat16
    assert mixed_now(CPU) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("not enough memory"), False),
    ],
)
def test_errors_of_memory_are_told_from_others(error, expected):
    assert is_out_of_memory(error) == expected
