"""How the processes of a run share the work."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted, there_are

_NAMES = ("modules", "data")


@dataclass(frozen=True, kw_only=True)
class ProcessGrid:
    """Processes in a grid: those of one row share each batch, those of one column the local modules.

    Attributes:
        modules: in how many parts the network is cut, each of consecutive local modules.
        data: in how many parts each batch is cut.
    """

    modules: int = 1
    data: int = 1

    @property
    def count(self) -> int:
        """Number of processes."""
        return self.modules * self.data

    def __str__(self) -> str:
        return ",".join(f"{name}={getattr(self, name)}" for name in _NAMES)

    @staticmethod
    def of(text: str, count: int) -> ProcessGrid:
        """The layout of so many processes.

        Args:
            text: `data`, `modules`, or sizes such as `modules=2,data=2`; what has no size takes all that remains.
            count: number of processes.

        Raises:
            LocalLearnError: the text is no layout, or one of another number of processes.
        """
        sizes = sizes_in(text)
        rest, left = divmod(count, given := prod(size for size in sizes.values() if size is not None))
        layout = ProcessGrid(**{name: rest if size is None else size for name, size in sizes.items()})
        if left or layout.count != count:
            layout_of = (
                f"{given} times any number of processes" if None in sizes.values() else counted(given, "process")
            )
            raise LocalLearnError(
                f"parallel={text!r} is a layout of {layout_of}, but {there_are(count, 'process')}: start that"
                " many by torchrun --nproc-per-node, or choose another layout."
            )
        return layout


def sizes_in(text: str) -> dict[str, int | None]:
    """The sizes that the text of a layout gives, None where it gives only the name.

    Raises:
        LocalLearnError: it is no layout.
    """
    sizes: dict[str, int | None] = {}
    for part in text.split(","):
        name, equals, number = (word.strip() for word in part.partition("="))
        is_size = number.isascii() and number.isdigit() and int(number) > 0 if equals else True
        if name not in _NAMES or name in sizes or not is_size:
            raise LocalLearnError(f"parallel={text!r} is no layout: write data, modules, or modules=2,data=2.")
        sizes[name] = int(number) if equals else None
    if list(sizes.values()).count(None) > 1:
        raise LocalLearnError(f"parallel={text!r} leaves two sizes open: give one of them, as in modules=2,data.")
    return sizes
