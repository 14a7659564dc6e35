"""COCO's annotation files, checked before pycocotools reads them: its C code crashes on masks that do not fit."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from locallearn._utils.atomic_files import read_json
from locallearn._utils.errors import LocalLearnError

_LARGEST_SIDE = 2**15  # pixels
_POLYGON = 6  # coordinates of the smallest polygon
_LISTS = {"images": ("file_name",), "annotations": ("image_id", "category_id"), "categories": ("name",)}
"""Lists that the file must hold, and keys of their entries beside `id`."""


def read_annotations(path: Path) -> dict[str, Any]:
    """The content of an annotation file: its lists are there, and their entries have unique whole numbers as `id`.

    Raises:
        LocalLearnError: it has another layout.
    """
    content = read_json(path, most=2**33)
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in _LISTS):
        raise LocalLearnError(
            f"{path} is no list of COCO's instances: it must be JSON with images, annotations and categories."
        )
    for name, needed in _LISTS.items():
        ids = set()
        for index, entry in enumerate(content[name]):
            what = f"{path}: {name}[{index}]"
            if not isinstance(entry, dict) or not _is_whole(entry.get("id")):
                raise LocalLearnError(f"{what} has no whole number as id.")
            if entry["id"] in ids:
                raise LocalLearnError(f"{what} has the id {entry['id']} of an earlier one.")
            if missing := [key for key in needed if key not in entry]:
                raise LocalLearnError(f"{what} (id {entry['id']}) has no {missing[0]}.")
            ids.add(entry["id"])
    return content


def fault_of_image(image: Mapping[str, Any]) -> str | None:
    """What is wrong with an image's entry, if anything."""
    name = image["file_name"]
    if not isinstance(name, str) or Path(name).name != name:
        return "has no file_name without a folder"
    size = [image.get("height"), image.get("width")]
    if not all(_is_whole(side) and 1 <= side <= _LARGEST_SIDE for side in size):
        return f"has no height and width from 1 to {_LARGEST_SIDE:,}"
    return None


def fault_of_annotation(
    annotation: Mapping[str, Any], image: Mapping[str, Any], categories: Container[Any], *, is_evaluated: bool
) -> str | None:
    """What is wrong with an annotation, if anything.

    Args:
        annotation: its entry.
        image: the entry of its image, which has no fault.
        categories: ids of the categories.
        is_evaluated: COCO's evaluation needs more keys than training.
    """
    shape, box, category = annotation.get("segmentation"), annotation.get("bbox"), annotation.get("category_id")
    if not _is_whole(category) or category not in categories:
        return f"has category_id {category}, which is not in the list of categories"
    if not _are_numbers(box, 4) or min(box[2:]) < 0 or not _are_near(box, image):
        return "has no bbox of four numbers x, y, width, height in the image"
    if shape and not _is_shape(shape, image):
        return "has a segmentation that is neither a list of polygons nor run lengths of the image's size"
    if annotation.get("iscrowd", 0) not in (0, 1):
        return f"has iscrowd {annotation['iscrowd']!r}, which is neither 0 nor 1"
    for name in ("area", "iscrowd", "segmentation"):
        if is_evaluated and (annotation.get(name) is None or annotation[name] == []):
            return f"has no {name}, which the evaluation needs"
    if not _are_numbers([annotation.get("area", 0)], 1):
        return f"has the area {annotation['area']!r}, which is no number"
    return None


def _is_shape(shape: Any, image: Mapping[str, Any]) -> bool:
    """Whether it is one of COCO's two forms: polygons, or run lengths (compressed or not)."""
    if not isinstance(shape, dict):
        return isinstance(shape, list) and all(_is_polygon(polygon, image) for polygon in shape)
    size, runs = [image["height"], image["width"]], shape.get("counts")
    if isinstance(runs, str):
        runs = _run_lengths(runs)
    return (
        shape.get("size") == size
        and isinstance(runs, list)
        and all(_is_whole(run) and run >= 0 for run in runs)
        and sum(runs) == math.prod(size)
    )


def _is_polygon(polygon: Any, image: Mapping[str, Any]) -> bool:
    return _are_numbers(polygon) and len(polygon) >= _POLYGON and len(polygon) % 2 == 0 and _are_near(polygon, image)


def _are_near(coordinates: list[float], image: Mapping[str, Any]) -> bool:
    """Whether x, y, x, y, ... are in the image, or off by its own size at most."""
    sides = image["width"], image["height"]
    return all(-sides[i % 2] <= value <= 2 * sides[i % 2] for i, value in enumerate(coordinates))


def _run_lengths(text: str) -> list[int] | None:
    """COCO's compressed run lengths, None where the last one is cut off.

    A character, less 48, has five bits of a number, the lowest first; its sixth bit says that more follow. The highest
    bit of a number is its sign. From the fourth run on, a run is stored as its difference to the last but one.
    """
    runs: list[int] = []
    at = 0
    while at < len(text):
        run, bits, more = 0, 0, True
        while more:
            if at == len(text):
                return None
            character = ord(text[at]) - 48
            run |= (character & 0x1F) << bits
            at, bits, more = at + 1, bits + 5, bool(character & 0x20)
            if not more and character & 0x10:
                run -= 1 << bits
        runs.append(run + (runs[-2] if len(runs) > 2 else 0))
    return runs


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_numbers(values: Any, count: int | None = None) -> TypeGuard[list[float]]:
    """Whether it is a list of finite numbers, `count` of them if given."""
    return (
        isinstance(values, list)
        and len(values) == (count or len(values))
        and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    )
