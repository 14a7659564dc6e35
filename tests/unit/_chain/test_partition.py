"""The partition: which layers make which local module."""

import functools

import pytest
from torch import nn

import locallearn as ll
from networks import RULES, SMALL, small_net

BLOCKS = {20: 3, 32: 5, 110: 18}  # per stage
# (network, K): stage: blocks that end a module, the stem being stage 0. InfoPro leaves out the final module's end.
INFOPRO = {
    (32, 2): {2: [1]},
    (32, 3): {1: [4], 2: [4]},
    (32, 4): {1: [2], 2: [1], 3: [0]},
    (32, 8): {1: [0, 2, 4], 2: [1, 3], 3: [0, 2]},
    (32, 16): {0: [0], 1: [0, 1, 2, 3, 4], 2: [0, 1, 2, 3, 4], 3: [0, 1, 2, 3]},
    (110, 2): {2: [8]},
    (110, 3): {1: [17], 2: [17]},
    (110, 4): {1: [11], 2: [7], 3: [3]},
    (110, 8): {1: [4, 11], 2: [0, 7, 14], 3: [3, 10]},
    (110, 16): {1: [1, 4, 7, 10, 13, 16], 2: [1, 4, 7, 11, 15], 3: [1, 5, 9, 13]},
}
HPFF = {
    (32, 2): {2: [1], 3: [4]},
    (32, 3): {1: [4], 2: [4], 3: [4]},
    (32, 4): {1: [2], 2: [1], 3: [0, 4]},
    (32, 8): {1: [0, 2, 4], 2: [1, 3], 3: [0, 2, 4]},
    (32, 16): {1: [0, 1, 2, 3, 4], 2: [0, 1, 2, 3, 4], 3: [0, 1, 2, 3, 4]},
    (110, 2): {2: [8], 3: [17]},
    (110, 3): {1: [17], 2: [17], 3: [17]},
    (110, 4): {1: [11], 2: [7], 3: [3, 17]},
    (110, 8): {1: [4, 11], 2: [0, 7, 14], 3: [3, 10, 17]},
    (110, 16): {1: [1, 4, 7, 10, 13, 16], 2: [1, 4, 7, 11, 15], 3: [1, 5, 9, 13, 17]},
    (110, 32): {
        1: [1, 2, 4, 5, 7, 9, 11, 13, 14, 16, 17],
        2: [1, 2, 4, 5, 7, 9, 11, 13, 14, 16, 17],
        3: [1, 3, 4, 6, 7, 9, 11, 13, 15, 17],
    },
    (110, 55): {1: range(18), 2: range(18), 3: range(18)},
}
NUMBERS = {("hpff", 32, 16): 15, ("hpff", 110, 55): 54}  # of local modules, where it is not K


class Named(nn.Module):
    """Small layers under the names of a ResNet's, which are all that a partition looks at."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        names = ["stem", *(f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(BLOCKS[depth]))]
        self.names, self.layers = names, nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in names)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))

    def chain(self) -> ll.Chain:
        return ll.Chain(layers=dict(zip(self.names, self.layers, strict=True)), classifier=self.head)


@functools.cache
def backbone(depth: int) -> nn.Module:
    return Named(depth)


def ends(modules, depth: int = 20) -> list[str]:
    """Names of the modules' last layers."""
    net = ll.localize(backbone(depth), ll.BP(), modules=modules, input_shape=SMALL)
    assert len(net.partition) == len(net.local_modules)
    return [net.chain.names[end] for end in net.partition.ends]


def layers_of(net: ll.LocalNet) -> list[list[int]]:
    return [list(net.partition.layers(module)) for module in range(len(net.partition))]


def names(blocks: dict) -> list[str]:
    return ["stem" if stage == 0 else f"layer{stage}.{i}" for stage, found in blocks.items() for i in found]


@pytest.mark.parametrize(("depth", "count"), [(20, 10), (32, 16), (110, 55)])
def test_all_makes_every_layer_a_module_the_stem_included(depth, count):
    found = ends("all", depth)
    assert len(found) == count
    assert found == list(backbone(depth).chain().layers)


@pytest.mark.parametrize(
    ("number", "sizes"),
    [
        (1, [10]),
        (2, [5, 5]),
        (3, [4, 3, 3]),
        (4, [3, 3, 2, 2]),
        (6, [2, 2, 2, 2, 1, 1]),
        (9, [2] + [1] * 8),
        (10, [1] * 10),
    ],
)
def test_a_number_makes_groups_of_which_the_larger_come_first(number, sizes):
    net = small_net("DGL", modules=number)
    assert [len(group) for group in layers_of(net)] == sizes
    assert [layer for group in layers_of(net) for layer in group] == list(range(10))
    assert [(o.first, o.last) for o in net.objectives] == [(i, i) for i in range(number)]


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        (["layer1.2", "layer2.2"], ["layer1.2", "layer2.2", "layer3.2"]),
        (["layer2.2", "layer1.2"], ["layer1.2", "layer2.2", "layer3.2"]),
        (["stem", "layer3.2"], ["stem", "layer3.2"]),
        ("layer2.0", ["layer2.0", "layer3.2"]),
        (r"layer\d\.0", ["layer1.0", "layer2.0", "layer3.0", "layer3.2"]),
        ([r"layer1\..*", "layer2.1"], ["layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer3.2"]),
    ],
)
def test_names_and_regular_expressions_mark_the_last_layers(modules, expected):
    assert ends(modules) == expected


def test_a_regular_expression_must_match_the_whole_name():
    with pytest.raises(ll.LocalLearnError, match="layer1"):
        ends("layer1")


@pytest.mark.parametrize(("depth", "number"), INFOPRO)
def test_infopro_splits(depth, number):
    found = ends(f"infopro-{number}", depth)
    assert len(found) == number
    assert found == [*names(INFOPRO[depth, number]), f"layer3.{BLOCKS[depth] - 1}"]


@pytest.mark.parametrize(("depth", "number"), HPFF)
def test_hpff_splits(depth, number):
    found = ends(f"hpff-{number}", depth)
    assert len(found) == NUMBERS.get(("hpff", depth, number), number)
    assert found == names(HPFF[depth, number])


def test_the_stem_belongs_to_the_first_module_of_an_hpff_split_and_is_infopros_own():
    hpff = ll.localize(backbone(32), ll.BP(), modules="hpff-16", input_shape=SMALL)
    infopro = ll.localize(backbone(32), ll.BP(), modules="infopro-16", input_shape=SMALL)
    assert layers_of(hpff)[0] == [0, 1]
    assert layers_of(infopro)[0] == [0]


@pytest.mark.parametrize("number", [0, -1, 11])
def test_an_impossible_number_is_refused_with_the_possible_ones(number):
    with pytest.raises(ll.LocalLearnError, match=rf"{number}.*10 layers.*1 to 10"):
        ends(number)


@pytest.mark.parametrize(
    ("modules", "wrong", "nearest"),
    [
        (["layer1.0", "layer2.9"], "layer2.9", "layer2."),
        ("layr3.1", "layr3.1", "layer3.1"),
        ("al", "al", "all"),
        ("hpff-64", "hpff-64", "hpff-"),
        ("infopro16", "infopro16", "infopro-16"),
    ],
)
def test_what_matches_nothing_is_refused_with_the_nearest_valid_name(modules, wrong, nearest):
    with pytest.raises(ll.LocalLearnError) as error:
        ends(modules)
    assert repr(wrong) in str(error.value)
    assert f"did you mean '{nearest}" in str(error.value)


def test_a_broken_regular_expression_is_refused():
    with pytest.raises(ll.LocalLearnError, match="regular expression"):
        ends("layer(1")


@pytest.mark.parametrize(("split", "depth"), [("hpff-55", 32), ("hpff-32", 32), ("hpff-16", 20), ("infopro-16", 20)])
def test_a_split_for_another_network_is_refused(split, depth):
    with pytest.raises(ll.LocalLearnError, match=rf"'{split}' is for .*resnet"):
        ends(split, depth)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_covers_the_modules_with_its_objectives(rule):
    net = small_net(rule, modules=4)
    covered = [range(o.first, o.last + 1) for o in net.objectives]
    assert sorted({module for span in covered for module in span}) == list(range(len(net.partition)))
    assert net.objectives[-1].last == len(net.partition) - 1
