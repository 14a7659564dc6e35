"""`Recipe`: how a published number came about, as settings that run."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from locallearn.detection import DetectSettings
from locallearn.training import TrainSettings

Kind = Literal["train", "evaluate", "detect", "cost"]


class Quantity(Enum):
    """What a published number measures, and its unit."""

    ERROR = "test error", "%"
    ACCURACY = "test accuracy", "%"
    TOP1_ERROR = "top-1 error", "%"
    TOP5_ERROR = "top-5 error", "%"
    TOP1_ACCURACY = "top-1 accuracy", "%"
    TOP5_ACCURACY = "top-5 accuracy", "%"
    BOX_AP = "box AP", "%"
    BOX_AP50 = "box AP50", "%"
    BOX_AP75 = "box AP75", "%"
    MASK_AP = "mask AP", "%"
    MASK_AP50 = "mask AP50", "%"
    MASK_AP75 = "mask AP75", "%"
    MEMORY = "GPU memory", "GB"
    MACS = "multiply-accumulates forward", "G"
    TIME = "time above BP's", "%"

    @property
    def title(self) -> str:
        """Its words."""
        return self.value[0]

    @property
    def unit(self) -> str:
        """Its unit."""
        return self.value[1]

    @property
    def is_cost(self) -> bool:
        """Whether it is known without training to the end."""
        return self in (Quantity.MEMORY, Quantity.MACS, Quantity.TIME)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A number that a paper prints.

    Attributes:
        quantity: what it measures.
        value: in the quantity's unit.
        deviation: standard deviation over trials, where the paper prints one.
        cell: the paper, the table and the row in the paper's words.
    """

    quantity: Quantity
    value: float
    deviation: float | None = None
    cell: str

    def __str__(self) -> str:
        deviation = "" if self.deviation is None else f" ± {self.deviation:.2f}"
        return f"{self.quantity.title} {self.value:.2f}{deviation} {self.quantity.unit}"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A row of a published table.

    Attributes:
        name: paper, table and row, such as `hpff/table1/cifar10-resnet32-dgl`.
        settings: of the training run, as the official code has them.
        published: the row's numbers; of a table without numbers none.
        kind: what is done: training, only counting its cost, or a test on other images (`evaluate`) or object detection
            (`detect`) after it.
        paper: settings as the paper's text has them, where that differs.
        trials: seeds over which the paper's numbers are means.
        missing: why the library cannot run it; settings are then those of the nearest it can.
        note: what else one must know.
        test_data: of an evaluation, the data set on whose test images the trained network is tested.
        detection: of object detection, its settings, but for the source of the backbone and the images.
    """

    name: str
    settings: TrainSettings
    published: tuple[Published, ...] = field(default=())
    kind: Kind = "train"
    paper: TrainSettings | None = None
    trials: int = 1
    missing: str = ""
    note: str = ""
    test_data: str | None = None
    detection: DetectSettings | None = None

    @property
    def table(self) -> str:
        """Paper and table, such as `hpff/table1`."""
        return self.name.rpartition("/")[0]

    @property
    def row(self) -> str:
        """The name within the table."""
        return self.name.rpartition("/")[2]
