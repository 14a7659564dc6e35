"""Images of 224 pixels: memory and arithmetic of a training step beside checkpointing, on tensors without data.

    python benchmarks/large_images.py                        # rows that results/large-images.json lacks, and the page
    python benchmarks/large_images.py --networks resnet50 --again

Rows are what `locallearn cost` counts. No GPU is needed; every machine gives the same numbers.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

import locallearn as ll
from locallearn._engine.recompute_plan import Memory
from locallearn._utils.atomic_files import read_json, write_whole
from locallearn.cli.parser import parse_rule
from locallearn.cost import predict
from locallearn.training import FitSettings, make_model

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "large-images.json"
PAGE = ROOT / "docs" / "results" / "large-images.md"
BATCH, SHAPE, CLASSES = 64, (3, 224, 224), 1000
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A training step: options of `locallearn cost`, and micro-batches as `locallearn train --accumulate` has them."""

    rule: str
    modules: str | int = "all"
    memory: Memory = "lean"
    step: str = "together"
    accumulate: int = 1

    @property
    def key(self) -> str:
        return f"{self.rule}; {self.modules}; {self.memory}; {self.step}; {self.accumulate}"


SLIM = "dgl(channels=128, units=256)"
NEXT = "auglocal-sequential(depth=2, tau=0.0, fidelity=paper)"
AUGLOCAL = "auglocal-imagenet(depth=2)"
BASELINES = (Setting(rule="bp", memory="fast"), Setting(rule="checkpoint", memory="fast"), Setting(rule="checkpoint"))
HEADS = f"reduced({SLIM}, grid=7)"
LAYERS = f"reduced({NEXT}, grid=7)"
NARROW = [f"reduced({NEXT[:-1]}, narrow={narrow}), grid=7)" for narrow in (0.5, 0.25)]
LEAST = Setting(rule=HEADS, memory="least")
ACCUMULATED = (
    Setting(rule="bp", memory="fast", accumulate=4),
    Setting(rule="checkpoint", accumulate=4),
    Setting(rule=HEADS, accumulate=4),
)
EVERYWHERE = (
    *BASELINES,
    Setting(rule="pooling"),
    Setting(rule=HEADS),
    LEAST,
    Setting(rule=LAYERS),
    *ACCUMULATED[:2],
)
FOR_RESNET50 = (
    *BASELINES,
    Setting(rule="pooling"),
    Setting(rule="pooling", modules=4),
    Setting(rule="dgl"),
    Setting(rule="reduced(dgl, grid=7)"),
    Setting(rule="reduced(dgl, grid=7, channels=128)"),
    Setting(rule=SLIM),
    Setting(rule=HEADS),
    Setting(rule=HEADS, step="module"),
    Setting(rule=HEADS, memory="fast"),
    LEAST,
    Setting(rule=SLIM, memory="least"),
    Setting(rule="pooling", memory="least"),
    Setting(rule=HEADS, modules=4, memory="least"),
    Setting(rule=HEADS, modules="peak:8"),
    Setting(rule=HEADS, modules=4),
    Setting(rule=NEXT),
    Setting(rule=LAYERS),
    *(Setting(rule=rule) for rule in NARROW),
    *(Setting(rule=rule, memory="least") for rule in NARROW),
    Setting(rule=LAYERS, modules="peak:8"),
    Setting(rule=AUGLOCAL, modules=4),
    Setting(rule=f"pff({AUGLOCAL}, fidelity=paper)", modules=4),
    Setting(rule=f"reduced({AUGLOCAL}, grid=7)", modules=4),
    *(replace(setting, accumulate=2) for setting in (*ACCUMULATED, LEAST)),
    *ACCUMULATED,
    replace(LEAST, accumulate=4),
)
NETWORKS: dict[str, tuple[Setting, ...]] = {
    "resnet50": FOR_RESNET50,
    "resnet101": (*EVERYWHERE, *(Setting(rule=rule) for rule in NARROW)),
    "torchvision:convnext_tiny": EVERYWHERE,
    "torchvision:vit_b_16": EVERYWHERE,
}


@lru_cache(maxsize=1)
def build(network: str, rule: str, modules: str | int, memory: Memory) -> ll.LocalNet:
    """The network under a rule."""
    model = make_model(network, classes=CLASSES, image_shape=SHAPE)
    net = ll.localize(model, parse_rule(rule), modules=modules, memory=memory, input_shape=SHAPE)
    return net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def measure(network: str, setting: Setting, precision: str) -> dict[str, Any]:
    """Bytes in total and multiply-accumulates of a step."""
    changes: Any = {"step": setting.step, "precision": precision, "accumulate": setting.accumulate}
    net = build(network, setting.rule, setting.modules, setting.memory)
    found = predict(net, BATCH, **FitSettings(**changes).step_options)
    auxiliary = sum(parameter.numel() for parameter in net.auxiliary.parameters())
    return {"modules": len(net.partition), "auxiliary": auxiliary, "total": found.peak.total, "macs": found.macs}


ABOUT = f"""Made by `python benchmarks/large_images.py`. One step of {BATCH} images of {SHAPE[1]} x {SHAPE[2]} pixels
in {CLASSES} classes, Nesterov SGD, counted without computing, as `locallearn cost` does: the peak of all memory
(parameters, gradients, optimizer state, batch, activations) and the multiply-accumulates that run, recomputation
included. "x BP" is against backpropagation in the same precision. Rules, modules, memory and step are written as for
`locallearn train`. Without a note every layer is a module; "peak" means `--modules peak:K`."""

COLUMNS = (
    *("rule", "modules", "memory", "step", "micro-batches", "auxiliary parameters"),
    *("fp32", "x BP", "bf16", "x BP", "MACs, x BP"),
)


def page(results: dict[str, dict[str, Any]], text: str) -> str:
    """The page: what came out, then a table for each network."""
    lines = ["# Images of 224 pixels", "", ABOUT, "", text.strip(), ""]
    for network, settings in NETWORKS.items():
        if not all(tuple(results.get(network, {}).get(setting.key, ())) == PRECISIONS for setting in settings):
            continue  # not counted to the end
        rows = {setting: results[network][setting.key] for setting in settings}
        bp = rows[settings[0]]
        lines += [f"## {network}", "", f"| {' | '.join(COLUMNS)} |", f"|---|{'---:|' * (len(COLUMNS) - 1)}"]
        for setting, row in rows.items():
            modules = "" if setting.rule in ("bp", "checkpoint") else f"{row['fp32']['modules']}"
            cells = [f"`{setting.rule}`", modules + ", peak" * str(setting.modules).startswith("peak")]
            cells += [setting.memory, setting.step, f"{setting.accumulate}", f"{row['fp32']['auxiliary'] / 1e6:.1f} M"]
            for precision in PRECISIONS:
                total = row[precision]["total"]
                cells += [f"{total / 2**20:,.0f} MiB", f"{total / bp[precision]['total']:.2f}"]
            macs = dict.fromkeys(f"{row[one]['macs'] / bp[one]['macs']:.2f}" for one in PRECISIONS)
            cells.append("; bf16 ".join(macs))
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def text_of(written: str) -> str:
    """The part of the page that is written by hand: between the introduction and the first table."""
    first = f"## {next(iter(NETWORKS))}"
    return written.partition(ABOUT.splitlines()[-1])[2].partition(f"\n{first}\n")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--again", action="store_true", help="also what was counted before")
    chosen = parser.parse_args()
    results = read_json(RESULTS) if RESULTS.exists() else {}
    for network in chosen.networks:
        rows = results.setdefault(network, {})
        for setting in sorted(NETWORKS[network], key=lambda setting: setting.key):  # equal networks one after the other
            row = rows.setdefault(setting.key, {})
            for precision in PRECISIONS:
                if chosen.again or precision not in row:
                    row[precision] = measure(network, setting, precision)
                    print(network, setting.key, precision, row[precision], flush=True)
                    write_whole(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    write_whole(PAGE, page(results, text_of(PAGE.read_text()) if PAGE.exists() else "").encode())


if __name__ == "__main__":
    main()
