"""One training run: from settings to a full run folder."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from locallearn._engine.local_net import LocalNet
from locallearn._nn.frozen import frozen_parts
from locallearn._planning.out_of_memory import advice
from locallearn._torch.device import device_name, device_of, is_out_of_memory
from locallearn._utils.errors import LocalLearnError, OutOfMemoryError, UnpredictableError
from locallearn._utils.hashed_json import write_hashed_json
from locallearn.cost import PeakMemory, peak_memory
from locallearn.data import Batches, DataSet, Feed, hold_out
from locallearn.parallel import ModulePart
from locallearn.training.evaluation import has_several_labels, refuse_misfit_labels
from locallearn.training.files.checkpoint import Checkpoint
from locallearn.training.files.data_card import DataCard
from locallearn.training.files.run_folder import RunFolder
from locallearn.training.fit import Fit
from locallearn.training.from_settings import build, data_of, training_batches, with_mixing
from locallearn.training.loop import Interrupted, Watcher
from locallearn.training.memory_budget import refuse_broken_budget
from locallearn.training.processes.agreement import digest, facts_of, refuse_differences, refuse_uncut
from locallearn.training.processes.joining import joined_processes
from locallearn.training.processes.parts import drops_single_image
from locallearn.training.processes.predicted import process_rows
from locallearn.training.processes.processes import Processes
from locallearn.training.remarks import remark_on_memory, remark_on_modules
from locallearn.training.result import tell_early_stop, write_result
from locallearn.training.resume import record_resume
from locallearn.training.settings.commands import plan_command
from locallearn.training.settings.train import NO_RESULT, TrainSettings
from locallearn.training.warm_start import WarmStart


def train(
    settings: TrainSettings,
    folder: Path,
    *,
    resume: Checkpoint | None = None,
    changing: Collection[str] = (),
    watcher: Watcher | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train a network and fill a run folder.

    Args:
        settings: what to train and how.
        folder: the run folder; new, unless `resume`.
        resume: the checkpoint to go on from, bit for bit: "last", "previous" or "best" of the folder. A run that was
            stopped before its first one starts from the beginning.
        changing: settings in which the run may go on otherwise than it began, of "epochs", "optimizer" (its lr),
            "schedule", "early_stopping", "device", "threads", "memory"; the folder's `history.json` says so. Those on
            which no result depends (`NO_RESULT`) may always differ.
        watcher: learns how training proceeds.
        say: prints a sentence for a person.

    Returns:
        The summary that is also in `result.json`: test_accuracy (of the last epoch), best_accuracy (test accuracy of
        the best epoch), best_epoch, best_chosen_on ("validation" or "test" images), validation_accuracy (of the last
        epoch) and best_validation_accuracy if there are validation images, unaveraged_test_accuracy (of the last epoch)
        with `ema`, seconds_per_epoch (median), peak_activation_bytes and peak_total_bytes (None where the step's shapes
        depend on data, so that nothing predicts them), backbone_parameters, auxiliary_parameters, epochs, stopped_early
        (where it did), folder. Where processes have some of the local modules each, the peaks are those of the process
        that needs most, and processes has a row for each; in the asynchronous form, replay_buffer and, for each
        process, staleness (as `parallel.Staleness`, since the run began or went on).

    Raises:
        LocalLearnError: a setting does not fit the network, the data or the folder; nothing is written then.
        Interrupted: the watcher asked to stop; the checkpoint is written.
        NonFiniteLossError: a loss became NaN or infinite; the checkpoints are from before.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = device_of(settings.device)
    settings.refuse_device(device)
    with joined_processes(settings.parallel, device, timeout=settings.parallel_timeout) as processes:
        try:
            return _train(settings, RunFolder(folder), resume, changing, watcher, say, processes)
        except Interrupted as error:  # on all processes after the same step: none has failed
            interrupted = error
    raise interrupted


def _train(
    settings: TrainSettings,
    run: RunFolder,
    resume: Checkpoint | None,
    changing: Collection[str],
    watcher: Watcher | None,
    say: Callable[[str], None],
    processes: Processes,
) -> dict[str, Any]:
    """Train in this process, which may be one of several; only the first one touches the run folder."""
    refuse_differences(processes, facts_of(settings))
    if not processes.leads:
        say = _silence
    elif processes.restarted and run.settings.exists():
        resume = "last"
    processes.at("reading the data set")
    images, validation = data_of(settings), None
    if settings.validation is not None:
        images, validation = hold_out(images, settings.validation, seed=settings.seed)
    processes.at("building the network")
    goes_on = processes.from_first(lambda: resume is not None and run.settings.exists() and not run.never_saved())
    net = _network(settings, images, trained=goes_on, say=say).to(processes.device)
    own_batch = -(-min(settings.batch, len(images.train)) // processes.layout.data)
    frozen = [] if settings.freeze is None else frozen_parts(net.model, net.chain.layers)
    feed = processes.own_feed(settings.feed(processes.device))
    testing = settings.testing_feed(replace(feed, batch=min(feed.batch, len(images.train))))
    batches, test = _batches(settings, images, net, (feed, testing), processes, say)
    changing = {*changing, *NO_RESULT}
    if processes.leads:
        run.refuse_unfit(settings, resume=resume is not None, changing=changing)
    remark_on_modules(net, settings.rule, say)
    processes.at("counting memory")
    peak = _counted(net, settings, own_batch, say)
    if peak is not None and not goes_on:
        refuse_broken_budget(settings, net, own_batch, peak)
    rows: list[dict[str, Any]] = []
    if processes.layout.modules > 1:
        rows = processes.from_first(lambda: process_rows(net, settings, processes.layout, own_batch))
    opened = run.opened(settings, resume=resume is not None, device=device_name(processes.device), changing=changing)
    with opened if processes.leads else nullcontext():
        if processes.leads and not run.data.exists():
            write_hashed_json(run.data, asdict(DataCard.of(images)))
        if settings.compile:
            net.compile()
        net = processes.share(
            net,
            synchronise_statistics=settings.synchronise_statistics,
            replay_buffer=settings.replay_buffer,
        )
        processes.seed(settings.seed)
        fit = Fit(
            net,
            batches,
            test,
            settings,
            validation=None if validation is None else validation.testing(testing),
            frozen=frozen,
            folder=run if processes.leads else None,
            watcher=watcher,
            processes=processes,
        )
        peak = _with_average(fit, peak, rows, processes)
        if processes.from_first(lambda: resume is not None):
            fit.resume(resume or "last")
            if processes.leads:
                record_resume(fit, run, settings, resume or "last", say)
        try:
            fit.run()
        except (RuntimeError, MemoryError, OutOfMemoryError) as error:
            if not is_out_of_memory(error):
                raise
            needed = None if peak is None else peak.total
            command = plan_command(settings, images.image_shape, len(images.classes), batch=own_batch)
            raise _advised(error, advice(needed, processes.device, command), own_batch, needed) from error
        if processes.leads and fit.epoch <= settings.epochs:
            tell_early_stop(run, fit, say)
        several = ({"processes": rows} if rows else {}) | _staleness(net, processes)
        return processes.from_first(lambda: write_result(run, net, peak, settings, several, epochs=fit.epoch - 1))


def _advised(error: Exception, advice: str, batch: int, predicted: int | None) -> OutOfMemoryError:
    """An error for memory that ran out, with advice that knows the whole batch and the optimizer."""
    known = isinstance(error, OutOfMemoryError)
    event = error.event if known else "memory ran out in an optimizer's step or in a test."
    return OutOfMemoryError(event, advice, module=error.module if known else None, batch=batch, predicted=predicted)


def _network(settings: TrainSettings, images: DataSet, *, trained: bool, say: Callable[[str], None]) -> LocalNet:
    """The network, from the weights of `init_from` unless a checkpoint has trained ones."""
    if settings.init_from is None or trained:
        return build(settings, images)
    warm = WarmStart.read(settings.init_from)
    anew: set[str] = set()
    told: list[str] = []
    net = build(settings, images, start=lambda model: anew.update(warm.load(model, images.classes, told.append)))
    if random := [name for name, value in net.model.named_parameters() if name in anew and not value.requires_grad]:
        raise LocalLearnError(
            f"freeze={settings.freeze} covers {random[0]!r}, which starts anew, as the classes are others than those of"
            f" {warm.file}: a classifier of random weights would stay. Name fewer parts."
        )
    for sentence in told:  # nothing is wrong
        say(sentence)
    return net


def _batches(
    settings: TrainSettings,
    images: DataSet,
    net: LocalNet,
    feeds: tuple[Feed, Feed],
    processes: Processes,
    say: Callable[[str], None],
) -> tuple[Batches, Batches]:
    """The training and test batches, of the same images in all processes; the network learns the shape of labels."""
    feed, testing = feeds
    drop_single = drops_single_image(
        len(images.train),
        settings.batch,
        processes=processes.layout.data,
        micro_batches=settings.accumulate,
        needs_several=net.needs_several,
        synchronised=settings.synchronise_statistics,
    )
    if drop_single:
        say(f"the last batch holds a single image and is left out: {net.needs_several} needs several to normalise.")
    batches, test = training_batches(settings, images, feed, drop_single=drop_single), images.testing(testing)
    if processes.layout.count > 1:
        refuse_uncut(batches, settings.data)
        refuse_differences(processes, {"training split": digest(batches), "test split": digest(test)})
    refuse_misfit_labels(batches, net.loss)
    refuse_misfit_labels(test, net.loss)
    if settings.mixes or has_several_labels(batches):
        net.label_shape = (len(images.classes),)
    settings.refuse_misfit(net, steps=len(batches))
    return with_mixing(settings, batches, feed, classes=len(images.classes)), test


def _counted(net: LocalNet, settings: TrainSettings, batch: int, say: Callable[[str], None]) -> PeakMemory | None:
    """Peak memory of a step, which says so where it is more than that of backpropagation; None where none can tell."""
    if settings.memory != "fast":
        say(f"memory={settings.memory}: choosing what to recompute, in seconds; for many cascades in minutes")
    try:
        peak = peak_memory(net, batch, **settings.step_options)
    except UnpredictableError as error:
        say(f"training without a predicted peak of memory: {error}")
        return None
    remark_on_memory(net, settings, peak, batch, say)
    return peak


def _with_average(
    fit: Fit, peak: PeakMemory | None, rows: list[dict[str, Any]], processes: Processes
) -> PeakMemory | None:
    """Peak memory with the averages of weights: that of the largest of the processes whose rows these are, if any."""
    averages = processes.of_modules(0 if fit.average is None else fit.average.nbytes)
    if peak is None:
        return None
    if not rows:
        return replace(peak, total=peak.total + averages[0])
    for row, average in zip(rows, averages, strict=True):
        row["peak_total_bytes"] += average
    return PeakMemory(
        activations=max(row["peak_activation_bytes"] for row in rows),
        total=max(row["peak_total_bytes"] for row in rows),
    )


def _staleness(net: LocalNet | ModulePart, processes: Processes) -> dict[str, Any]:
    """What the asynchronous form adds to the summary."""
    if not isinstance(net, ModulePart) or net.replay_buffer is None:
        return {}
    ages = processes.of_modules(net.staleness)
    return {"replay_buffer": net.replay_buffer, "staleness": [None if age is None else asdict(age) for age in ages]}


def _silence(_: str) -> None:
    pass
