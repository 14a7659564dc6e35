"""`image_folder`: a data set from class folders or tar shards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from locallearn._utils.errors import LocalLearnError, did_you_mean
from locallearn.data.files.file_set import FileSet, ImageFiles
from locallearn.data.files.shards import shards_in, shards_of

_TEST_NAMES = ("val", "valid", "validation", "test")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
_LAYOUT = "lay images out as train/CLASS/ANY.jpg and val/CLASS/ANY.jpg, or tar shards as train/*.tar and val/*.tar"


def image_folder(folder: Path) -> FileSet:
    """Images in `train/CLASS/...` and `val/CLASS/...`, or webdataset's tar shards in the folder.

    The test split is the first of val, valid, validation and test that is there. Classes are the folders in `train`,
    sorted by name; images in deeper folders belong to the class. A shard belongs to a split by its folder's name, or
    by a word in its own.

    Args:
        folder: the data set.

    Raises:
        LocalLearnError: the folder has another layout.
    """
    folder = folder.expanduser()
    if folder.is_file():
        raise LocalLearnError(f"{folder} is a file, not a folder: {_LAYOUT}, and give the folder around train and val.")
    if not folder.is_dir():
        raise LocalLearnError(f"there is no folder {folder} for a data set.")
    if not _folders(folder / "train") and shards_in(folder):  # beside class folders, archives are left over
        return shards_of(folder, _TEST_NAMES)
    test = next((folder / name for name in _TEST_NAMES if (folder / name).is_dir()), None)
    if not (folder / "train").is_dir() or test is None:
        raise LocalLearnError(f"{folder} has no {'train' if test else 'val or test'} folder: {_LAYOUT}.")
    classes = tuple(_class_folders(folder / "train"))
    return FileSet(train=_split(folder / "train", classes), test=_split(test, classes), classes=classes)


def _split(folder: Path, classes: tuple[str, ...]) -> ImageFiles:
    paths: list[str] = []
    labels: list[int] = []
    for name in _class_folders(folder):
        if name not in classes:
            raise LocalLearnError(f"{folder / name} is no class of the training images; {did_you_mean(name, classes)}")
        before = len(paths)
        for at, folders, files in os.walk(folder / name, onerror=_raise, followlinks=True):
            folders.sort()
            inside = os.path.relpath(at, folder)
            images = sorted(f for f in files if f.lower().endswith(_SUFFIXES) and not f.startswith("."))
            paths += [os.path.join(inside, image) for image in images]
        labels += [classes.index(name)] * (len(paths) - before)
        if len(paths) == before:
            raise LocalLearnError(f"{folder / name} holds no images ({', '.join(_SUFFIXES)}).")
    return ImageFiles.of(folder, paths, labels)


def _class_folders(folder: Path) -> list[str]:
    if folders := _folders(folder):
        return folders
    raise LocalLearnError(f"{folder} has no class folders: {_LAYOUT}.")


def _folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; none if it is not there."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _raise(error: OSError) -> NoReturn:
    raise error
