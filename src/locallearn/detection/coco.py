"""A split of COCO: its images, boxes and masks."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from locallearn._utils.atomic_files import regular_file
from locallearn._utils.errors import LocalLearnError, reason_of
from locallearn._utils.optional_imports import optional
from locallearn._utils.quantities import counted
from locallearn.detection.annotations import fault_of_annotation, fault_of_image, read_annotations

_LAYOUT = (
    "lay COCO out as annotations/instances_train2017.json, annotations/instances_val2017.json, train2017/*.jpg and"
    " val2017/*.jpg, as its own archives do"
)


_EVALUATED = "val2017"
_LARGEST_FILE = 2**28  # bytes of an image


class Coco:
    """One split of COCO, or of another data set in its layout.

    Args:
        folder: of the data set.
        split: "train2017" or "val2017".
        images: how many images to use; all by default.

    Attributes:
        api: pycocotools' `COCO`.
        files: path of each image by its id.
        ids: of the images in use.
        categories: ids of the categories, in order; a detector's label is an index into them plus one.
        names: of the categories.

    Raises:
        LocalLearnError: a file is missing or has another layout, an image or annotation in use is incomplete, or
            pycocotools is not installed.
    """

    def __init__(self, folder: Path, split: str, *, images: int | None = None) -> None:
        self.folder = folder
        self.annotations = folder / "annotations" / f"instances_{split}.json"
        if not folder.is_dir():
            raise LocalLearnError(f"there is no folder {folder} for COCO: name it by --coco, and {_LAYOUT}.")
        for path in (self.annotations, folder / split):
            if not path.exists():
                raise LocalLearnError(f"{folder} has no {path.relative_to(folder)}: {_LAYOUT}.")
        self.api = _index(read_annotations(self.annotations))
        self.categories = sorted(self.api.cats)
        self.names = [self.api.cats[key]["name"] for key in self.categories]
        self.ids = sorted(self.api.imgs)[:images]
        for key in self.ids:
            image = self.api.imgs[key]
            if fault := fault_of_image(image):
                raise LocalLearnError(f"{self.annotations}: image {key} {fault}.")
            for annotation in self.api.imgToAnns[key]:
                if fault := fault_of_annotation(annotation, image, self.api.cats, is_evaluated=split == _EVALUATED):
                    raise LocalLearnError(f"{self.annotations}: annotation {annotation['id']} of image {key} {fault}.")
        self.files = {key: folder / split / self.api.imgs[key]["file_name"] for key in self.ids}
        if not self.ids or not self.categories:
            raise LocalLearnError(f"{self.annotations} lists no images or no categories.")
        present = {entry.name for entry in (folder / split).iterdir()}
        missing = [path for path in self.files.values() if path.name not in present]
        if missing:
            more = f", with {counted(len(missing) - 1, 'more image')}" if len(missing) > 1 else ""
            raise LocalLearnError(f"{missing[0]} is missing, which {self.annotations.name} lists{more}.")

    def image(self, key: int) -> Tensor:
        """An image, (3, height, width), from 0 to 1.

        Raises:
            LocalLearnError: it cannot be read, or has another size than its masks.
        """
        pillow = optional("PIL.Image", extra="coco")
        listed = self.api.imgs[key]["width"], self.api.imgs[key]["height"]
        try:
            file = regular_file(self.files[key], most=_LARGEST_FILE)
            with pillow.open(file) as opened:
                if opened.size != listed:
                    raise ValueError(f"it has {_text(opened.size)} pixels, but {self.annotations} says {_text(listed)}")
                pixels = np.array(opened.convert("RGB"))
        except (OSError, SyntaxError, ValueError, LocalLearnError, pillow.DecompressionBombError) as error:
            raise LocalLearnError(f"{self.files[key]} cannot be read: {reason_of(error)}.") from error
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255

    def objects(self, key: int) -> list[dict[str, Any]]:
        """Annotations of an image to train on: single objects (no crowds) of at least one pixel."""
        annotations = self.api.imgToAnns[key]
        return [a for a in annotations if not a.get("iscrowd") and min(a["bbox"][2:]) >= 1 and a.get("segmentation")]

    def target(self, key: int, size: tuple[int, int]) -> dict[str, Tensor]:
        """Boxes (n, 4) as x1, y1, x2, y2, labels (n,) and masks (n, height, width) of an image."""
        objects = self.objects(key)
        height, width = size
        corners = torch.tensor([a["bbox"] for a in objects], dtype=torch.float32).reshape(-1, 4)
        boxes = torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:]], dim=1)
        boxes[:, 0::2].clamp_(0, width)
        boxes[:, 1::2].clamp_(0, height)
        masks = np.stack([self.api.annToMask(a) for a in objects]) if objects else np.zeros((0, *size), np.uint8)
        labels = torch.tensor([self.categories.index(a["category_id"]) + 1 for a in objects], dtype=torch.int64)
        target = {"boxes": boxes, "labels": labels, "masks": torch.from_numpy(masks)}
        whole = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return {name: part[whole] for name, part in target.items()}


def refuse_other_categories(train: Coco, test: Coco) -> None:
    """Refuse splits of different categories."""
    if (train.categories, train.names) != (test.categories, test.names):
        raise LocalLearnError(f"{test.annotations} has other categories than {train.annotations.name}.")


def _index(content: dict[str, Any]) -> Any:
    """A `COCO` of pycocotools of an annotation file's content."""
    api = optional("pycocotools.coco", extra="coco").COCO()
    api.dataset = {"info": {}, **content}
    with contextlib.redirect_stdout(io.StringIO()):
        api.createIndex()
    return api


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
