"""Mixed precision, other dtypes, and compiled modules."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.utils import counters

import locallearn as ll
from networks import (
    HIDDEN_BY_TORCH,
    LOCAL_RULES,
    RESNET20_MODULES,
    RULES,
    assert_same,
    batch,
    conv_net,
    gradients,
    resnet20,
    small_net,
    summed_losses,
)


@pytest.mark.parametrize("rule", RULES)
def test_bf16_autocast_gives_the_gradients_of_the_summed_losses_under_autocast(rule):
    net = small_net(rule)
    reference = copy.deepcopy(net)
    with torch.autocast("cpu", torch.bfloat16):
        losses = net.backward(*batch())
        summed = summed_losses(reference, RESNET20_MODULES[rule], *batch())
    summed.sum().backward()
    assert torch.equal(losses, summed)
    assert {p.grad.dtype for p in net.parameters()} == {torch.float32}
    assert_same(gradients(net), gradients(reference))


@pytest.mark.parametrize("rule", ["BP", "Checkpoint", "DGL", "AugLocal d=2"])
def test_bf16_autocast_computes_in_bf16_and_loses_little(rule):
    full, mixed = small_net(rule), small_net(rule)
    expected = full.backward(*batch(16))
    with torch.autocast("cpu", torch.bfloat16):
        losses = mixed.backward(*batch(16))
    assert not torch.equal(losses, expected)
    torch.testing.assert_close(losses.float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("rule", ["BP", "Checkpoint"])
def test_bf16_autocast_of_backpropagation_is_that_of_plain_pytorch(rule):
    images, labels = batch()
    plain = resnet20()
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(plain(images), labels)
    loss.backward()
    net = small_net(rule)
    with torch.autocast("cpu", torch.bfloat16):
        net.backward(images, labels)
    assert_same(gradients(net.model), gradients(plain))


@pytest.mark.parametrize("rule", ["BP", "Checkpoint", "DGL", "AugLocal d=2"])
def test_double_precision_backbones_get_auxiliary_networks_alike(rule):
    net = ll.localize(resnet20().double(), RULES[rule], input_shape=(3, 16, 16))
    images, labels = batch()
    assert {p.dtype for p in net.parameters()} == {torch.float64}
    assert net.backward(images.double(), labels).dtype == torch.float64


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


@pytest.mark.parametrize("rule", LOCAL_RULES)
def test_channels_last_changes_nothing(rule):
    plain, last = small_net(rule), small_net(rule).to(memory_format=torch.channels_last)
    images, labels = batch()
    expected = plain.backward(images, labels)
    found = last.backward(images.to(memory_format=torch.channels_last), labels)
    assert len(found) == len(RESNET20_MODULES[rule])
    torch.testing.assert_close(found, expected)


@HIDDEN_BY_TORCH
def test_compiled_modules_of_equal_shapes_share_their_code():
    graphs = []
    for depth in (20, 32):
        torch.compiler.reset()
        counters.clear()
        model = getattr(ll.models, f"resnet{depth}")()
        net = ll.localize(model, ll.DGL(), input_shape=(3, 16, 16))
        net.compile(backend="aot_eager")
        net.backward(*batch(4))
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs == [10, 10]  # stem, a block of each stage and one of each change, three heads, the classifier
