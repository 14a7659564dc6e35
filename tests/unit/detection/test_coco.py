"""Annotation files that are incomplete."""

from __future__ import annotations

import json

import pytest
from tiny_coco import tiny_coco

from locallearn import LocalLearnError
from locallearn.detection.coco import Coco


@pytest.mark.parametrize(
    ("split", "of", "changes", "told"),
    [
        ("train", "images", {"file_name": None}, "image 1 has no file_name"),
        ("train", "images", {"height": "64"}, "image 1 has no height and width"),
        ("train", "images", {"id": ...}, r"images\[0\] \(id missing\) has no id"),
        ("train", "annotations", {"category_id": ...}, r"annotations\[0\] \(id 1\) has no category_id"),
        ("train", "annotations", {"category_id": 4}, "annotation 1 of image 1 has category_id 4, which is not in the"),
        ("val", "annotations", {"bbox": ...}, "annotation 1 of image 1 has no bbox of four numbers"),
        ("train", "annotations", {"bbox": [1, 2, 3]}, "annotation 1 of image 1 has no bbox of four numbers"),
        ("train", "annotations", {"segmentation": "polygon"}, "annotation 1 of image 1 has a segmentation that is nei"),
        ("train", "annotations", {"segmentation": [[1, 2, 3, "a", 5, 6]]}, "has a segmentation that is neither"),
        ("train", "annotations", {"segmentation": {"size": [2, 2], "counts": [4]}}, "nor run lengths of the image's"),
        ("val", "annotations", {"segmentation": []}, "has no segmentation, which the evaluation needs"),
        ("val", "annotations", {"area": ...}, "has no area, which the evaluation needs"),
        ("val", "annotations", {"iscrowd": ...}, "has no iscrowd, which the evaluation needs"),
    ],
)
def test_incomplete_annotations_are_told_with_their_file(tmp_path, split, of, changes, told):
    folder = tiny_coco(tmp_path / "set", images=2)
    path = folder / "annotations" / f"instances_{split}2017.json"
    content = json.loads(path.read_text())
    first = content[of][0] | changes
    content[of][0] = {name: value for name, value in first.items() if value is not ...}
    path.write_text(json.dumps(content))
    with pytest.raises(LocalLearnError, match=rf"instances_{split}2017\.json: .*{told}"):
        Coco(folder, f"{split}2017")


def test_annotations_of_images_that_are_not_used_are_not_looked_at(tmp_path):
    folder = tiny_coco(tmp_path / "set", images=2)
    path = folder / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["images"][1]["file_name"] = None
    content["annotations"][0]["segmentation"] = []  # is left out of training
    path.write_text(json.dumps(content))
    assert len(Coco(folder, "train2017", images=1).objects(1)) == 1
