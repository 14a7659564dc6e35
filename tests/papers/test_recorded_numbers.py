"""Peak memory and multiply-accumulates of every system on ResNet-32, at most what was recorded and the papers' code."""

from __future__ import annotations

import copy
import functools

import pytest
import torch

import locallearn as ll
from locallearn.cost import peak_memory, step_macs

MIB = 2**20
TWO = ll.InfoPro.published("hpff")
"""InfoPro with head 2c2f, the inner rule of HPFF's and MAN's published runs."""

RECORDED = {
    "predsim": (ll.PredSim(), 0.51, 1.36),
    "dgl": (ll.DGL(), 0.44, 0.87),
    "pooling": (ll.Pooling(), 0.44, 0.84),
    "infopro": (ll.InfoPro(), 0.68, 2.07),
    "infopro 2c2f": (TWO, 0.68, 2.58),
    "hpff(infopro 2c2f)": (ll.HPFF(TWO), 1.00, 3.62),
    "man(infopro 2c2f)": (ll.MAN(TWO), 1.19, 4.34),
    "hpff(dgl)": (ll.HiLo(ll.DGL()), 0.94, 1.22),
    "man(dgl)": (ll.MAN(ll.DGL()), 0.95, 2.53),
    "mlaan": (ll.MLAAN(), 1.58, 4.92),
    "mlaan(dgl)": (ll.MLAAN(ll.DGL()), 1.58, 4.97),
}
"""MiB of live activations per image at batch 128, and MACs of a whole step over those of BP."""


@functools.cache
def localized(rule: ll.Rule, model: str = "resnet32") -> ll.LocalNet:
    return ll.localize(getattr(ll.models, model)(), rule, input_shape=(3, 32, 32))


@functools.cache
def bp_macs() -> int:
    return step_macs(localized(ll.BP()), 8)


@pytest.mark.filterwarnings("ignore:PFF:locallearn.LocalLearnWarning")
@pytest.mark.parametrize("name", RECORDED)
def test_peak_and_arithmetic_are_at_most_the_recorded_ones(name):
    rule, peak, macs = RECORDED[name]
    net = localized(rule)
    assert peak_memory(net, 128).activations / 128 / MIB <= peak
    assert step_macs(net, 8) / bp_macs() <= macs


@pytest.mark.parametrize("model", ["resnet32", pytest.param("resnet110", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("rule", "official"), [(ll.PredSim(), 0.56), (ll.InfoPro(), 0.70)], ids=["PredSim", "InfoPro"])
def test_live_bytes_are_at_most_the_official_codes(model, rule, official):
    assert round(peak_memory(localized(rule, model), 128).activations / 128 / MIB, 2) <= official


@pytest.mark.parametrize(
    ("rule", "official"),
    [(ll.HPFF(TWO), 1.44), (ll.MAN(TWO), 1.25), (TWO, 0.62)],
    ids=["HPFF", "MAN", "InfoPro 2c2f"],
)
def test_bytes_saved_for_backward_are_at_most_the_official_codes(rule, official):
    net, images = copy.deepcopy(localized(rule)), 8
    assert most_saved_bytes(net, images) / images / MIB <= official


def most_saved_bytes(net: ll.LocalNet, images: int) -> int:
    """Most bytes that graphs hold at once, features of auxiliary networks included, parameters not."""
    own = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    largest = 0

    class SavedTensor:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor, self.key = tensor, tensor.untyped_storage().data_ptr()
            count, size = counts.get(self.key, (0, tensor.untyped_storage().nbytes()))
            counts[self.key] = count + 1, size
            nonlocal largest
            largest = max(largest, sum(size for key, (_, size) in counts.items() if key not in own))

        def __del__(self) -> None:
            count, size = counts.pop(self.key)
            if count > 1:
                counts[self.key] = count - 1, size

    counts: dict[int, tuple[int, int]] = {}
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(images, 3, 32, 32, generator=generator), torch.randint(10, (images,), generator=generator)
    with torch.autograd.graph.saved_tensors_hooks(SavedTensor, lambda saved: saved.tensor):
        net.backward(*batch)
    return largest
