"""Devices by name, their random state, their mixed precision."""

import io
import random

import numpy as np
import pytest
import torch

from locallearn._torch.device import (
    all_random_states,
    device_name,
    device_of,
    is_out_of_memory,
    mixed,
    mixed_now,
    random_state,
    seed_all,
    set_all_random_states,
    set_random_state,
)
from locallearn._utils.errors import LocalLearnError, OutOfMemoryError

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


def test_a_checkpoint_has_the_random_numbers_of_python_and_numpy_too():
    def drawn() -> tuple:
        return torch.rand(3).tolist(), random.random(), random.gauss(), np.random.rand(), np.random.randn()

    before = all_random_states(CPU)
    try:
        seed_all(7)
        random.gauss(), np.random.randn()  # each has drawn a second one with it
        file = io.BytesIO()
        torch.save(all_random_states(CPU), file)
        first = drawn()
        file.seek(0)
        set_all_random_states(torch.load(file, weights_only=True), CPU)
        assert drawn() == first
        seed_all(7)
        once = drawn()
        seed_all(7)
        assert drawn() == once
    finally:
        set_all_random_states(before, CPU)


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
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (OutOfMemoryError("memory ran out", module=0, batch=1, predicted=None), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("not enough memory"), False),
    ],
)
def test_errors_of_memory_are_told_from_others(error, expected):
    assert is_out_of_memory(error) == expected
