"""Writing and reading export folders."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, get_args

import torch

import locallearn
from locallearn._utils.atomic_files import read_json, write_json, write_whole
from locallearn._utils.errors import LocalLearnError, reason_of, refuse_unknown
from locallearn._utils.optional_imports import optional
from locallearn.export.model_source import ModelSource, model_source_of, timm_arguments
from locallearn.export.programs import onnx_bytes, program_bytes
from locallearn.training import Trained, load_run, load_weights, make_model

Format = Literal["safetensors", "torch-export", "onnx"]
FORMATS: tuple[Format, ...] = get_args(Format)

_FILES = {"safetensors": "model.safetensors", "torch-export": "model.pt2", "onnx": "model.onnx"}
_CONFIG = "config.json"
_IN_BF16 = (
    "import torch",
    "def in_bf16(images, forward=model.forward):  # as the test accuracy was measured; without it, fp32",
    "    with torch.autocast(images.device.type, dtype=torch.bfloat16):",
    "        return forward(images)",
    "model.forward = in_bf16",
)


def export_run(run: Path, out: Path, *, format: Format = "safetensors", checkpoint: str = "last") -> Path:
    """Export the backbone of a training run, without auxiliary networks.

    Args:
        run: the run folder, or a checkpoint in it.
        out: the new folder; empty, if it is there.
        format: see `export`.
        checkpoint: "last" or "best".

    Returns:
        The file with the weights.

    Raises:
        LocalLearnError: there is no run, the folder holds something, or a package is missing.
    """
    return export(load_run(run, checkpoint=checkpoint), out, format=format)


def export(trained: Trained, out: Path, *, format: Format = "safetensors") -> Path:
    """Write a backbone for use without locallearn: `config.json` and one file.

    ============== ==================== =============================================================
    format         file                 loaded by
    ============== ==================== =============================================================
    `safetensors`  `model.safetensors`  torchvision or timm, with the lines under `how_to_load` in `config.json`; timm's
                                        networks also by `timm.create_model("local-dir:FOLDER", pretrained=True)`
    `torch-export` `model.pt2`          `torch.export.load`, without any network's code
    `onnx`         `model.onnx`         ONNX runtimes
    ============== ==================== =============================================================

    Images are (batch, channels, height, width), with the mean and std of `config.json`; programs take any batch.
    Weights are float32; of a network that was tested in bf16, `how_to_load` ends in lines that compute so (not ONNX's).

    Args:
        trained: the backbone.
        out: the new folder; empty, if it is there.
        format: which file.

    Returns:
        The file with the weights.

    Raises:
        LocalLearnError: the folder holds something, a package is missing, or the network cannot be exported.
    """
    refuse_unknown("format", format, FORMATS)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LocalLearnError(f"{out} holds other files: choose a new folder by --out.")
    source = model_source_of(trained.model, trained.name, classes=len(trained.classes), image_shape=trained.image_shape)
    content, config = _content(trained, format), _config(trained, source, format)
    out.mkdir(parents=True, exist_ok=True)
    path = out / _FILES[format]
    write_whole(path, content)
    write_json(out / _CONFIG, config)
    return path


def load_exported(folder: Path) -> Trained:
    """The backbone in an export folder of the format safetensors.

    Raises:
        LocalLearnError: the folder holds no such export, or its weights do not fit.
    """
    config, weights = folder / _CONFIG, folder / _FILES["safetensors"]
    for file in (config, weights):
        if not file.exists():
            raise LocalLearnError(f"{folder} holds no export of the format safetensors: there is no {file.name}.")
    about = read_json(config)
    try:
        images, own = about["input"], about["locallearn"]
        channels, height, width = images["shape"]
        name, how, classes = own["model"], own["trained"], tuple(about["label_names"])
        mean, std = tuple(images["mean"]), tuple(images["std"])
    except (KeyError, TypeError, ValueError) as error:
        raise LocalLearnError(f"{config} was not written by locallearn export, or is damaged: export again.") from error
    shape = (channels, height, width)
    model = make_model(name, classes=len(classes), image_shape=shape)
    safetensors = optional("safetensors.torch", extra="export")
    try:
        state = safetensors.load(weights.read_bytes())
    except Exception as error:  # of safetensors' own type
        raise LocalLearnError(f"{weights} cannot be read: {reason_of(error)}.") from error
    load_weights(model, state, file=weights, name=name)
    return Trained(model=model.eval(), name=name, classes=classes, image_shape=shape, mean=mean, std=std, how=how)


def _content(trained: Trained, format: Format) -> bytes:
    if format == "torch-export":
        return program_bytes(trained.model, trained.image_shape)
    if format == "onnx":
        return onnx_bytes(trained.model, trained.image_shape)
    state = {name: part.detach().clone().contiguous() for name, part in trained.model.state_dict().items()}
    return optional("safetensors.torch", extra="export").save(state, metadata={"format": "pt"})


def _config(trained: Trained, source: ModelSource, format: Format) -> dict[str, Any]:
    shape, classes = list(trained.image_shape), len(trained.classes)
    images = {"shape": shape, "mean": list(trained.mean), "std": list(trained.std), "pixels": "0 to 1"}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "locallearn": locallearn.__version__}
    return {
        "architecture": source.architecture,
        "library": source.library or None,
        "num_classes": classes,
        "label_names": list(trained.classes),
        "input": images,
        "how_to_load": _how_to_load(trained, source, format),
        **_for_timm(trained, source),
        "locallearn": {"model": trained.name, "trained": _how(trained), "versions": versions | _library(source)},
    }


def _how(trained: Trained) -> dict[str, Any]:
    """How it was trained, without the folders of whoever trained it."""
    settings = {name: value for name, value in trained.how.get("settings", {}).items() if name != "data_dir"}
    return dict(trained.how) | {"settings": settings}


def _how_to_load(trained: Trained, source: ModelSource, format: Format) -> list[str]:
    file, mixed = _FILES[format], trained.how.get("test_precision") == "bf16"
    if format == "onnx":
        more = ["# it computes in fp32; the test accuracy was measured in bf16"] if mixed else []
        return ["import onnxruntime", f"session = onnxruntime.InferenceSession({file!r})", "# images -> logits", *more]
    lines = (
        ("import torch", f"model = torch.export.load({file!r}).module()")
        if format == "torch-export"
        else (
            *source.lines,
            "from safetensors.torch import load_file",
            f"model.load_state_dict(load_file({file!r}))",
            "model.eval()",
        )
    )
    return [*lines, *(line for line in _IN_BF16 if mixed and line not in lines)]


def _for_timm(trained: Trained, source: ModelSource) -> Mapping[str, Any]:
    """What `timm.create_model("local-dir:FOLDER")` reads."""
    if source.library != "timm":
        return {}
    images = {"input_size": list(trained.image_shape), "mean": list(trained.mean), "std": list(trained.std)}
    return {
        "pretrained_cfg": images | {"num_classes": len(trained.classes), "custom_load": False},
        "model_args": timm_arguments(source.architecture, trained.image_shape),
    }


def _library(source: ModelSource) -> dict[str, str]:
    try:
        return {source.library: version(source.library)} if source.library else {}
    except PackageNotFoundError:  # our own CIFAR networks do without
        return {}
