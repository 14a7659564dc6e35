"""MAN (Su et al., ECCV 2024): Eq. 6-7, sizes, when the moving average is taken, schedules, and the paper's form."""

import copy
import functools

import numpy as np
import pytest
import torch
from torch import nn

import locallearn as ll
from locallearn._engine.stepper import ModuleStepper, Stepper
from locallearn._nn.ema import EmaCopy
from networks import SMALL, batch, count, mlp, resnet20

BASE = ll.InfoPro.published("hpff")


def followers(network: nn.Module) -> list[EmaCopy]:
    return [part for part in network.modules() if isinstance(part, EmaCopy)]


def tensors(follower: EmaCopy) -> dict[str, torch.Tensor]:
    everything = dict(follower.network.named_parameters()) | dict(follower.network.named_buffers())
    return {name: everything[name] for name in everything if "running" not in name and "num_batches" not in name}


def ema_numbers(net: ll.LocalNet) -> int:
    return sum(tensor.numel() for follower in followers(net) for tensor in tensors(follower).values())


@functools.cache
def man(split: str, **options) -> ll.LocalNet:
    depth = 32 if split in ("hpff-8", "hpff-16") else 110
    model = getattr(ll.models, f"resnet{depth}")()
    return ll.localize(model, ll.MAN(BASE, **options), modules=split, input_shape=(3, 32, 32))


@pytest.mark.parametrize(
    ("split", "trainable", "ema"),
    [
        ("hpff-8", 640_755, 208_960),
        ("hpff-16", 1_346_598, 461_120),
        pytest.param("hpff-32", 2_853_483, 970_432, marks=pytest.mark.slow),
        pytest.param("hpff-55", 4_968_697, 1_724_928, marks=pytest.mark.slow),
    ],
)
def test_auxiliary_parameters(split, trainable, ema):
    net = man(split)
    assert count(net.auxiliary) == trainable
    assert ema_numbers(net) == ema


def front_and_head(objective: ll.Objective) -> tuple[nn.Module, ll.Auxiliary]:
    return objective.auxiliary.front, objective.auxiliary.auxiliary


def test_an_example_at_a_stage_border():
    """Module 2 ends with block 1.4; 2.0 follows, 16 -> 32 with stride 2 and a shortcut."""
    net = man("hpff-8")
    objective = net.objectives[2]
    assert net.chain.names[net.partition.ends[2]] == "layer1.4"
    front, head = front_and_head(objective)
    assert count(front) == ema_numbers(front) == 14_528
    assert count(head) == 65_162 + 3_819
    assert head.weights == pytest.approx((5 * (1 - 2 / 6), 0.5 * (1 - 2 / 6)))
    assert front(torch.randn(2, 16, 32, 32)).shape == (2, 32, 16, 16)
    assert objective.logits(torch.randn(2, 16, 32, 32)).shape == (2, 10)


# stage of the block that follows: its weights of reconstruction and task
STAGES = {
    "hpff-8": [(4.167, 0.4167), (3.333, 0.3333), (2.5, 0.25)],
    "hpff-16": [(4.643, 0.4643), (4.286, 0.4286), (3.929, 0.3929)],
    "hpff-32": [(4.833, 0.4833), (4.667, 0.4667), (4.5, 0.45)],
    "hpff-55": [(4.906, 0.4906), (4.811, 0.4811), (4.717, 0.4717)],
}


@pytest.mark.parametrize(
    "split",
    [split if split in ("hpff-8", "hpff-16") else pytest.param(split, marks=pytest.mark.slow) for split in STAGES],
)
def test_weights_count_the_stage_of_the_block_that_follows(split):
    net = man(split)
    for objective in net.objectives[:-1]:
        following = net.chain.names[net.partition.ends[objective.last] + 1]
        expected = STAGES[split][int(following[5]) - 1]
        assert front_and_head(objective)[1].weights == pytest.approx(expected, abs=5.1e-4)
        assert front_and_head(objective)[1].weights[1] == pytest.approx(expected[1], abs=5.1e-5)


@pytest.mark.parametrize(
    ("ends", "indices"),  # the stage, or the module where the stage is above K - 2
    [
        (["stem", "layer1.2", "layer2.2", "layer3.0"], [1, 2, 3, 3]),
        (["layer1.1", "layer2.1", "layer3.0"], [1, 2, 2]),
        (["layer1.2", "layer2.2"], [0, 1]),
        (["layer1.1", "layer2.0"], [1, 1]),
    ],
    ids=["5", "4", "3", "3 in stages 1 and 2"],
)
def test_where_a_stage_would_give_a_negative_weight_modules_are_counted(ends, indices):
    rule = ll.MAN(ll.InfoPro(lambda1=(4, 0), lambda2=(0, 2)))
    net = ll.localize(resnet20(), rule, modules=ends, input_shape=SMALL)
    ratios = [index / (len(ends) - 1) for index in indices]
    found = [front_and_head(o)[1].weights for o in net.objectives[:-1]]
    assert found == [pytest.approx((4 * (1 - r), 2 * r)) for r in ratios]


def test_in_the_paper_weights_count_modules():
    found = [front_and_head(o)[1].weights[0] for o in man("hpff-8", fidelity="paper").objectives[:-1]]
    assert found == pytest.approx([5 * (1 - i / 6) for i in range(7)])


def small(*, seed: int = 0, **options) -> ll.LocalNet:
    ends = ["stem", "layer1.2", "layer2.1"]
    model = resnet20(seed).double()
    return ll.localize(model, ll.MAN(ll.Pooling(), **options), modules=ends, input_shape=SMALL, seed=seed)


def images_and_labels(seed: int = 1):
    images, labels = batch(seed=seed)
    return images.double(), labels


def test_copies_are_no_parameters_but_are_in_the_state_dict():
    net = small()
    parameters = {id(p) for p in net.parameters()}
    state = {value.data_ptr() for value in net.state_dict().values()}
    assert len(followers(net)) == 3
    for follower in followers(net):
        for tensor in tensors(follower).values():
            assert id(tensor) not in parameters
            assert not tensor.requires_grad
            assert tensor.data_ptr() in state


def test_state_is_restored_with_the_copies():
    net, other = small(), small(seed=5)
    net.backward(*images_and_labels())
    other.load_state_dict(net.state_dict())
    for a, b in zip(followers(net), followers(other), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(tensors(a).values(), tensors(b).values(), strict=True))


def sources(net: ll.LocalNet) -> list[nn.Module]:
    return [net.chain.layers[end + 1] for end in net.partition.ends[:-1]]


def numbers(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in network.named_parameters()}


@pytest.mark.parametrize("stepper", [Stepper, ModuleStepper])
@pytest.mark.parametrize("momentum", [0.995, 0.5, 0.0, 1.0])
def test_eq7_copies_move_towards_the_weights_of_before_the_step(stepper, momentum):
    net = small(momentum=momentum)
    steps = stepper(net, lambda group: torch.optim.SGD(group, lr=0.1, momentum=0.9))
    replay = [{name: t.numpy().copy() for name, t in tensors(follower).items()} for follower in followers(net)]
    for step in range(3):
        before = [numbers(source) for source in sources(net)]
        net.backward(*images_and_labels(step), on_complete=steps.on_complete)
        steps.finish()
        for own, source in zip(replay, before, strict=True):
            for name in own:
                own[name] = momentum * own[name] + (1 - momentum) * source[name]
        for follower, own in zip(followers(net), replay, strict=True):
            assert tensors(follower).keys() == own.keys()
            for name, tensor in tensors(follower).items():
                np.testing.assert_allclose(tensor.numpy(), own[name], rtol=1e-12, atol=1e-14, err_msg=name)
        after = [numbers(source) for source in sources(net)]
        assert all((a[n] != b[n]).any() for a, b in zip(after, before, strict=True) for n in a)


def test_eq7_copies_move_with_the_last_micro_batch_alone():
    net = small(momentum=0.5)
    start = [copy.deepcopy(tensors(follower)) for follower in followers(net)]
    net.backward(*images_and_labels(), final=False)
    for follower, before in zip(followers(net), start, strict=True):
        assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(follower).items())
    net.backward(*images_and_labels(2), final=True)
    for follower, before in zip(followers(net), start, strict=True):
        assert not all(torch.equal(tensor, before[name]) for name, tensor in tensors(follower).items())


def test_running_statistics_are_the_copies_own():
    net = small(momentum=0.0)
    net.backward(*images_and_labels())
    for follower, source in zip(followers(net), sources(net), strict=True):
        own, theirs = dict(follower.named_buffers()), dict(source.named_buffers())
        assert own["network.bn1.num_batches_tracked"] == theirs["bn1.num_batches_tracked"] == 1
        assert not torch.allclose(own["network.bn1.running_mean"], theirs["bn1.running_mean"])


def test_the_next_layers_are_not_changed_by_their_copies():
    net = small(momentum=0.5)
    before = copy.deepcopy(net.model.state_dict())
    net.backward(*images_and_labels())
    for name, tensor in net.model.named_parameters():
        assert torch.equal(tensor, before[name]), name


def test_the_branches_are_added_and_both_send_their_gradient_to_the_module():
    net = small()
    front, _ = front_and_head(net.objectives[1])
    x = torch.randn(3, 16, 16, 16, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(front(x), front.bias(x) + front.ema(x))
    whole, bias, ema = (torch.autograd.grad(branch(x).sum(), x)[0] for branch in (front, front.bias, front.ema))
    torch.testing.assert_close(whole, bias + ema)
    net.backward(*images_and_labels())
    assert all(p.grad is not None for p in net.parameters())


def test_the_next_layer_and_its_two_copies_start_with_different_weights():
    net = small()
    for objective, source in zip(net.objectives[:-1], sources(net), strict=True):
        front, _ = front_and_head(objective)
        starts = [source.conv1.weight, front.bias.conv1.weight, front.ema.network.conv1.weight]
        for i, a in enumerate(starts):
            assert a.std().item() == pytest.approx((2 / (9 * a.shape[0])) ** 0.5, rel=0.1)
            assert not any(torch.equal(a, b) for b in starts[:i])


@pytest.mark.parametrize(("left_out", "alone"), [("ema", "bias"), ("bias", "ema")])
def test_table4_ema_or_bias_alone(left_out, alone):
    net = small(**{left_out: False})
    assert len(followers(net)) == (3 if alone == "ema" else 0)
    heads = sum(10 * net.chain.width(end + 1) + 10 for end in net.partition.ends[:-1])
    assert count(net.auxiliary) == heads + (sum(map(count, sources(net))) if alone == "bias" else 0)
    front, _ = front_and_head(net.objectives[0])
    x = torch.randn(3, 16, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(front(x), getattr(front, alone)(x))
    assert getattr(front, left_out) is None


def test_eq6_and_eq7_in_the_paper_the_copy_is_trained_and_moved_and_the_bias_is_a_vector():
    net = small(momentum=0.75, fidelity="paper")
    plain = sum(map(count, sources(net))) + sum(11 * net.chain.width(end + 1) + 10 for end in net.partition.ends[:-1])
    assert count(net.auxiliary) == plain
    front, _ = front_and_head(net.objectives[1])
    assert torch.equal(front.bias, torch.zeros_like(front.bias))
    assert front.bias.numel() == net.chain.width(net.partition.ends[1] + 1) == 32
    start = {name: p.detach().clone() for name, p in followers(front)[0].network.named_parameters()}
    source = numbers(sources(net)[1])
    net.backward(*images_and_labels())
    for name, p in followers(front)[0].network.named_parameters():
        assert p.requires_grad
        assert p.grad.abs().max() > 0
        np.testing.assert_allclose(p.detach().numpy(), 0.75 * start[name].numpy() + 0.25 * source[name], rtol=1e-12)
    assert front.bias.grad.abs().max() > 0


def test_a_deep_copy_follows_its_own_backbone():
    net = small(momentum=0.0)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in twin.model.parameters():
            parameter.add_(1)
    twin.backward(*images_and_labels())
    for follower, source in zip(followers(twin), sources(twin), strict=True):
        assert all(torch.equal(tensors(follower)[name], p) for name, p in source.named_parameters())


@pytest.mark.parametrize("fidelity", ["official", "paper"])
def test_vectors_have_copies_too(fidelity):
    net = ll.localize(mlp(), ll.MAN(ll.Pooling(), fidelity=fidelity), input_shape=(3, 6, 6))
    assert net.backward(*batch(4, (3, 6, 6), 5)).isfinite().all()
    assert len(followers(net)) == 2


@pytest.mark.parametrize("momentum", [-0.01, 1.01, float("nan")])
def test_a_momentum_outside_0_to_1_is_refused(momentum):
    with pytest.raises(ll.LocalLearnError, match="momentum"):
        ll.MAN(ll.DGL(), momentum=momentum)


@pytest.mark.parametrize("options", [{"ema": False, "bias": False}, {"fidelity": "code"}], ids=str)
def test_settings_that_leave_nothing_are_refused(options):
    with pytest.raises(ll.LocalLearnError):
        ll.MAN(ll.DGL(), **options)
