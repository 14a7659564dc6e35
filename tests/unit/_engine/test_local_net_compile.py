"""Compiled modules."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import locallearn as ll
from networks import HIDDEN_BY_TORCH, RULES, batch, conv_net, gradients


@HIDDEN_BY_TORCH
@pytest.mark.parametrize("rule", ["BP", "Checkpoint", "DGL", "AugLocal d=2"])
def test_compiled_modules_give_the_same_gradients_to_tolerance(rule):
    torch.compiler.reset()
    eager = ll.localize(conv_net(), RULES[rule], input_shape=(3, 8, 8))
    compiled = copy.deepcopy(eager)
    keys = list(compiled.state_dict())
    compiled.compile(backend="aot_eager")
    images, labels = batch(4, (3, 8, 8), 5)
    for _ in range(2):
        torch.testing.assert_close(compiled.backward(images, labels), eager.backward(images, labels))
    for name, gradient in gradients(eager).items():
        torch.testing.assert_close(gradients(compiled)[name], gradient, rtol=1e-4, atol=1e-6)
    buffers = dict(compiled.named_buffers())
    for name, buffer in eager.named_buffers():
        torch.testing.assert_close(buffers[name], buffer)
    assert list(compiled.state_dict()) == keys


@HIDDEN_BY_TORCH
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_kept_graphs_of_cascades_go_backward_several_times_when_compiled_to_machine_code():
    torch.compiler.reset()
    eager = ll.localize(conv_net(), ll.HiLo(ll.Pooling()), input_shape=(3, 8, 8))
    compiled = copy.deepcopy(eager)
    compiled.compile()
    images, labels = batch(4, (3, 8, 8), 5)
    for _ in range(2):
        torch.testing.assert_close(compiled.backward(images, labels), eager.backward(images, labels))
    for name, gradient in gradients(eager).items():
        torch.testing.assert_close(gradients(compiled)[name], gradient, rtol=1e-4, atol=1e-6)


@HIDDEN_BY_TORCH
@pytest.mark.parametrize("rule", ["BP", "Checkpoint", "DGL"])
def test_a_deep_copy_of_a_compiled_net_trains_its_own_weights(rule):
    torch.compiler.reset()
    net = ll.localize(conv_net(), RULES[rule], input_shape=(3, 8, 8))
    net.compile(backend="eager")
    images, labels = batch(4, (3, 8, 8), 5)
    expected = net.backward(images, labels)
    net.zero_grad()
    twin = copy.deepcopy(net)
    torch.testing.assert_close(twin.backward(images, labels), expected)
    assert all(p.grad is None for p in net.parameters())
    assert all(p.grad is not None for p in twin.parameters())


@HIDDEN_BY_TORCH
def test_batch_of_one_is_refused_by_name_when_compiled_as_well():
    torch.compiler.reset()
    net = ll.localize(conv_net(), ll.DGL(), input_shape=(3, 8, 8))
    net.compile(backend="eager")
    with pytest.raises(ll.LocalLearnError, match="auxiliary network of local module 0"):
        net.backward(*batch(1, (3, 8, 8), 5))


@HIDDEN_BY_TORCH
def test_compiled_modules_of_equal_shapes_share_their_code():
    torch.compiler.reset()
    counters.clear()
    blocks = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(5)]
    classifier = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    net = ll.localize(nn.Sequential(nn.Conv2d(3, 8, 1), *blocks, *classifier), ll.DGL(), input_shape=(3, 8, 8))
    net.compile(backend="aot_eager")
    net.backward(*batch(4, (3, 8, 8), 5))
    assert len(net.local_modules) == 6
    assert counters["stats"]["unique_graphs"] == 4  # the stem, a block, a head, and the classifier


@pytest.mark.parametrize("memory", ["lean", "least"])
def test_recomputation_is_refused_before_and_after_compile(memory):
    net = ll.localize(conv_net(), ll.DGL(), input_shape=(3, 8, 8), memory=memory)
    with pytest.raises(ll.LocalLearnError, match=f"memory={memory} does not work with compile: the compiler decides"):
        net.compile(backend="eager")
    net.memory = "fast"
    net.compile(backend="eager")
    net.memory = memory
    with pytest.raises(ll.LocalLearnError, match=f"memory={memory} does not work with compile"):
        net.backward(*batch(4, (3, 8, 8), 5))
