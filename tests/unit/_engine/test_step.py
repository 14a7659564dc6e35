"""What a step computes: isolated gradients, those of a plain reference, and those of backpropagation."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import locallearn as ll
from locallearn.cost import LiveBytes
from networks import (
    ALL_RULES,
    LOCAL_RULES,
    RESNET20_MODULES,
    RULES,
    SMALL,
    assert_same,
    batch,
    conv_net,
    gradients,
    gradients_of,
    local_net,
    resnet20,
    small_net,
    summed_backward,
    summed_losses,
)

GROUPED = {"DGL": [3, 3, 2, 2], "AugLocal d=3": [3, 3, 4], "BP": [10]}  # layers in each module when four are asked for


@pytest.mark.parametrize("rule", LOCAL_RULES)
def test_an_objective_reaches_only_the_modules_it_spans(rule):
    calls = chosen = 0

    def loss_of_the_chosen_objective(logits, labels):
        nonlocal calls
        calls += 1
        return F.cross_entropy(logits, labels) * (calls - 1 == chosen)

    sizes = RESNET20_MODULES[rule]
    net = small_net(rule, loss=loss_of_the_chosen_objective)
    for chosen in (0, len(sizes) // 2, len(sizes) - 1):
        calls = 0
        net.zero_grad()
        net.backward(*batch())
        layers = list(net.model.chain().layers.values())
        own = layers[sum(sizes[:chosen]) : sum(sizes[: chosen + 1])]
        inside = {id(p) for part in (*own, net.objectives[chosen].auxiliary) for p in part.parameters()}
        for name, parameter in net.named_parameters():
            moved = parameter.grad is not None and parameter.grad.abs().max() > 0
            assert moved == (id(parameter) in inside), name


@pytest.mark.parametrize("rule", RULES)
def test_per_module_gradients_equal_those_of_the_summed_losses(rule):
    net = small_net(rule)
    reference = copy.deepcopy(net)
    losses = net.backward(*batch())
    expected = summed_backward(reference, RESNET20_MODULES[rule], *batch())
    assert torch.equal(losses, expected)
    assert not losses.requires_grad
    assert_same(gradients(net), gradients(reference))
    assert_same(dict(net.named_buffers()), dict(reference.named_buffers()))


@pytest.mark.parametrize("rule", GROUPED)
def test_modules_of_several_layers_equal_the_summed_losses_too(rule):
    net = small_net(rule, modules=4)
    reference = copy.deepcopy(net)
    net.backward(*batch())
    summed_backward(reference, GROUPED[rule], *batch())
    assert_same(gradients(net), gradients(reference))


def plain_steps(model: nn.Module, steps: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    for step in range(steps):
        images, labels = batch(seed=step)
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()


def local_steps(net: ll.LocalNet, steps: int) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    for step in range(steps):
        net.backward(*batch(seed=step))
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("modules", ["all", 1, 4])
def test_bp_is_a_plain_pytorch_step_bit_for_bit(modules):
    plain = resnet20()
    plain_steps(plain, 3)
    net = small_net("BP", modules=modules)
    local_steps(net, 3)
    assert_same(net.model.state_dict(), plain.state_dict())


@pytest.mark.parametrize("rule", ALL_RULES)
def test_one_module_is_plain_backpropagation_bit_for_bit(rule):
    plain = resnet20()
    plain_steps(plain, 3)
    net = small_net(rule, modules=1)
    local_steps(net, 3)
    assert len(net.objectives) == 1
    assert list(net.auxiliary.parameters()) == []
    assert_same(net.model.state_dict(), plain.state_dict())


def test_a_loss_is_that_of_the_classifier():
    plain = resnet20()
    images, labels = batch()
    assert torch.equal(small_net("DGL").backward(images, labels)[-1], F.cross_entropy(plain(images), labels).detach())


@pytest.mark.parametrize("modules", ["all", 3])
def test_checkpointing_gives_the_gradients_and_buffers_of_backpropagation(modules):
    bp, recomputed = small_net("BP"), small_net("Checkpoint", modules=modules)
    for seed in (1, 2):
        assert torch.equal(bp.backward(*batch(seed=seed)), recomputed.backward(*batch(seed=seed)))
    assert_same(gradients(recomputed), gradients(bp))
    buffers = dict(recomputed.named_buffers())
    assert_same(buffers, dict(bp.named_buffers()))
    assert {int(b) for name, b in buffers.items() if name.endswith("num_batches_tracked")} == {2}


def test_checkpointing_replays_dropout():
    found = []
    for rule in (ll.BP(), ll.Checkpoint()):
        net = ll.localize(conv_net(dropout=0.5), rule, input_shape=SMALL)
        torch.manual_seed(3)
        net.backward(*batch(classes=5))
        found.append((gradients(net), torch.rand(4)))
    assert_same(found[1][0], found[0][0])
    assert torch.equal(found[1][1], found[0][1])


def counted(forward, name: str, counts: dict[str, int]):
    def count(x):
        counts[name] += 1
        return forward(x)

    return count


def forward_runs(net: ll.LocalNet) -> list[int]:
    counts = dict.fromkeys(net.model.chain().layers, 0)
    for name, layer in net.model.chain().layers.items():
        first = next(part for part in layer.modules() if isinstance(part, nn.Conv2d))
        first.forward = counted(first.forward, name, counts)  # a hook would fire once
    net.backward(*batch())
    return list(counts.values())


@pytest.mark.parametrize("rule", RULES)
def test_each_module_runs_forward_once_per_step_unless_recomputed_on_purpose(rule):
    assert forward_runs(small_net(rule)) == [2 if rule == "Checkpoint" else 1] * 10


def peak_of(net: ll.LocalNet, step, images, labels) -> int:
    step(images, labels)  # makes the gradients
    known = [*net.parameters(), *net.buffers(), images, labels]
    with LiveBytes(known=known, parameters=net.parameters()) as live:
        step(images, labels)
    return live.peak_activations


@pytest.mark.parametrize(("rule", "factor"), [("DGL", 0.4), ("AugLocal d=2", 0.3), ("AugLocal d=3", 0.3)])
def test_the_peak_of_live_bytes_is_far_below_that_of_the_summed_backward(rule, factor):
    net = small_net(rule)
    images, labels = batch(16)
    engine = peak_of(net, net.backward, images, labels)
    summed = peak_of(net, lambda *xs: summed_backward(net, RESNET20_MODULES[rule], *xs), images, labels)
    assert engine < factor * summed


def test_checkpointing_has_a_lower_peak_than_backpropagation():
    nets = [small_net(rule) for rule in ("BP", "Checkpoint")]
    bp, recomputed = (peak_of(net, net.backward, *batch(16)) for net in nets)
    assert recomputed < 0.5 * bp


def sum_over(*parts):
    return {name: sum(part[name] for part in parts) for name in parts[0]}


@pytest.mark.parametrize("rule", RULES)
def test_accumulated_gradients_are_the_sum_over_micro_batches(rule):
    first, second = batch(6, seed=1), batch(4, seed=2)
    expected = sum_over(gradients_of(small_net(rule), *first), gradients_of(small_net(rule), *second))
    net = small_net(rule)
    net.backward(*first, final=False)
    net.backward(*second, final=True)
    assert_same(gradients(net), expected)


@pytest.mark.parametrize("scale", [0.25, torch.tensor(0.25), 1024.0], ids=["float", "tensor", "large"])
@pytest.mark.parametrize("rule", ["BP", "Checkpoint", "DGL", "AugLocal d=2"])
def test_scale_multiplies_gradients_but_not_the_losses(rule, scale):
    plain, scaled = small_net(rule), small_net(rule)
    losses = plain.backward(*batch())
    assert torch.equal(scaled.backward(*batch(), scale=scale), losses)
    expected = {name: gradient * scale for name, gradient in gradients(plain).items()}
    assert_same(gradients(scaled), expected)  # powers of two are exact


class Weighted(ll.DGL):
    def spans(self, modules):
        return [ll.Span(first=i, last=i, weight=2.0 ** (i - 4)) for i in range(modules)]


def test_weights_multiply_gradients_but_not_the_losses():
    plain = small_net("DGL")
    weighted = local_net(Weighted())
    assert [o.weight for o in weighted.objectives] == [2.0 ** (i - 4) for i in range(10)]
    assert torch.equal(plain.backward(*batch()), weighted.backward(*batch()))
    for module in range(10):
        pairs = zip(plain.parameters_of(module), weighted.parameters_of(module), strict=True)
        assert all(torch.equal(a.grad * 2.0 ** (module - 4), b.grad) for a, b in pairs)


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
    net = local_net(RULES[rule], dtype=torch.float64)
    images, labels = batch()
    assert {p.dtype for p in net.parameters()} == {torch.float64}
    assert net.backward(images.double(), labels).dtype == torch.float64


@pytest.mark.parametrize("rule", LOCAL_RULES)
def test_channels_last_changes_nothing(rule):
    plain, last = small_net(rule), small_net(rule).to(memory_format=torch.channels_last)
    images, labels = batch()
    expected = plain.backward(images, labels)
    found = last.backward(images.to(memory_format=torch.channels_last), labels)
    assert len(found) == len(RESNET20_MODULES[rule])
    torch.testing.assert_close(found, expected)
