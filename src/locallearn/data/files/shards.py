"""Images in tar shards, in webdataset's layout: `KEY.jpg` and `KEY.cls` one after the other.

Python's tarfile reads them, not the webdataset package. That package reads shards from end to end, which suits storage
without random access. Its shuffling buffer and its splitting over workers make the order depend on the number of
workers, and to resume in mid-epoch it reads all earlier samples again. A table of where each image lies, made once,
takes less code, and the order is known beforehand, from any start, as for images in folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from locallearn._utils.atomic_files import regular_file
from locallearn._utils.errors import LocalLearnError
from locallearn.data.files.file_set import FileSet
from locallearn.data.files.shard_files import index_of


def shards_in(folder: Path) -> list[Path]:
    """All tar archives in a folder and the folders in it."""
    return sorted((*folder.glob("*.tar"), *folder.glob("*/*.tar")))


def shards_of(folder: Path, test_names: Sequence[str]) -> FileSet:
    """A data set of tar shards.

    A shard belongs to the split whose name is that of its folder or a part of its own: train/0000.tar,
    imagenet-train-000000.tar, imagenet1k-validation-00.tar. An image's class is the number in its .cls file. A file
    classes.txt in the folder names the classes, one in a line; without it they are called by their numbers.

    Args:
        folder: the data set.
        test_names: names of the test split; the first that has shards is taken.

    Raises:
        LocalLearnError: shards are missing, damaged, or have another layout.
    """
    name = next((name for name in test_names if _named(folder, name)), None)
    if name is None or not _named(folder, "train"):
        wanted = "train" if name else "val"
        raise LocalLearnError(f"{folder} has no {wanted} shards: say so in their names, as in {wanted}-0000.tar.")
    train, test = (index_of(_named(folder, split), folder / f".{split}.index.npz") for split in ("train", name))
    names = folder / "classes.txt"
    if names.exists():
        classes = tuple(
            line.strip() for line in regular_file(names, most=2**20).read_text().splitlines() if line.strip()
        )
    else:
        classes = tuple(str(label) for label in range(int(train.labels.max()) + 1))
    for files in (train, test):
        if files.labels.min() < 0 or files.labels.max() >= len(classes):
            row = int(np.argmax((files.labels < 0) | (files.labels >= len(classes))))
            raise LocalLearnError(
                f"{files.name(row)} has class {files.labels[row]}, but there are {len(classes)} (0 to"
                f" {len(classes) - 1})."
            )
    return FileSet(train=train, test=test, classes=classes)


def _named(folder: Path, split: str) -> list[Path]:
    """Shards with the word in their own or their folder's name."""

    def words(path: Path) -> list[str]:
        parent = path.parent.name if path.parent != folder else ""
        return "".join(c if c.isalpha() else " " for c in f"{parent} {path.stem}".lower()).split()

    return [path for path in shards_in(folder) if split in words(path)]
