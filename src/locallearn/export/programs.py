"""Networks as programs that run without the networks' code: torch.export and ONNX."""

from __future__ import annotations

import io
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from locallearn._chain.layout import Shape
from locallearn._utils.errors import LocalLearnError, reason_of
from locallearn._utils.optional_imports import optional


def program_bytes(model: nn.Module, image_shape: Shape) -> bytes:
    """An exported program for any number of images, checked on three.

    Raises:
        LocalLearnError: the network cannot be exported, or the program computes other logits.
    """
    program = _program(model, image_shape)
    images = torch.randn((3, *image_shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if not torch.allclose(program.module()(images), model(images), rtol=1e-4, atol=1e-4):
            raise LocalLearnError(
                f"the exported program of {type(model).__name__} computes other logits than the network: export it as"
                " safetensors."
            )
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def onnx_bytes(model: nn.Module, image_shape: Shape) -> bytes:
    """An ONNX model from `images` to `logits`, for any number of images.

    Raises:
        LocalLearnError: a package is missing, or the network cannot be exported.
    """
    for name in ("onnx", "onnxscript"):
        optional(name, extra="onnx")
    program = _program(model, image_shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        exported = torch.onnx.export(
            program, (), dynamo=True, verbose=False, input_names=["images"], output_names=["logits"]
        )
    assert exported is not None
    return exported.model_proto.SerializeToString()


def _program(model: nn.Module, image_shape: Shape) -> Any:
    images: Tensor = torch.zeros((2, *image_shape))
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(model.eval(), (images,), dynamic_shapes=shapes)
    except Exception as error:
        raise LocalLearnError(f"{type(model).__name__} cannot be exported as a program: {reason_of(error)}.") from error
