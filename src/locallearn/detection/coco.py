"""A split of COCO: its images, boxes and masks, with checks of its annotation file."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from locallearn._utils.atomic_files import read_json
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.optional_imports import optional

_LAYOUT = (
    "lay COCO out as annotations/instances_train2017.json, annotations/instances_val2017.json, train2017/*.jpg and"
    " val2017/*.jpg, as its own archives do"
)


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
            raise LocalLearnError(f"there is no folder {folder} for COCO.")
        for path in (self.annotations, folder / split):
            if not path.exists():
                raise LocalLearnError(f"{folder} has no {path.relative_to(folder)}: {_LAYOUT}.")
        self.api = _read(self.annotations)
        self.categories = sorted(self.api.cats)
        self.names = [self.api.cats[key]["name"] for key in self.categories]
        self.ids = sorted(self.api.imgs)[:images]
        for key in self.ids:
            if fault := _fault_of_image(self.api.imgs[key]):
                raise LocalLearnError(f"{self.annotations}: image {key} {fault}.")
            for annotation in self.api.imgToAnns[key]:
                if fault := _fault(annotation, self.api, is_evaluated=split == _EVALUATED):
                    raise LocalLearnError(f"{self.annotations}: annotation {annotation['id']} of image {key} {fault}.")
        self.files = {key: folder / split / self.api.imgs[key]["file_name"] for key in self.ids}
        if not self.ids or not self.categories:
            raise LocalLearnError(f"{self.annotations} lists no images or no categories.")
        present = {entry.name for entry in (folder / split).iterdir()}
        missing = [path for path in self.files.values() if path.name not in present]
        if missing:
            raise LocalLearnError(
                f"{missing[0]} is missing, and {len(missing) - 1:,} more images that {self.annotations.name} lists."
                if len(missing) > 1
                else f"{missing[0]} is missing, which {self.annotations.name} lists."
            )

    def image(self, key: int) -> Tensor:
        """An image, (3, height, width), from 0 to 1.

        Raises:
            LocalLearnError: it cannot be read.
        """
        pillow = optional("PIL.Image", extra="coco")
        try:
            with pillow.open(self.files[key]) as opened:
                pixels = np.array(opened.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise LocalLearnError(f"{self.files[key]} cannot be read: {error}.") from error
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


def _read(path: Path) -> Any:
    api = optional("pycocotools.coco", extra="coco").COCO()
    content = read_json(path, most=2**33)
    try:
        for name, needed in _LISTS.items():
            for index, entry in enumerate(content[name]):
                if missing := [key for key in needed if key not in entry]:
                    entry_name = f"{name}[{index}] (id {entry.get('id', 'missing')})"
                    raise LocalLearnError(f"{path}: {entry_name} has no {missing[0]}.")
        api.dataset = {"info": {}, **content, **{name: content[name] for name in _LISTS}}
        with contextlib.redirect_stdout(io.StringIO()):
            api.createIndex()
    except (KeyError, TypeError, AttributeError) as error:
        raise LocalLearnError(
            f"{path} is no list of COCO's instances: it must be JSON with images, annotations and categories."
        ) from error
    return api


def _fault_of_image(image: Mapping[str, Any]) -> str | None:
    """What an image's entry lacks, if anything."""
    if not isinstance(image.get("file_name"), str):
        return "has no file_name"
    return None if _are_numbers([image.get("height"), image.get("width")], 2) else "has no height and width"


def _fault(annotation: Mapping[str, Any], api: Any, *, is_evaluated: bool) -> str | None:
    """What is wrong with an annotation, if anything; COCO's evaluation needs more entries than training."""
    shape = annotation.get("segmentation")
    if annotation["category_id"] not in api.cats:
        return f"has category_id {annotation['category_id']}, which is not in the list of categories"
    if not _are_numbers(annotation.get("bbox"), 4):
        return "has no bbox of four numbers"
    if shape and not _is_shape(shape, api.imgs[annotation["image_id"]]):
        return "has a segmentation that is neither a list of polygons nor run lengths of the image's size"
    for name in ("area", "iscrowd", "segmentation"):
        if is_evaluated and (annotation.get(name) is None or annotation[name] == []):
            return f"has no {name}, which the evaluation needs"
    return None


def _is_shape(shape: Any, image: Mapping[str, Any]) -> bool:
    """Whether it is one of COCO's two forms: polygons, or run lengths (compressed or not)."""
    if isinstance(shape, dict):
        return shape.get("size") == [image["height"], image["width"]] and isinstance(shape.get("counts"), str | list)
    return isinstance(shape, list) and all(_are_numbers(polygon) for polygon in shape)


def _are_numbers(values: Any, count: int | None = None) -> bool:
    """Whether it is a list of finite numbers: `count` of them, or enough for a polygon."""
    if not isinstance(values, list) or (len(values) != count if count else len(values) < _POLYGON):
        return False
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


_EVALUATED = "val2017"
_POLYGON = 6  # coordinates of the smallest polygon
_LISTS = {
    "images": ("id",),
    "annotations": ("id", "image_id", "category_id"),
    "categories": ("id", "name"),
}
"""Lists that COCO's JSON must hold, and the keys of their entries."""
