"""Ticks of matplotlib's axes that can be read."""

from __future__ import annotations

from typing import Any

from locallearn._utils.optional_imports import optional

_NARROW, _WIDE = 10, 1e4
"""Largest over smallest value: below the one, round numbers are ticks; above the other, powers of ten alone."""


def whole_ticks(axis: Any) -> None:
    """Ticks at whole numbers alone, such as epochs; at each one where they are few."""
    axis.set_major_locator(optional("matplotlib.ticker").MaxNLocator(integer=True, min_n_ticks=1))


def log_ticks(axis: Any) -> None:
    """A logarithmic axis with plain numbers: 1, 2 and 5 of each power of ten, or round ones within a single power."""
    ticker = optional("matplotlib.ticker")

    class Readable(ticker.LogLocator):
        def tick_values(self, vmin: float, vmax: float) -> Any:
            if vmax < _NARROW * vmin:
                return ticker.MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(vmin, vmax)
            self.set_params(subs=(1.0,) if vmax > _WIDE * vmin else (1.0, 2.0, 5.0))
            return super().tick_values(vmin, vmax)

    axis.set_major_locator(Readable())
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:.6g}"))
