"""ImageNet, ILSVRC 2012: 1,281,167 training and 50,000 validation images in a thousand classes (Deng et al., 2009)."""

from __future__ import annotations

import warnings
from pathlib import Path

from locallearn._utils.errors import LocalLearnError, LocalLearnWarning
from locallearn._utils.quantities import counted
from locallearn.data.files.class_folders import image_folder
from locallearn.data.files.file_set import FileSet

_CLASSES, _TRAIN, _TEST = 1000, 1_281_167, 50_000

HOW_TO_GET = """\
ImageNet is not free to pass on, so each user gets it from its authors:
1. Register at https://www.image-net.org, agree to its terms (research, not commercial), and download two archives of
   ILSVRC 2012: ILSVRC2012_img_train.tar (138 GB) and ILSVRC2012_img_val.tar (6 GB); from Task 1 and 2's development
   kit you need ILSVRC2012_validation_ground_truth.txt, or any published list of the validation images' classes.
2. Unpack the first; it holds a tar archive for each class, nXXXXXXXX.tar. Unpack each into a folder of its name:
     {folder}/train/n01440764/n01440764_10026.JPEG ...        1,000 folders, 1,281,167 images
3. Unpack the second, and move its images into folders of the same names by their classes:
     {folder}/val/n01440764/ILSVRC2012_val_00000293.JPEG ...  1,000 folders, 50,000 images
Tar shards in webdataset's layout (KEY.jpg and KEY.cls) do as well: {folder}/train/*.tar and val/*.tar.
A link to a folder elsewhere is fine. A part with fewer classes is named by its path: train --data /its/folder."""


def imagenet(root: Path) -> FileSet:
    """ImageNet's 1,000 classes at 224 x 224 pixels, in class folders or tar shards, from `root/imagenet`.

    `locallearn data get imagenet` tells how to get it. A warning tells of missing images.

    Raises:
        LocalLearnError: it is not there, or has another layout.
    """
    folder = root / "imagenet"
    if not folder.is_dir():
        raise LocalLearnError(
            f"ImageNet is not at {folder}: locallearn data get imagenet tells how to get it; or give the folder that"
            " holds your data sets with --data-dir."
        )
    images = image_folder(folder)
    if len(images.classes) != _CLASSES:
        raise LocalLearnError(
            f"{folder} has {counted(len(images.classes), 'class')}, but ImageNet has 1,000: name another data set by"
            f" its path, as in --data {folder}."
        )
    if (len(images.train), len(images.test)) != (_TRAIN, _TEST):
        warnings.warn(
            f"{folder} holds {len(images.train):,} of ImageNet's {_TRAIN:,} training and {len(images.test):,} of its"
            f" {_TEST:,} validation images.",
            LocalLearnWarning,
            stacklevel=2,
        )
    return images
