"""What `fast` and `lean` recompute, and the peak memory that is left."""

import pytest
import torch
from torch import nn

import locallearn as ll
from locallearn._engine import local_net as local_net_file
from locallearn._engine.recompute_plan import plan_recompute
from locallearn.cost import peak_memory, step_macs
from networks import SMALL, batch, local_net, resnet20

CIFAR = (3, 32, 32)


def resnet32(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return ll.models.resnet32(num_classes=10)


# MiB of activations per image at batch 128, ResNet-32, every layer a module: in "fast" and in "lean"
PEAKS = {
    ll.DGL(): (0.3752, 0.3752),
    ll.AugLocal(depth=2): (0.5637, 0.4387),
    ll.AugLocal(depth=3): (0.4700, 0.3762),
    ll.AugLocal(depth=4): (0.5637, 0.3762),
    ll.AugLocal(depth=5): (0.7043, 0.4387),
    ll.AugLocal(depth=6): (0.7981, 0.4387),
    ll.PredSim(): (0.4376, 0.3752),
    ll.InfoPro(): (0.5626, 0.4376),
    ll.MAN(ll.DGL()): (0.8126, 0.5004),
    ll.HiLo(ll.DGL()): (0.8751, 0.6251),
    ll.BP(): (1.7981, 0.6887),
    ll.Checkpoint(): (0.7032, 0.6887),
}


DEFAULT = (ll.BP(), ll.AugLocal(depth=4), ll.MAN(ll.DGL()))


@pytest.mark.parametrize(
    "rule", [pytest.param(rule, id=str(rule), marks=() if rule in DEFAULT else pytest.mark.slow) for rule in PEAKS]
)
def test_peak_memory_is_at_most_the_recorded_one(rule):
    net = local_net(rule, make=resnet32, input_shape=CIFAR)
    for net.memory, recorded in zip(("fast", "lean"), PEAKS[rule], strict=True):
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


def test_memory_is_fast_or_lean():
    with pytest.raises(ll.LocalLearnError, match="lean"):
        ll.localize(resnet20(), ll.DGL(), input_shape=SMALL, memory="tiny")
