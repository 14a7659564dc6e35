"""The partition: which layers make which local module."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

from locallearn._chain.published_splits import SPLITS, published_split
from locallearn._utils.errors import LocalLearnError, did_you_mean
from locallearn._utils.quantities import counted


@dataclass(frozen=True)
class Partition:
    """Local modules as groups of neighbouring layers.

    Attributes:
        ends: index of each module's last layer, rising; the final one is the chain's last layer.
        published: number of modules by which the papers call a published split; it may count the stem.
    """

    ends: tuple[int, ...]
    published: int | None = None

    def __len__(self) -> int:
        """Number of local modules, K."""
        return len(self.ends)

    def layers(self, module: int) -> range:
        """Indices of a module's layers."""
        return range(self.ends[module - 1] + 1 if module else 0, self.ends[module] + 1)

    def join_last(self, modules: int) -> Partition:
        """Keep the first `modules - 1` modules and join the rest into one."""
        return Partition((*self.ends[: modules - 1], self.ends[-1]))


def partition(modules: str | int | Sequence[str], layers: Sequence[str], repeating: Sequence[str] = ()) -> Partition:
    """The partition that the argument `modules` means for a chain with these layer names.

    Args:
        modules: `"all"` (each layer a module); a number K (K groups, the larger ones first); the name of a published
            split (`"infopro-16"`, `"hpff-8"`, ...); or layer names or regular expressions that match whole names, each
            marking the last layer of a module.
        layers: the names.
        repeating: layers in which a module runs several times; an error about the number of layers says so.

    Raises:
        LocalLearnError: K is out of range, a name or expression matches nothing, or a split is not for this network.
    """
    count = len(layers)
    if isinstance(modules, Integral) and not isinstance(modules, bool):
        modules = int(modules)
        if not 1 <= modules <= count:
            again = (
                f" (in {', '.join(map(repr, repeating))} a block runs several times, as one layer)" if repeating else ""
            )
            raise LocalLearnError(
                f"modules={modules}: the network has {counted(count, 'layer')}, so K must be from 1 to {count}:"
                f" {_listed(layers)}{again}. Name the modules that end other layers by layers=[...]."
            )
        size, larger = divmod(count, modules)
        sizes = [size + (module < larger) for module in range(modules)]
        return Partition(tuple(sum(sizes[: i + 1]) - 1 for i in range(modules)))
    if modules == "all":
        return Partition(tuple(range(count)))
    published = int(modules.rpartition("-")[2]) if isinstance(modules, str) and modules in SPLITS else None
    if isinstance(modules, str):
        modules = published_split(modules, layers) if modules in SPLITS else [modules]
    if not isinstance(modules, Sequence) or not all(isinstance(pattern, str) for pattern in modules):
        raise LocalLearnError(f"modules={modules!r}: give a number, a name, or a list of names of layers.")
    marked = {index for pattern in modules for index in _matching(pattern, layers)}
    return Partition(tuple(sorted(marked | {count - 1})), published)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names if len(names) <= 20 else [*names[:10], "...", *names[-5:]])


def _matching(pattern: str, layers: Sequence[str]) -> list[int]:
    if pattern in layers:
        return [layers.index(pattern)]
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise LocalLearnError(f"modules: {pattern!r} is no layer name and no regular expression ({error}).") from error
    if matching := [index for index, name in enumerate(layers) if expression.fullmatch(name)]:
        return matching
    raise LocalLearnError(f"modules: no layer matches {pattern!r}; {did_you_mean(pattern, ['all', *SPLITS, *layers])}")
