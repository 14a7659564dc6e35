"""One detection run: from settings to a full run folder."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch

from locallearn._torch.device import device_name, device_of, seed_all
from locallearn._utils.atomic_files import write_json
from locallearn._utils.errors import LocalLearnError
from locallearn.detection.coco import Coco, refuse_other_categories
from locallearn.detection.detector import mask_rcnn
from locallearn.detection.fit import DetectorFit
from locallearn.detection.loading import TrainingBatches
from locallearn.detection.metrics import METRICS
from locallearn.detection.region_operators import import_detection
from locallearn.detection.settings import DetectSettings
from locallearn.export import load_exported
from locallearn.training import Checkpoint, RunFolder, Watcher, load_run


def detect(
    settings: DetectSettings,
    folder: Path,
    *,
    resume: Checkpoint | None = None,
    watcher: Watcher | None = None,
    trust_code: bool = False,
) -> dict[str, Any]:
    """Fine-tune Mask R-CNN on a trained backbone and evaluate it on COCO, as in AugLocal (A.7, Table 12).

    Args:
        settings: what to train and how.
        folder: the run folder; new, unless `resume`. It holds settings.yaml, environment.json, metrics.jsonl (a line
            for each epoch), last.pt and result.json.
        resume: the checkpoint to go on from, bit for bit: "last" or "previous" of the folder.
        watcher: learns how training proceeds.
        trust_code: of the backbone's source; see `load_run`.

    Returns:
        The summary that is also in `result.json`: box_ap, box_ap50, box_ap75, mask_ap, mask_ap50, mask_ap75 (0 to 1),
        epochs, seconds_per_epoch (median), parameters, folder.

    Raises:
        LocalLearnError: a file, a folder or a package is missing, or the backbone does not fit.
        Interrupted: the watcher asked to stop; the checkpoint is written.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = device_of(settings.device)
    _refuse_missing_operators(device)
    train = Coco(settings.coco, "train2017", images=settings.images)
    test = Coco(settings.coco, "val2017", images=settings.images)
    refuse_other_categories(train, test)
    source = settings.source
    if source is None:
        raise LocalLearnError("the backbone is missing: give the folder of a run or of an export.")
    exported = (source / "config.json").exists()
    trained = (
        load_exported(source, trust_code=trust_code)
        if exported
        else load_run(source, checkpoint=settings.checkpoint, trust_code=trust_code)
    )
    seed_all(settings.seed)
    detector = mask_rcnn(trained, settings, categories=len(train.categories)).to(device)
    run = RunFolder(folder)
    with run.opened(settings, resume=resume is not None, device=device_name(device), command=("detect",)):
        batches = TrainingBatches(train, batch=settings.batch, seed=settings.seed, workers=settings.workers)
        fit = DetectorFit(detector, batches, test, settings, folder=run, watcher=watcher)
        if resume is not None:
            fit.resume(resume)
        fit.run()
        rows = run.rows_before(settings.epochs + 1, *METRICS, "seconds")
        result = {
            **{name: rows[-1][name] for name in METRICS},
            "epochs": len(rows),
            "seconds_per_epoch": statistics.median(row["seconds"] for row in rows),
            "parameters": sum(parameter.numel() for parameter in detector.parameters()),
            "backbone": {
                "source": str(source),
                "model": trained.name,
                "test_accuracy": trained.how.get("test_accuracy"),
            },
            "folder": str(folder),
        }
        write_json(run.result, result)
    return result


def _refuse_missing_operators(device: torch.device) -> None:
    import_detection()
    from torchvision.extension import _has_ops  # pyright: ignore[reportMissingImports]

    if device.type != "cpu" and not _has_ops():
        raise LocalLearnError(
            "torchvision's compiled operators do not fit this PyTorch, and a detector needs them on a GPU: install a"
            " torchvision made for it, or use --device cpu."
        )
