"""The `config.json` of an export folder: how to load the backbone, and how it was trained."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, get_args

import torch

import locallearn
from locallearn.export.model_source import ModelSource, model_source_of
from locallearn.models.library import timm_arguments
from locallearn.training import Trained

Format = Literal["safetensors", "torch-export", "onnx"]
FORMATS: tuple[Format, ...] = get_args(Format)
FILES = {"safetensors": "model.safetensors", "torch-export": "model.pt2", "onnx": "model.onnx"}
"""The file of each format."""

_IN_BF16 = (
    "import torch",
    "def in_bf16(images, forward=model.forward):  # as the test accuracy was measured; without it, fp32",
    "    with torch.autocast(images.device.type, dtype=torch.bfloat16):",
    "        return forward(images)",
    "model.forward = in_bf16",
)


def config_of(trained: Trained, format: Format) -> dict[str, Any]:
    """The content of `config.json` (docs/export.md lists its keys)."""
    source = model_source_of(trained.model, trained.name, classes=len(trained.classes), image_shape=trained.image_shape)
    images = {
        "shape": list(trained.image_shape),
        "mean": list(trained.mean),
        "std": list(trained.std),
        "pixels": "0 to 1",
    }
    versions = {"python": platform.python_version(), "torch": torch.__version__, "locallearn": locallearn.__version__}
    return {
        "architecture": source.architecture,
        "library": source.library or None,
        "num_classes": len(trained.classes),
        "label_names": list(trained.classes),
        "input": images,
        "how_to_load": _how_to_load(trained, source, format),
        **_for_timm(trained, source),
        "locallearn": {"model": trained.name, "trained": _how(trained), "versions": versions | _library(source)},
    }


def _how(trained: Trained) -> dict[str, Any]:
    """How it was trained, without `data_dir`, which says where the user keeps data sets."""
    settings = {name: value for name, value in trained.how.get("settings", {}).items() if name != "data_dir"}
    return dict(trained.how) | {"settings": settings}


def _how_to_load(trained: Trained, source: ModelSource, format: Format) -> list[str]:
    file, mixed = FILES[format], trained.how.get("test_precision") == "bf16"
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
        "model_args": timm_arguments(source.architecture, *trained.image_shape[:2]),
    }


def _library(source: ModelSource) -> dict[str, str]:
    try:
        return {source.library: version(source.library)} if source.library else {}
    except PackageNotFoundError:  # networks of our own need no library
        return {}
