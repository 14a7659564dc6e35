"""timm's own groups of parameters, and blocks where these are finer."""

import pytest
import torch
from torch import nn

import locallearn as ll


class Residual(nn.Module):
    """A residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return x + self.two(self.one(x).relu())


class Around(nn.Module):
    """A residual connection around any module: part of a block."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x):
        return x + self.part(x)


class OfParts(nn.Module):
    """A block of residual connections."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.feed = Around(nn.Conv2d(4, 4, 3, padding=1)), Around(nn.Conv2d(4, 4, 1))

    def forward(self, x):
        return self.feed(self.mix(x))


class Grouped(nn.Module):
    """Two stages of two blocks; a group, as timm has them, is a stage or a block."""

    def __init__(self, block: type[nn.Module], groups: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.stages = nn.Sequential(*(nn.Sequential(block(), block()) for _ in range(2)))
        self.fc, self.groups = nn.Linear(4, 5), groups

    def group_matcher(self, coarse: bool) -> dict[str, str]:
        return {"stem": "^stem", "blocks": self.groups}

    def forward(self, x):
        return self.fc(self.stages(self.stem(x)).mean((2, 3)))


BLOCKS = ("stem", "stages.0.0", "stages.0.1", "stages.1.0", "stages.1.1")
STAGE, BLOCK = r"^stages\.(\d+)", r"^stages\.(\d+)\.(\d+)"


@pytest.mark.parametrize(
    ("block", "groups", "names"),
    [
        (Residual, BLOCK, BLOCKS),
        (Residual, STAGE, BLOCKS),
        (OfParts, BLOCK, BLOCKS),
        (OfParts, STAGE, ("stem", "stages.0", "stages.1")),
    ],
)
def test_blocks_are_layers_where_groups_are_stages_and_parts_of_blocks_never(block, groups, names):
    net = ll.localize(Grouped(block, groups), ll.DGL(), input_shape=(3, 8, 8))
    assert net.chain.names == names
    assert net.backward(torch.randn(4, 3, 8, 8), torch.arange(4)).isfinite().all()
