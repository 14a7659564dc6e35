"""Writes a trained backbone for use without locallearn. Imports `training` and what is below it."""

from locallearn.export.config import FORMATS as FORMATS, Format as Format
from locallearn.export.export_folder import (
    export as export,
    export_run as export_run,
    load_exported as load_exported,
)
