"""The export folder: a backbone as one file of weights or of a program, with its `config.json`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from locallearn._utils.atomic_files import machine_memory, regular_file, write_whole
from locallearn._utils.errors import LocalLearnError, refuse_unknown
from locallearn._utils.hashed_json import read_hashed_json, write_hashed_json
from locallearn._utils.optional_imports import optional
from locallearn._utils.outputs import make_folder
from locallearn._utils.registry import names_of_file
from locallearn.export.config import FILES, FORMATS, Format, config_of
from locallearn.export.programs import onnx_bytes, program_bytes
from locallearn.training import Trained, load_run, load_weights, make_model
from locallearn.training.warm_start import parse_safetensors

_CONFIG = "config.json"


def export_run(
    run: Path, out: Path, *, format: Format = "safetensors", checkpoint: str = "last", trust_code: bool = False
) -> Path:
    """Export the backbone of a training run, without auxiliary networks.

    Args:
        run: the run folder, or a checkpoint in it.
        out: the new folder, or an empty one.
        format: see `export`.
        checkpoint: "last" or "best".
        trust_code: see `load_run`.

    Returns:
        The file with the weights.

    Raises:
        LocalLearnError: there is no run, the folder is not empty, or a package is missing.
    """
    return export(load_run(run, checkpoint=checkpoint, trust_code=trust_code), out, format=format)


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

    Images are (batch, channels, height, width), normalised with the mean and std of `config.json`; programs take any
    batch. Weights are float32. For a network that was tested in bf16, `how_to_load` ends in lines that make it compute
    in bf16; an ONNX file always computes in fp32.

    Args:
        trained: the backbone.
        out: the new folder, or an empty one.
        format: which file.

    Returns:
        The file with the weights.

    Raises:
        LocalLearnError: the folder is not empty, a package is missing, or the network cannot be exported.
    """
    refuse_unknown("format", format, FORMATS)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LocalLearnError(f"{out} holds other files: choose a new folder by --out.")
    content, config = _content(trained, format), config_of(trained, format)
    make_folder(out)
    path = out / FILES[format]
    write_whole(path, content)
    try:
        write_hashed_json(out / _CONFIG, config | {"sha256": {path.name: _sha256(content)}})
    except BaseException:
        path.unlink()  # no weights without their description
        raise
    return path


def load_exported(folder: Path, *, trust_code: bool = False) -> Trained:
    """The backbone in an export folder of the format safetensors.

    Args:
        folder: the export folder.
        trust_code: see `load_run`.

    Raises:
        LocalLearnError: the folder holds no such export, or its weights do not fit.
    """
    config, weights = folder / _CONFIG, folder / FILES["safetensors"]
    for file in (config, weights):
        if not file.exists():
            raise LocalLearnError(f"{folder} holds no export of the format safetensors: there is no {file.name}.")
    values = read_hashed_json(config, remedy="export again")
    try:
        content = regular_file(weights, most=machine_memory()).read_bytes()
    except LocalLearnError as error:
        raise LocalLearnError(f"{folder} holds no export of the format safetensors: {error}.") from error
    try:
        digest = values["sha256"][weights.name]
        images, own = values["input"], values["locallearn"]
        channels, height, width = images["shape"]
        name, how, classes = own["model"], own["trained"], tuple(values["label_names"])
        mean, std = tuple(images["mean"]), tuple(images["std"])
    except (KeyError, TypeError, ValueError) as error:
        raise LocalLearnError(f"{config} was not written by locallearn export, or is damaged: export again.") from error
    shape = (channels, height, width)
    with names_of_file(trust_code=trust_code):
        model = make_model(name, classes=len(classes), image_shape=shape)
    if digest != _sha256(content):
        raise LocalLearnError(f"{weights} is damaged: its bytes are not those that were exported. Export again.")
    load_weights(model, parse_safetensors(content, weights), file=weights, name=name)
    return Trained(model=model.eval(), name=name, classes=classes, image_shape=shape, mean=mean, std=std, how=how)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _content(trained: Trained, format: Format) -> bytes:
    if format == "torch-export":
        return program_bytes(trained.model, trained.image_shape)
    if format == "onnx":
        return onnx_bytes(trained.model, trained.image_shape)
    state = {name: part.detach().clone().contiguous() for name, part in trained.model.state_dict().items()}
    return optional("safetensors.torch", extra="export").save(state, metadata={"format": "pt"})
