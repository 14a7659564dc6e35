"""Measure whether the input pipeline keeps up with training: images per second of both.

    python benchmarks/input.py --data FOLDER --workers 0 1 2 --out benchmarks/results/input.json

The pipeline decodes JPEGs, takes a random part, resizes it to 224 x 224, mirrors half of them, and puts normalised
batches on the device, as `locallearn train --data FOLDER` does. Without --data it reads JPEGs made here, of ImageNet's
mean size (500 x 375 pixels, about 110 kB). The step is plain backpropagation of torchvision's models with SGD, the
fastest of all rules, so every other rule needs fewer images per second. Figures are of the best round, since slower
rounds measure other work of the machine. On a CPU, workers and training share the processors: the pipeline keeps up if
the processors left over decode as many images as the step takes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import tempfile
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from rich.table import Table

from locallearn._torch.vision_libraries import import_torchvision
from locallearn.data import Feed, FileSet, image_folder
from locallearn.training import SGD


def make_images(folder: Path, count: int) -> Path:
    """JPEGs as large as photographs, in pixels and in bytes: smooth noise with some grain."""
    random = np.random.default_rng(0)
    for split, images in (("train", count), ("val", 2)):
        for number in range(images):
            path = folder / split / f"class{number % 2}" / f"{number:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8)).resize((500, 375))
            pixels = np.asarray(coarse).astype(int) + random.integers(-26, 27, (375, 500, 1))
            buffer = io.BytesIO()
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, format="JPEG", quality=90)
            path.write_bytes(buffer.getvalue())
    return folder


def pipeline(data: FileSet, *, workers: int, batch: int, device: str, images: int, rounds: int) -> dict[str, float]:
    """Images per second, the workers' start included and left out."""
    data = data.limited(min(images, len(data.train)))
    rates, starts = [], []
    for epoch in range(1, rounds + 1):
        batches = data.training(Feed(batch=batch, device=device, workers=workers), seed=0, drop_single=False)
        begin, counts, times = perf_counter(), [], []
        for _, labels in batches.epoch(epoch):
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            counts.append(len(labels))
            times.append(perf_counter())
        starts.append(times[0] - begin)
        rates.append(sum(counts) / (times[-1] - begin))
    return {"images_per_second": max(rates), "seconds_to_first_batch": min(starts)}


def step(name: str, *, batch: int, device: str, precision: str, repeats: int) -> dict[str, float]:
    """Seconds of a training step by backpropagation, and the images per second that it takes."""
    model = getattr(import_torchvision().models, name)(num_classes=1000).to(device)
    model = model.to(memory_format=torch.channels_last)
    optimizer = SGD(lr=0.01).make(list(model.parameters()))
    images = torch.randn(batch, 3, 224, 224, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,), device=device)
    kind = torch.device(device).type

    def once() -> None:
        with torch.autocast(kind, dtype=torch.bfloat16) if precision == "bf16" else nullcontext():
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if kind == "cuda":
            torch.cuda.synchronize()

    once()
    times = []
    for _ in range(repeats):
        begin = perf_counter()
        once()
        times.append(perf_counter() - begin)
    seconds = min(times)
    return {"seconds": seconds, "images_per_second": batch / seconds}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of images in class folders, or of tar shards")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", default=["resnet18", "resnet34"], help="of torchvision")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=512, help="images read in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3, help="training steps")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, help="a JSON file")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    processors = len(os.sched_getaffinity(0))
    rounds: dict[str, Any] = {"batch": asked.batch, "device": asked.device}
    with tempfile.TemporaryDirectory() as folder:
        data = image_folder(asked.data or make_images(Path(folder), asked.images))
        rates = {
            workers: pipeline(data, workers=workers, images=asked.images, rounds=asked.rounds, **rounds)
            for workers in asked.workers
            if workers <= processors  # more are never started
        }
    steps = {name: step(name, precision=asked.precision, repeats=asked.repeats, **rounds) for name in asked.models}
    table = Table(title=f"batch {asked.batch}, 224 x 224, {asked.device}, {asked.precision}", title_justify="left")
    needs = [f"of {name}'s need ({values['images_per_second']:.1f}/s)" for name, values in steps.items()]
    for column in ("workers", "images / s", "first batch", *needs):
        table.add_column(column, justify="right")
    for workers, values in rates.items():
        rate = values["images_per_second"]
        shares = [f"{rate / needed['images_per_second']:.1f} x" for needed in steps.values()]
        table.add_row(str(workers), f"{rate:.1f}", f"{values['seconds_to_first_batch']:.2f} s", *shares)
    Console(width=160).print(table)
    if asked.out:
        machine = {
            "torch": torch.__version__,
            "processors": processors,
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
            "precision": asked.precision,
            "images": str(asked.data.name) if asked.data else "made here, 500 x 375",
        }
        asked.out.write_text(json.dumps({**machine, **rounds, "pipeline": rates, "steps": steps}, indent=2) + "\n")


if __name__ == "__main__":
    main()
