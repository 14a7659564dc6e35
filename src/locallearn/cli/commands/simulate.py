"""`locallearn simulate`: training on many devices, without them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from locallearn._engine.recompute_plan import Memory
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted, format_bytes, parse_rate, parse_seconds, parse_speed
from locallearn.cli.console import say, show, show_json, work
from locallearn.cli.parser import Parser
from locallearn.cli.step_options import add_step, localized, step_of
from locallearn.cost import Activity, step_macs
from locallearn.rules import BP
from locallearn.simulation import Link, Load, Simulation, load_of, measured_times, refuse_numbers, simulate

HELP = """Time, idle time, memory and traffic of a training step on many devices: BP and a local rule, side by side.

Nothing is trained: a discrete-event simulation runs the tasks of a step on devices and links. Their times are
predicted for one core of a processor, as in locallearn plan. --speed scales them to a faster device, --measure measures
them on this machine, and --times reads them from a file (the part "times" of what --json prints).

examples:
  locallearn simulate --model resnet110 --rule auglocal --rule.depth 2 --batch 1024 --devices 64 --speed 10TFLOP/s
  locallearn simulate --model resnet50 --image 3x224x224 --batch 2048 --devices 64 --link 25GB/s --latency 5us --json
  locallearn simulate --model resnet32 --rule dgl --devices 8 --measure --link 1GB/s --latency 50us
"""

_COUNTED = 64
"""Most images with which a step is counted; times and bytes of other numbers follow from it."""

Times = dict[tuple[Activity, int], float]


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn simulate --devices N [options]")
    parser.add_argument("--devices", type=int, required=True, help="their number")
    add_step(parser)
    parser.add_argument("--modules", type=int | str | list[str], default="all", help="of the local rule, as for train")
    parser.add_argument("--memory", type=Memory, default="fast", help="of the local rule, as for train")
    parser.add_argument("--link", type=str, default="25GB/s", help="what a device sends at most: 25GB/s, 100Gbit/s")
    parser.add_argument("--latency", type=str, default="5us", help="of each message: 5us, 0.1ms")
    parser.add_argument("--micro_batches", type=int | None, default=None, help="of pipelines; by default 4 a stage")
    parser.add_argument("--accumulate", type=int, default=1, help="micro-batches of module parallel before each step")
    parser.add_argument(
        "--stages",
        type=int | None,
        default=None,
        help="of pipelines and module parallel; by default the largest divisor of DEVICES up to the number of modules",
    )
    parser.add_argument("--speed", type=str | None, default=None, help="of a device in a step of BP: 10TFLOP/s")
    parser.add_argument("--measure", action="store_true", help="measure times on this machine, with up to 64 images")
    parser.add_argument("--times", type=Path | None, default=None, help="read times from a JSON file")
    return parser


def run(config: Any) -> None:
    """Simulate and print."""
    values = parser().instantiate(config)
    shape, settings, title = step_of(values)
    link = Link(bytes_per_second=parse_rate(values.link), latency=parse_seconds(values.latency))
    numbers = {name: getattr(values, name) for name in ("devices", "batch", "micro_batches", "accumulate", "stages")}
    refuse_numbers(**numbers)
    speed = None if values.speed is None else parse_speed(values.speed)
    if sum((values.speed is not None, values.measure, values.times is not None)) > 1:
        raise LocalLearnError("--speed, --measure and --times each say how fast a device is: give one of them.")
    given = {} if values.times is None else _read(values.times)
    images = max(4, min(values.batch, _COUNTED))
    loads: dict[str, Load] = {}
    factor = 1.0
    with work() as report:
        for name, rule in (("BP", BP()), ("local", values.rule)):
            report(f"localizing {values.model} for {rule}")
            modules, memory = ("all", "fast") if name == "BP" else (values.modules, values.memory)
            net = localized(values, rule, shape, modules=modules, memory=memory)
            report(f"counting a step of {rule}")
            load = load_of(net, images, make_stepper=settings.make_stepper, autocast=settings.autocast)
            if values.measure:
                report(f"measuring steps of {rule}")
                load = load.with_times(measured_times(net, images, autocast=settings.autocast))
            if speed is not None and name == "BP":
                factor = sum(load.times().values()) * speed / (2 * step_macs(net, images))
            if values.times is not None:
                load = load.with_times(_scaled(given, name, load, values.times))
            loads[name] = load if factor == 1 else load.on_faster_device(factor)
        report("simulating")
        result = simulate(
            loads["BP"],
            loads["local"],
            **numbers,
            link=link,
        )
    if values.json:
        times = {name: {"images": load.images, "modules": _by_module(load)} for name, load in loads.items()}
        show_json(dataclasses.asdict(result) | {"times": times})
        return
    _show(
        result,
        f"{title}, {counted(values.devices, 'device')}, {values.link}, {values.latency}; {values.rule} beside BP",
    )
    for sentence in result.limits:
        say(sentence)


def _show(result: Simulation, title: str) -> None:
    rows = [
        (
            one.layout,
            f"{one.stages} x {one.copies}",
            f"{one.micro_batches}",
            f"{one.seconds * 1e3:,.2f} ms",
            f"{result.batch / one.seconds:,.0f}",
            f"{result.bp_seconds / one.seconds:.2f}",
            f"{one.bubble:.1%}",
            format_bytes(one.memory),
            format_bytes(one.traffic),
        )
        for one in result.outcomes
    ]
    columns = ("layout", "stages x copies", "micro-batches", "step", "images / s", "x one device (BP)", "idle")
    show(title, (*columns, "memory a device", "sent a step"), rows)


def _by_module(load: Load) -> list[dict[str, float]]:
    """Seconds of each module's activities."""
    rows: list[dict[str, float]] = [{} for _ in load.modules]
    for (activity, module), seconds in load.times().items():
        rows[module][activity] = seconds
    return rows


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LocalLearnError(f"--times {path}: this is no readable JSON file ({error}).") from error
    times = content.get("times", content) if isinstance(content, dict) else {}
    if not {"BP", "local"} <= times.keys():
        raise LocalLearnError(f"--times {path}: give times of both 'BP' and 'local', as simulate --json prints them.")
    return times


def _scaled(given: Mapping[str, Any], name: str, load: Load, path: Path) -> Times:
    """The times of a file, for the number of images of the load."""
    try:
        rows, images = given[name]["modules"], float(given[name]["images"])
        times: Times = {
            (activity, module): float(seconds) * load.images / images
            for module, row in enumerate(rows)
            for activity, seconds in row.items()
        }
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise LocalLearnError(
            f"--times {path}: {name!r} must have 'images', a number, and 'modules', a list with seconds of forward,"
            " auxiliary and backward for each module."
        ) from error
    if len(rows) != len(load.modules):
        raise LocalLearnError(
            f"--times {path}: {name!r} has times of {counted(len(rows), 'module')}, and the network has"
            f" {len(load.modules)}."
        )
    unknown = {activity for activity, _ in times} - set(get_args(Activity))
    if unknown or min(times.values(), default=0.0) < 0 or not sum(times.values()):
        raise LocalLearnError(
            f"--times {path}: times of {name!r} must be numbers from 0 of {', '.join(get_args(Activity))}."
        )
    return times
