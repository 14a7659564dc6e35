"""A tiny data set in COCO's layout: squares and triangles on noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

CATEGORIES = [{"id": 3, "name": "square"}, {"id": 8, "name": "triangle"}]
COLOURS = {3: (230, 60, 40), 8: (40, 80, 230)}


def tiny_coco(folder: Path, *, images: int = 6, side: int = 64) -> Path:
    """Images with one or two objects each in both splits; one more in training has none, one has a crowd."""
    draw = np.random.default_rng(0)
    (folder / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (folder / split).mkdir()
        content: dict[str, Any] = {"images": [], "annotations": [], "categories": CATEGORIES}
        for key in range(1, images + 1):
            picture = Image.fromarray(draw.integers(0, 90, (side, side + 8, 3), dtype=np.uint8))
            pencil = ImageDraw.Draw(picture)
            for _ in range(0 if key == images and split == "train2017" else 1 + key % 2):
                category = int(draw.choice([3, 8]))
                left, top = (int(place) for place in draw.integers(2, side // 2 - 4, 2))
                size = int(draw.integers(side // 3, side // 2))
                corners = [(left, top), (left + size, top), (left + size, top + size), (left, top + size)]
                corners = corners if category == 3 else [corners[0], corners[1], corners[3]]
                pencil.polygon(corners, fill=COLOURS[category])
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": key,
                        "category_id": category,
                        "bbox": [left, top, size, size],
                        "area": size * size / (1 if category == 3 else 2),
                        "segmentation": [[value for corner in corners for value in corner]],
                        "iscrowd": 0,
                    }
                )
            name = f"{key:012d}.png"
            picture.save(folder / split / name)
            content["images"].append({"id": key, "file_name": name, "width": side + 8, "height": side})
        if split == "train2017":
            crowd = {"size": [side, side + 8], "counts": [0, side, side * (side + 7)]}
            content["annotations"].append({
                "id": 99, "image_id": 1, "category_id": 3, "bbox": [0, 0, 1, side], "area": side, "iscrowd": 1,
                "segmentation": crowd,
            })  # fmt: skip
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return folder
