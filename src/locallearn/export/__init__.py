"""Backbones for use without locallearn: weights as safetensors, exported programs, ONNX."""

from locallearn.export.formats import (
    FORMATS as FORMATS,
    Format as Format,
    export as export,
    export_run as export_run,
    load_exported as load_exported,
)
