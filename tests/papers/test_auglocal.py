"""AugLocal (Ma et al., ICLR 2024): Eq. 3, the selection of section 3.2, strides and sizes, by hand-worked tables."""

import functools
import re

import auglocal_tables as tables
import pytest
from torch import nn

import locallearn as ll
from networks import count

DEPTHS = (2, 3, 4, 5, 6)
WIDTHS = {32: [16] * 6 + [32] * 5 + [64] * 5, 110: [16] * 19 + [32] * 18 + [64] * 18}


class Marked(nn.Module):
    """A layer that knows its index in the chain; what is built like it remembers the index and its stride."""

    def __init__(self, index: int, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.index, self.stride = index, stride
        self.conv = nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x):
        return self.conv(x)


@ll.new_layer_like.register
def _(layer: Marked, *, in_channels: int, stride: int) -> Marked:
    return Marked(layer.index, in_channels, layer.conv.out_channels, stride)


class MarkedNet(nn.Module):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        pairs = zip([3, *widths], widths, strict=False)
        self.layers = nn.Sequential(*(Marked(i, before, after) for i, (before, after) in enumerate(pairs)))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))

    def chain(self):
        return ll.Chain(layers=dict(self.layers.named_children()), classifier=self.head)


def blocks(objective: ll.Objective) -> list[Marked]:
    return [part for part in objective.auxiliary.modules() if isinstance(part, Marked)]


@functools.cache
def selected(depth: int, rule: ll.AugLocal) -> list[list[int]]:
    """For each auxiliary network its selected layers, in a chain of the widths of ResNet-`depth`."""
    net = ll.localize(MarkedNet(WIDTHS[depth]), rule, input_shape=(3, 4, 4))
    return [[block.index for block in blocks(objective)] for objective in net.objectives[:-1]]


@functools.cache
def resnet(depth: int, rule: ll.AugLocal) -> ll.LocalNet:
    return ll.localize(getattr(ll.models, f"resnet{depth}")(), rule, input_shape=(3, 32, 32))


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.split("|")] for row in table.strip().splitlines()]


def spread(runs: list[tuple[int, int]]) -> list[int]:
    return [value for value, length in runs for _ in range(length)]


@pytest.mark.parametrize("depth", DEPTHS)
def test_section_3_2_selects_resnet32s_layers_as_worked_out(depth):
    expected = [[int(i) for i in row[1].split(",")] for row in rows(tables.RESNET32[depth])]
    assert selected(32, ll.AugLocal(depth=depth)) == expected


@pytest.mark.parametrize("depth", DEPTHS)
def test_section_3_2_selects_resnet110s_layers_as_worked_out(depth):
    entries = re.findall(r"(\d+):\s([\d,]+)", tables.RESNET110[depth])
    assert [int(layer) for layer, _ in entries] == list(range(len(entries)))
    assert selected(110, ll.AugLocal(depth=depth)) == [[int(i) for i in found.split(",")] for _, found in entries]


@pytest.mark.parametrize("depth", DEPTHS)
def test_blocks_of_resnet32s_auxiliary_networks_as_worked_out(depth):
    net = resnet(32, ll.AugLocal(depth=depth))
    kind = type(net.model.layer1[0])
    for objective, (_, _, shape, parameters) in zip(net.objectives[:-1], rows(tables.RESNET32[depth]), strict=True):
        found = [part for part in objective.auxiliary.modules() if isinstance(part, kind)]
        built = [f"{b.conv1.in_channels}->{b.conv2.out_channels}/{b.conv1.stride[0]}" for b in found]
        assert ", ".join(built) == shape
        assert count(objective.auxiliary) == int(parameters)
        assert any(isinstance(part, nn.BatchNorm1d) for part in objective.auxiliary.modules()) == (depth == 2)


@pytest.mark.parametrize(
    ("depth", "totals"), [(32, tables.TOTALS_RESNET32), (110, tables.TOTALS_RESNET110)], ids=["resnet32", "resnet110"]
)
@pytest.mark.parametrize("d", DEPTHS)
def test_numbers_of_modules_and_parameters(depth, totals, d):
    net = resnet(depth, ll.AugLocal(depth=d))
    modules, first_of_last, auxiliary, everything = totals[d]
    assert len(net.partition) == len(net.objectives) == modules
    assert list(net.partition.layers(modules - 1)) == list(range(first_of_last, len(net.chain.names)))
    assert count(net.auxiliary) == auxiliary
    assert count(net) == everything


@pytest.mark.parametrize(("depth", "lists"), [(32, tables.HIDDEN_RESNET32), (110, tables.HIDDEN_RESNET110)])
@pytest.mark.parametrize("d", DEPTHS)
def test_eq3_depths_as_in_the_official_code(depth, lists, d):
    assert [len(found) for found in selected(depth, ll.AugLocal(depth=d))] == spread(lists[d])


def test_the_default_is_depth_4_and_tau_one_half():
    assert ll.AugLocal() == ll.AugLocal(depth=4, tau=0.5, fidelity="official")


@pytest.mark.parametrize("fidelity", ["official", "paper"])
def test_eq3_with_tau_0_is_d_everywhere(fidelity):
    found = selected(32, ll.AugLocal(depth=5, tau=0, fidelity=fidelity))
    assert [len(x) for x in found] == [min(4, 15 - layer) for layer in range(len(found))]


def test_eq3_with_tau_1_falls_to_one_layer_and_the_classifier():
    # k = 4, M = 12: 4 - 3 i / 10 for i = 0 ... 10, ties to even
    assert [len(x) for x in selected(32, ll.AugLocal(depth=5, tau=1))] == [4, 4, 3, 3, 3, 2, 2, 2, 2, 1, 1]


def test_every_head_of_one_hidden_layer_has_batch_norm_before_its_classifier():
    for objective in resnet(32, ll.AugLocal(depth=5, tau=1)).objectives[:-1]:
        kind = type(resnet(32, ll.AugLocal(depth=5, tau=1)).model.layer1[0])
        single = sum(isinstance(part, kind) for part in objective.auxiliary.modules()) == 1
        assert any(isinstance(part, nn.BatchNorm1d) for part in objective.auxiliary.modules()) == single


@pytest.mark.parametrize(("depth", "layers"), [(32, 16), (110, 55)])
@pytest.mark.parametrize("d", DEPTHS)
def test_section_2_every_layer_but_the_last_has_an_auxiliary_network_in_the_paper(depth, layers, d):
    found = selected(depth, ll.AugLocal(depth=d, fidelity="paper"))
    assert len(found) == layers - 1
    assert all(layer < min(chosen) and max(chosen) == layers - 1 for layer, chosen in enumerate(found))
    assert found[-2:] == [[layers - 2, layers - 1][2 - min(2, d - 1) :], [layers - 1]]


CHANGED_DEPTHS = {  # of (network, d), by the paper's denominator with ties up
    (32, 4): [6, 7],
    (32, 5): [4, 10],
    (32, 6): [3, 7, 8, 9],
    (110, 4): [25, 26],
    (110, 5): [17, 49],
    (110, 6): [12, 13, 37, 38, 39],
}


@pytest.mark.parametrize(("depth", "d"), CHANGED_DEPTHS)
def test_eq3_as_printed_changes_the_depth_of_few_layers(depth, d):
    official, paper = (selected(depth, ll.AugLocal(depth=d, fidelity=f)) for f in ("official", "paper"))
    pairs = zip(official, paper, strict=False)
    assert [layer for layer, (a, b) in enumerate(pairs) if len(a) != len(b)] == CHANGED_DEPTHS[depth, d]


def test_eq3_bounds_the_depth_by_the_layers_that_follow():
    found = [len(x) for x in selected(32, ll.AugLocal(depth=6, fidelity="paper"))]
    assert found == [5] * 4 + [4] * 7 + [3] * 2 + [2, 1]


@pytest.mark.parametrize(("depth", "changed"), [(32, [0, 3, 2, 3, 2]), (110, [0, 13, 6, 9, 13])])
@pytest.mark.parametrize("index", range(5))
def test_section_3_2_rounding_ties_up_changes_the_selection_of_few_layers(depth, changed, index):
    official = selected(depth, ll.AugLocal(depth=DEPTHS[index]))
    # the paper's selection at the official depths: tau = 0 keeps the depth, so one rule for each depth that occurs
    up = [selected(depth, ll.AugLocal(depth=len(x) + 1, tau=0, fidelity="paper"))[i] for i, x in enumerate(official)]
    assert sum(a != b for a, b in zip(official, up, strict=True)) == changed[index]


def test_section_3_2_the_paper_has_no_batch_norm_in_heads():
    for objective in resnet(32, ll.AugLocal(depth=2, fidelity="paper")).objectives[:-1]:
        assert not any(isinstance(part, nn.BatchNorm1d) for part in objective.auxiliary.modules())


@pytest.mark.parametrize(("fidelity", "strides"), [("official", [2, 2]), ("paper", [2, 1])])
def test_only_the_official_code_carries_a_fourfold_growth_over(fidelity, strides):
    net = ll.localize(MarkedNet([16, 64, 64, 64, 64]), ll.AugLocal(depth=3, fidelity=fidelity), input_shape=(3, 4, 4))
    first = blocks(net.objectives[0])
    assert [block.index for block in first] == [2, 4]
    assert [block.stride for block in first] == strides


@pytest.mark.parametrize(("tau", "fidelity"), [(0.5, "official"), (0.0, "paper")])
def test_blocks_are_new_and_start_like_the_backbone(tau, fidelity):
    net = resnet(32, ll.AugLocal(depth=3, tau=tau, fidelity=fidelity))
    own = {id(p) for p in net.model.parameters()}
    assert not any(id(p) in own for p in net.auxiliary.parameters())
    for part in net.auxiliary.modules():
        if isinstance(part, nn.Conv2d):
            expected = (2 / (part.kernel_size[0] ** 2 * part.out_channels)) ** 0.5
            assert abs(part.weight.std().item() / expected - 1) < 6 / (2 * part.weight.numel()) ** 0.5


@pytest.mark.parametrize("depth", [1, 0, -3])
def test_depth_below_2_is_refused(depth):
    with pytest.raises(ll.LocalLearnError, match=rf"depth={depth}"):
        ll.AugLocal(depth=depth)


@pytest.mark.parametrize("tau", [-0.1, 1.5])
def test_tau_outside_0_to_1_is_refused(tau):
    with pytest.raises(ll.LocalLearnError, match=re.escape(f"tau={tau}")):
        ll.AugLocal(tau=tau)


@pytest.mark.parametrize("depth", [16, 40])
def test_a_depth_of_the_whole_network_is_backpropagation(depth):
    net = resnet(32, ll.AugLocal(depth=depth))
    assert [(o.first, o.last) for o in net.objectives] == [(0, 0)]
    assert count(net.auxiliary) == 0


def test_groups_of_layers_get_a_network_where_more_than_k_layers_follow():
    # ends 3, 7, 11, 15; k = 4: 12, 8 and 4 layers follow, so the last two groups join
    net = ll.localize(ll.models.resnet32(), ll.AugLocal(depth=5), modules=4, input_shape=(3, 32, 32))
    assert [list(net.partition.layers(i)) for i in range(3)] == [[*range(4)], [*range(4, 8)], [*range(8, 16)]]
