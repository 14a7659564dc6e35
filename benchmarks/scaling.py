"""Simulated training on up to 1,024 devices, and the pictures of docs/scaling.md.

    python benchmarks/scaling.py            simulates, writes benchmarks/results/scaling.json and draws
    python benchmarks/scaling.py --draw     draws from that file

Times are predicted, and scaled so that a device sustains 10 TFLOP/s in a step of backpropagation. Each device sends 25
GB/s, and a message takes 5 microseconds more.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import locallearn as ll
from locallearn._figures.style import PAGE, line_styles, new_figure, print_style, save
from locallearn._utils.optional_imports import optional
from locallearn._utils.registry import find
from locallearn.cost import step_macs
from locallearn.simulation import Link, Load, load_of, module_parallel, simulate

RESULTS = Path(__file__).parent / "results" / "scaling.json"
FIGURES = Path(__file__).parents[1] / "docs" / "figures"
LINK = Link(bytes_per_second=25e9, latency=5e-6)
SPEED = 10e12
DEVICES = [2**power for power in range(11)]
STAGES = [1, 2, 4, 8, 16, 32, 54]
COUNTED = 32

Rows = list[dict[str, Any]]

SWEEPS: dict[str, tuple[str, int, ll.Rule, Callable[[int], int]]] = {
    "resnet110": ("resnet110", 32, ll.AugLocal(depth=2), lambda devices: 1024),
    "resnet101": ("resnet101", 224, ll.ImageNetAugLocal(depth=4), lambda devices: 32 * devices),
}
"""Network, side of its images, rule, and images of a step by the number of devices. Where these grow, module parallel
runs as many at a time as data parallel has on each device."""

RULES: dict[str, ll.Rule] = {
    "DGL": ll.DGL(),
    "AugLocal, d = 2": ll.AugLocal(depth=2),
    "MAN(DGL)": ll.MAN(ll.DGL()),
    "LAM(DGL)": ll.LAM(ll.DGL()),
    "HiLo(DGL)": ll.HiLo(ll.DGL()),
    "MLM(DGL)": ll.MLM(ll.DGL()),
}


class Loads:
    """Loads of a network's steps, on devices of the same speed."""

    def __init__(self, model: str, side: int) -> None:
        self._model, self._shape = model, (3, side, side)
        net = self._net(ll.BP())
        predicted = load_of(net, COUNTED)
        self._factor = sum(predicted.times().values()) * SPEED / (2 * step_macs(net, COUNTED))
        self.bp = predicted.on_faster_device(self._factor)

    def of(self, rule: ll.Rule) -> Load:
        print(f"counting {self._model}, {rule}", flush=True)
        return load_of(self._net(rule), COUNTED).on_faster_device(self._factor)

    def _net(self, rule: ll.Rule) -> ll.LocalNet:
        model = find("models", self._model)()
        net = ll.localize(model, rule, input_shape=self._shape)
        return net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def sweep(loads: Loads, rule: ll.Rule, batch: Callable[[int], int]) -> Rows:
    rows = []
    local = loads.of(rule)
    for devices in DEVICES:
        print(f"{devices} devices", flush=True)
        accumulate = min(devices, STAGES[-2]) if batch(devices) > batch(1) else 1
        found = simulate(loads.bp, local, devices=devices, link=LINK, batch=batch(devices), accumulate=accumulate)
        one_device = sum(loads.bp.module_seconds(batch(1))) / batch(1)
        rows.append(dataclasses.asdict(found) | {"one_device_seconds_per_image": one_device})
    return rows


def waiting(loads: Loads) -> dict[str, Rows]:
    """Module parallel training by each rule, without copies."""
    rows: dict[str, Rows] = {}
    for name, rule in RULES.items():
        load = loads.of(rule)
        most = len(load.modules)
        rows[name] = [
            dataclasses.asdict(module_parallel(load, LINK, stages=min(stages, most), copies=1, batch=1024))
            for stages in STAGES
        ]
    return rows


@print_style()
def draw_sweep(rows: Rows, path: Path) -> None:
    figure = new_figure(width=PAGE, height=2.9)
    panels = figure.subplots(1, 3)
    devices = [row["devices"] for row in rows]
    values = {
        "images a second, x BP on one device": lambda row, one: (
            row["batch"] / one["seconds"] * row["one_device_seconds_per_image"]
        ),
        "memory of a device, GiB": lambda row, one: one["memory"] / 2**30,
        "a device sends in a step, MiB": lambda row, one: one["traffic"] / 2**20 or float("nan"),
    }
    for axes, (title, value) in zip(panels, values.items(), strict=True):
        for index, style in enumerate(line_styles(len(rows[0]["outcomes"]))):
            layout = rows[0]["outcomes"][index]["layout"]
            axes.plot(devices, [value(row, row["outcomes"][index]) for row in rows], label=layout, **style)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=10)
        axes.yaxis.set_major_locator(optional("matplotlib.ticker").LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_minor_formatter(optional("matplotlib.ticker").NullFormatter())
        axes.set(xlabel="devices", title=title)
        axes.set_xticks(devices[::2], [f"{count:,}" for count in devices[::2]])
    panels[0].plot(devices, devices, color="#999999", linewidth=0.7, label="as many times as devices")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    save(figure, path)


@print_style()
def draw_waiting(rows: dict[str, Rows], path: Path) -> None:
    figure = new_figure(width=PAGE, height=2.8)
    speed_up, idle = figure.subplots(1, 2)
    for (name, of), style in zip(rows.items(), line_styles(len(rows)), strict=True):
        stages = [one["stages"] for one in of]
        speed_up.plot(stages, [of[0]["seconds"] / one["seconds"] for one in of], label=name, **style)
        idle.plot(stages, [100 * max(0.0, one["bubble"]) for one in of], **style)
    speed_up.plot(STAGES, STAGES, color="#999999", linewidth=0.7, label="as many times as devices")
    speed_up.set_yscale("log", base=2)
    speed_up.set(title="images a second, x the same rule on one device", xlabel="devices")
    speed_up.set_yticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    idle.set(title="devices are idle, % of the time", xlabel="devices", ylim=(0, 100))
    for axes in (speed_up, idle):
        axes.set_xscale("log", base=2)
        axes.set_xticks(STAGES, [f"{count}" for count in STAGES])
        axes.minorticks_off()
    figure.legend(*speed_up.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="draw from the results that are there")
    if not parser.parse_args().draw:
        torch.set_num_threads(1)
        result: dict[str, Any] = {}
        for name, (model, side, rule, batch) in SWEEPS.items():
            loads = Loads(model, side)
            result[name] = sweep(loads, rule, batch)
            if name == "resnet110":
                result["waiting"] = waiting(loads)
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    result = json.loads(RESULTS.read_text())
    for name in SWEEPS:
        draw_sweep(result[name], FIGURES / f"scaling-{name}.png")
    draw_waiting(result["waiting"], FIGURES / "scaling-waiting.png")


if __name__ == "__main__":
    main()
