"""Auxiliary networks are tried out once for each structure."""

from torch import nn

import locallearn as ll
from locallearn._chain.structure import Remembered
from locallearn._objectives import trial
from networks import SMALL


class Rectified(nn.Module):
    """Writes on its input, or not."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 4, 3)
        self.inplace = inplace

    def forward(self, x):
        return self.conv(x.relu_() if self.inplace else x.relu())


class InPlaceAtTheSecondSite(ll.DGL):
    """Heads of one structure but for an attribute of the second."""

    def auxiliary(self, site):
        front = nn.Sequential(Rectified(site.module == 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
        return ll.Head(front, site.loss)


def test_one_network_in_place_among_equal_ones_gets_a_copy_of_its_features():
    net = ll.localize(ll.models.resnet20(), InPlaceAtTheSecondSite(), modules=["stem", "layer1.0", "layer1.1"],
                      input_shape=SMALL)  # fmt: skip
    assert [objective.copy_features for objective in net.objectives] == [False, True, False, False]


def test_networks_of_equal_structure_are_run_once_in_a_process(monkeypatch):
    runs = []
    monkeypatch.setattr(trial, "_WRITES", Remembered())
    run_once = trial._writes
    monkeypatch.setattr(trial, "_writes", lambda *arguments: runs.append(arguments) or run_once(*arguments))
    for _ in range(2):
        net = ll.localize(ll.models.resnet20(), ll.DGL(), input_shape=SMALL)
        assert len(net.objectives) == 10
        assert len(runs) == 3  # one for each width
    ll.localize(ll.models.resnet20(num_classes=3), ll.DGL(), input_shape=SMALL)
    assert len(runs) == 6
