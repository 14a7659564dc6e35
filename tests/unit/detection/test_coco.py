"""Annotation files that are incomplete."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_coco import tiny_coco

from locallearn import LocalLearnError
from locallearn.detection.coco import Coco


@pytest.mark.parametrize(
    ("split", "of", "changes", "told"),
    [
        ("train", "images", {"file_name": None}, "image 1 has no file_name"),
        ("train", "images", {"height": "64"}, "image 1 has no height and width"),
        ("train", "images", {"height": 10**9, "width": 10**9}, "image 1 has no height and width from 1 to 32,768"),
        ("train", "images", {"width": -64}, "image 1 has no height and width"),
        ("train", "images", {"file_name": "../../else.png"}, "image 1 has no file_name without a folder"),
        ("train", "images", {"file_name": ...}, r"images\[0\] \(id 1\) has no file_name"),
        ("train", "images", {"id": ...}, r"images\[0\] has no whole number as id"),
        ("train", "images", {"id": None}, r"images\[0\] has no whole number as id"),
        ("train", "images", {"id": 2}, r"images\[1\] has the id 2 of an earlier one"),
        ("train", "annotations", {"image_id": ...}, r"annotations\[0\] \(id 1\) has no image_id"),
        ("train", "annotations", {"category_id": ...}, r"annotations\[0\] \(id 1\) has no category_id"),
        ("train", "annotations", {"bbox": [0, 0, -5, 5]}, "annotation 1 of image 1 has no bbox of four numbers"),
        ("train", "annotations", {"segmentation": [[1e9, 0, 5, 5, 0, 5]]}, "has a segmentation that is neither"),
        ("train", "annotations", {"segmentation": [[0, 0, 5, 5, 0]]}, "has a segmentation that is neither"),
        ("train", "annotations", {"segmentation": {"size": [64, 72], "counts": [4608, 1]}}, "nor run lengths"),
        ("train", "annotations", {"segmentation": {"size": [64, 72], "counts": [4609, -1]}}, "nor run lengths"),
        ("train", "annotations", {"segmentation": {"size": [64, 72], "counts": "P"}}, "nor run lengths"),
        ("train", "annotations", {"segmentation": {"size": [64, 72], "counts": "\x00\xff"}}, "nor run lengths"),
        ("train", "annotations", {"iscrowd": 2}, "has iscrowd 2, which is neither 0 nor 1"),
        ("val", "annotations", {"area": "large"}, "has the area 'large', which is no number"),
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


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools under NumPy 2
def test_compressed_run_lengths_are_read_as_pycocotools_writes_them(tmp_path):
    mask_api = pytest.importorskip("pycocotools.mask")
    folder = tiny_coco(tmp_path / "set", images=2)
    path = folder / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    mask = np.asfortranarray(np.random.default_rng(0).random((64, 72)) < 0.1, np.uint8)
    mask[10:40, 20:50] = 1
    runs = mask_api.encode(mask)
    content["annotations"][0]["segmentation"] = {"size": [64, 72], "counts": runs["counts"].decode()}
    path.write_text(json.dumps(content))
    masks = Coco(folder, "train2017").target(1, (64, 72))["masks"]
    assert np.array_equal(masks[0], mask)


def test_an_image_of_another_size_than_its_annotations_say_is_refused(tmp_path):
    folder = tiny_coco(tmp_path / "set", images=2)
    path = folder / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["images"][0]["height"] = 60
    content["annotations"].pop()  # a crowd in run lengths of the right size
    path.write_text(json.dumps(content))
    with pytest.raises(LocalLearnError, match=r"cannot be read: it has 72 x 64 pixels, but \S+ says 72 x 60"):
        Coco(folder, "train2017").image(1)
