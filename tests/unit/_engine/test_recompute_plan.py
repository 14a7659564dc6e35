"""What each setting of `memory` recomputes, and the peak memory that is left."""

import copy
from typing import get_args

import pytest
import torch
from torch import nn

import locallearn as ll
from locallearn._engine import local_net as local_net_file
from locallearn._engine.recompute_plan import Memory, choose, plan_recompute
from locallearn._engine.stepper import ModuleStepper
from locallearn.cost import peak_memory, predict, step_macs
from locallearn.models import from_library
from locallearn.training import SGD
from networks import SMALL, batch, local_net, resnet20

CIFAR = (3, 32, 32)


def resnet32(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return ll.models.resnet32(num_classes=10)


# MiB of activations per image at batch 128, ResNet-32, every layer a module: in "fast", "lean" and "least"
PEAKS = {
    ll.DGL(): (0.3752, 0.3752, 0.2502),
    ll.AugLocal(depth=2): (0.5637, 0.4387, 0.3762),
    ll.AugLocal(depth=3): (0.4700, 0.3762, 0.3137),
    ll.AugLocal(depth=4): (0.5637, 0.3762, 0.3137),
    ll.AugLocal(depth=5): (0.7043, 0.4387, 0.3918),
    ll.AugLocal(depth=6): (0.7981, 0.4387, 0.3918),
    ll.PredSim(): (0.4376, 0.3752, 0.3127),
    ll.InfoPro(): (0.5626, 0.4376, 0.4376),
    ll.MAN(ll.DGL()): (0.8126, 0.5004, 0.4377),
    ll.HiLo(ll.DGL()): (0.8751, 0.6251, 0.5626),
    ll.BP(): (1.7981, 0.6887, 0.5950),
    ll.Checkpoint(): (0.7032, 0.6887, 0.6887),
}


DEFAULT = (ll.BP(), ll.AugLocal(depth=4), ll.MAN(ll.DGL()))


@pytest.mark.parametrize(
    "rule", [pytest.param(rule, id=str(rule), marks=() if rule in DEFAULT else pytest.mark.slow) for rule in PEAKS]
)
def test_peak_memory_is_at_most_the_recorded_one(rule):
    net = local_net(rule, make=resnet32, input_shape=CIFAR)
    for net.memory, recorded in zip(get_args(Memory), PEAKS[rule], strict=True):
        assert peak_memory(net, 128).activations / 128 / 2**20 <= recorded, net.memory


class ModuleAsLoss(ll.Rule):
    def auxiliary(self, site):
        network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(site.channels, site.classes))
        return ll.Head(network, nn.CrossEntropyLoss())


def test_a_loss_may_be_a_module():
    net = local_net(ModuleAsLoss(), memory="lean")
    net.backward(*batch())
    assert peak_memory(net, 8).activations == peak_memory(local_net(ll.Pooling(), memory="lean"), 8).activations


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_lean_checkpointing_has_the_peak_of_lean_backpropagation(autocast):
    peaks = []
    for rule in (ll.BP(), ll.Checkpoint()):
        net = local_net(rule, make=resnet32, input_shape=CIFAR, memory="lean")
        peaks.append(peak_memory(net, 64, autocast=autocast).total)
    assert peaks[1] == pytest.approx(peaks[0], rel=0.03)


def test_prediction_and_training_share_one_plan(monkeypatch):
    plans = []
    monkeypatch.setattr(
        local_net_file, "plan_recompute", lambda *given: plans.append(plan_recompute(*given)) or plans[-1]
    )
    net = local_net(ll.DGL(), modules=4, memory="lean")
    peak_memory(net, 8)
    step_macs(net, 4)
    net.backward(*batch(8))
    assert len(plans) == 1


def test_mixed_precision_halves_the_peak():
    net = local_net(ll.AugLocal(), make=resnet32, input_shape=CIFAR, memory="lean")
    half = peak_memory(net, 64, autocast=torch.bfloat16).activations
    assert half <= 0.56 * peak_memory(net, 64).activations


def test_resnet50_on_large_images_needs_a_quarter_of_the_memory_of_bp_in_less_time_than_checkpointing():
    torch.manual_seed(0)
    model = from_library("torchvision", "resnet50", num_classes=1000, in_channels=3, image_size=224)
    slim = ll.Reduced(ll.DGL(channels=128, units=256), grid=7)
    needs = {}
    for rule, memory in ((ll.BP(), "fast"), (ll.Checkpoint(), "lean"), (slim, "least")):
        found = predict(ll.localize(model, rule, input_shape=(3, 224, 224), memory=memory), 64)
        needs[type(rule)] = found.peak.total, found.macs
    (bp_bytes, bp_macs), (_, checkpoint_macs), (own_bytes, own_macs) = needs.values()
    assert own_bytes <= 0.25 * bp_bytes
    assert own_macs <= 1.12 * bp_macs < 1.3 * bp_macs < checkpoint_macs


@pytest.mark.parametrize("rule", [ll.BP(), ll.DGL(), ll.AugLocal(depth=2), ll.HiLo(ll.DGL())], ids=str)
def test_least_gives_the_weights_of_a_step_that_stores_all(rule):
    plain = local_net(rule, modules="all")
    plain.recomputes = False
    least = copy.deepcopy(plain)
    least.recomputes, least.memory = True, "least"
    for net in (plain, least):
        stepper = ModuleStepper(net, SGD(lr=0.1).make)
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                net.backward(*batch(6), on_complete=stepper.on_complete)
            stepper.finish()
    assert any(policy.output or policy.products for plan in least.recompute_plans.values() for policy in plan.segments)
    for name, value in plain.state_dict().items():
        assert torch.equal(least.state_dict()[name], value), name


def test_least_repeats_convolutions_only_where_that_lowers_the_peak_by_a_tenth():
    lean, every = [100.0, 70, 70, 70, 80, 80, 80], [65.0, 65, 64, 64, 64]
    assert choose([lean + every], "least") == choose([lean], "lean") == [1]
    assert choose([[*lean, 60.0, 55, 53, 50, 40]], "least") == [11]
    assert choose([[*lean, 60.0, 52, 50, 50, 50]], "least") == [8]


def test_memory_is_one_of_its_settings():
    with pytest.raises(ll.LocalLearnError, match="known: fast, lean, least"):
        ll.localize(resnet20(), ll.DGL(), input_shape=SMALL, memory="tiny")


def test_overlap_reads_what_least_frees():
    with pytest.raises(ll.LocalLearnError, match="memory='least' frees a module's output, which overlap still reads"):
        ll.localize(resnet20(), ll.DGL(), input_shape=SMALL, memory="least", overlap=1)
