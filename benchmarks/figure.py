"""Draw the figure of docs/performance.md from the results of benchmarks/step.py.

python benchmarks/figure.py benchmarks/results/step-resnet32-1-thread.json docs/figures/step.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from locallearn._utils.quantities import counted


def main(source: Path, target: Path) -> None:
    result = json.loads(source.read_text())
    settings, machine = result["settings"], result["machine"]
    rows = {name: row for name, row in result["rows"].items() if "peak_ratio" in row}
    names = list(rows)
    figure = Figure(figsize=(10, 1.2 + 0.24 * len(rows)), layout="constrained")
    memory, time = figure.subplots(1, 2, sharey=True)
    sizes = [row["peak_bytes"] / settings["batch"] / 2**20 for row in rows.values()]
    memory.barh(names, sizes, color=["#888888" if name in ("bp", "checkpoint") else "#2a78b5" for name in names])
    memory.bar_label(memory.containers[0], fmt="%.2f", padding=3)
    memory.set(xlabel="peak activations, MiB per image", xlim=(0, max(sizes) * 1.15))
    for index, row in enumerate(rows.values()):
        low, high = row.get("ratio_range", (1, 1))
        ratio = row.get("ratio", 1.0)
        # the extremes of a shared machine say little; they are in the JSON
        time.plot([min(ratio, low), min(high, ratio * 1.25)], [index, index], color="#bbbbbb", zorder=1)
        time.scatter(ratio, index, color="#2a78b5", zorder=3, label="measured" if index == 0 else None)
        time.scatter(
            row["method_macs_ratio"],
            index,
            marker="|",
            s=160,
            color="#d1603d",
            zorder=2,
            label=None if index else "by MACs of the method",
        )
    time.set(xlabel="time of a step, times BP", xlim=(0, None))
    time.legend(loc="upper right")
    memory.invert_yaxis()
    for axes in (memory, time):
        axes.grid(axis="x", alpha=0.3)
    title = f"{settings['model']}, batch {settings['batch']}, {settings['precision']}"
    figure.suptitle(
        f"{title}, {counted(machine['threads'], 'thread')} of {machine['device']}, torch {machine['torch']}",
        fontsize=10,
    )
    FigureCanvasAgg(figure).print_png(str(target))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
