"""One training run: from settings to a full run folder."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from locallearn._engine.local_net import LocalNet
from locallearn._torch.device import device_name, device_of
from locallearn._utils.atomic_files import write_json
from locallearn._utils.errors import LocalLearnError, OutOfMemoryError
from locallearn.cost import peak_memory
from locallearn.training.curves import draw_curves
from locallearn.training.data_card import DataCard
from locallearn.training.fit import Fit
from locallearn.training.from_settings import build, data_of
from locallearn.training.loop import Watcher
from locallearn.training.run_folder import RunFolder
from locallearn.training.settings import TrainSettings
from locallearn.training.settings_text import as_yaml, rule_text


def train(
    settings: TrainSettings,
    folder: Path,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train a network and fill a run folder.

    Args:
        settings: what to train and how.
        folder: the run folder; new, unless `resume`.
        resume: continue from the folder's last checkpoint, bit for bit.
        watcher: learns how training proceeds.
        say: prints a sentence for a person.

    Returns:
        The summary that is also in `result.json`: test_accuracy, best_accuracy, seconds_per_epoch (median),
        peak_activation_bytes, peak_total_bytes, backbone_parameters, auxiliary_parameters, epochs, folder.

    Raises:
        LocalLearnError: a setting does not fit the network, the data or the folder; nothing is written then.
        Interrupted: the watcher asked to stop; the checkpoint is written.
        NonFiniteLossError: a loss became NaN or infinite; the checkpoints are from before.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = device_of(settings.device)
    if settings.cuda_graphs and device.type != "cuda":
        raise LocalLearnError(f"cuda_graphs needs a CUDA GPU, but the device is {device}: leave it out.")
    images = data_of(settings)
    net = build(settings, images).to(device)
    drop_single = _drops_single_image(net, settings, len(images.train), say)
    run = RunFolder(folder)
    if resume:
        run.refuse_other_settings(as_yaml(settings))
    else:
        run.create(as_yaml(settings), device=device_name(device))
        write_json(run.data, asdict(DataCard.of(images)))
    micro_batch = -(-min(settings.batch, len(images.train)) // settings.accumulate)
    if settings.memory == "lean":
        say("memory=lean: choosing what to recompute, in seconds; for cascades over many layers in a minute or two")
    peak = peak_memory(net, micro_batch, make_stepper=settings.make_stepper, autocast=settings.autocast)
    if settings.compile:
        net.compile()
    fit = Fit(
        net,
        images.training(settings.feed(device), seed=settings.seed, drop_single=drop_single),
        images.testing(settings.feed(device)),
        settings,
        folder=run,
        watcher=watcher,
    )
    if resume and run.last.exists():
        fit.resume()
    try:
        fit.run()
    except OutOfMemoryError as error:
        raise error.naming(settings.model, rule_text(settings.rule)) from error
    rows = run.rows()
    result = {
        "test_accuracy": rows[-1]["test_accuracy"],
        "best_accuracy": max(row["test_accuracy"] for row in rows),
        "seconds_per_epoch": statistics.median(row["seconds"] for row in rows),
        "peak_activation_bytes": peak.activations,
        "peak_total_bytes": peak.total,
        "backbone_parameters": sum(p.numel() for p in net.model.parameters()),
        "auxiliary_parameters": sum(p.numel() for p in net.auxiliary.parameters()),
        "epochs": len(rows),
        "folder": str(folder),
    }
    write_json(run.result, result)
    draw_curves({str(settings.rule): rows}, run.curves)
    return result


def _drops_single_image(net: LocalNet, settings: TrainSettings, count: int, say: Callable[[str], None]) -> bool:
    """Whether to leave out the last batch, because it is a single image and some part normalises over several.

    Raises:
        LocalLearnError: another batch, or a micro-batch, is a single image, and some part normalises over several.
    """
    last = count % settings.batch
    sizes = {min(settings.batch, count), last} - {0}
    with_single = {size for size in sizes if size // min(settings.accumulate, size) == 1}
    if not with_single or net.needs_several is None:
        return False
    if with_single == {1} and len(sizes) == 2:
        say(f"the last batch holds a single image and is left out: {net.needs_several} needs several to normalise.")
        return True
    raise LocalLearnError(
        f"a batch of {max(with_single)} images in {settings.accumulate} parts leaves a single image in one, but"
        f" {net.needs_several} normalises over several: choose another batch or accumulate."
    )
