"""The bytes of a step, by module."""

from __future__ import annotations

import pytest
import torch

import locallearn as ll
from locallearn.cost import bytes_by_module, draw_bytes, peak_memory
from networks import fresh_net, resnet20

RULES = [ll.BP(), ll.Checkpoint(), ll.DGL(), ll.AugLocal(depth=3), ll.HiLo(ll.DGL())]


@pytest.mark.parametrize("memory", ["fast", "lean", "least"])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_highest_module_is_the_peak_of_the_step(rule, memory):
    net = ll.localize(resnet20(), rule, modules=5, memory=memory, input_shape=(3, 16, 16))
    rows = bytes_by_module(net, 32)
    assert max(row.peak for row in rows) == pytest.approx(peak_memory(net, 32).activations, rel=1e-3)
    assert all(row.peak >= row.before + row.saved + max(row.auxiliary, row.backward) for row in rows)
    assert all(row.saved > 0 for row in rows)  # HiLo's first module too, after which no auxiliary network stands


def test_weights_and_gradients_are_each_counted_once():
    net = fresh_net("DGL")
    rows = bytes_by_module(net, 8)
    tensors = [*net.parameters(), *net.buffers()]
    assert sum(row.weights for row in rows) == sum(t.numel() * t.element_size() for t in tensors)
    assert sum(row.gradients for row in rows) == sum(4 * p.numel() for p in net.parameters())


def test_a_module_saves_activations_and_its_auxiliary_network_adds_to_them():
    image = 4 * 16 * 16 * 16  # of one feature map, in bytes
    row = bytes_by_module(fresh_net("DGL"), 64)[2]
    assert row.before >= 64 * image  # its input
    assert 2 * image * 64 <= row.saved
    assert row.auxiliary > 0
    assert row.backward > 0


def test_bf16_saves_about_half():
    net = fresh_net("DGL")
    whole, half = (bytes_by_module(net, 64, autocast=dtype)[3].saved for dtype in (None, torch.bfloat16))
    assert half <= 0.8 * whole


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_picture_has_the_format_of_its_ending(tmp_path, ending):
    path = tmp_path / f"bytes.{ending}"
    draw_bytes(bytes_by_module(fresh_net("DGL"), 8), path, title="a title")
    assert path.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml"}[ending])


def test_a_picture_of_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(ll.LocalLearnError, match=r"must end in one of .*\.png"):
        draw_bytes(bytes_by_module(fresh_net("DGL"), 8), tmp_path / "bytes.xyz")
