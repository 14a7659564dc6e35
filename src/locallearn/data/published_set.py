"""A published data set: where its files lie on disk or in an archive, and whether they hold the published images."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import TypeVar

import numpy as np

from locallearn._utils.atomic_files import lacks_space, regular_file
from locallearn._utils.errors import LocalLearnError, LocalLearnWarning, describe, reason_of
from locallearn.data.augmentation import Augmentation
from locallearn.data.batches import Split
from locallearn.data.image_set import ImageSet

Parsed = TypeVar("Parsed")


@dataclass(frozen=True, kw_only=True)
class NpmPackage:
    """An npm package with the same images in another form.

    Attributes:
        name: with its version.
        files: the files it holds.
        convert: writes the official files beside these, which lie in a folder.
    """

    name: str
    files: tuple[str, ...]
    convert: Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class PublishedSet:
    """A data set as its authors publish it.

    Attributes:
        name: on the command line, and of its folder in the data folder.
        title: as its authors write it.
        folder: in which the files lie, as the archive names it; "" for none.
        files: their names.
        read: reads the training and the test split from the folder with the files.
        urls: of the archive, or of the files, to the MD5 of each.
        package: an npm package with the same images.
        size: bytes on disk that getting it takes at most.
        train, test: number of images in each split.
        image: height, width and channels.
        classes, mean, std, augmentation: as in `ImageSet`.
        sha256: `fingerprint` of `train_images`, `train_labels`, `test_images` and `test_labels`, where known.
        md5: of each file, where `sha256` is not known.
    """

    name: str
    title: str
    folder: str
    files: tuple[str, ...]
    read: Callable[[Path], tuple[Split, Split]]
    urls: Mapping[str, str]
    package: NpmPackage | None = None
    size: int
    train: int
    test: int
    image: tuple[int, int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    sha256: Mapping[str, str] = field(default_factory=dict)
    md5: Mapping[str, str] = field(default_factory=dict)

    @property
    def largest_file(self) -> int:
        """Bytes that one of its files can have."""
        return max(self.train, self.test) * (prod(self.image) + 100) + 2**20

    def load(self, root: Path) -> ImageSet:
        """Read the data set from the data folder `root`.

        Files are read in place, from `root/NAME`, or from `root` itself as torchvision lays them out there. A warning
        tells of images that are a part of the data set, or cannot be compared with the published ones.

        Raises:
            LocalLearnError: they are not there, damaged, or of another data set.
        """
        folder = self.folder_in(root)
        if folder is None:
            raise LocalLearnError(
                f"{self.title} is not at {root / self.name}: run locallearn data get {self.name}"
                f" --data-dir {quote(str(root))}, or give the folder that holds your data sets with --data-dir."
            )
        try:
            images, doubt = self.checked(folder)
        except LocalLearnError as error:
            raise LocalLearnError(
                f"{folder} does not hold {self.title}: {reason_of(error)}; run locallearn data get {self.name} --force"
                f" --data-dir {quote(str(root))}"
            ) from error
        if doubt:
            warnings.warn(f"{folder} holds {doubt}: figures are not comparable.", LocalLearnWarning, stacklevel=3)
        return images

    def folder_in(self, base: Path) -> Path | None:
        """The folder, in or under `base`, that has any of the files."""
        places = (base / self.name / self.folder, base / self.name, base / self.folder, base)
        return next((place for place in places if any(is_no_folder(place / name) for name in self.files)), None)

    def checked(self, folder: Path) -> tuple[ImageSet, str]:
        """Read and verify it.

        Args:
            folder: where the files lie.

        Returns:
            The data set, and what the folder holds instead where these are not, or may not be, the published images;
            "" where they are.

        Raises:
            LocalLearnError: a file is missing, too large, garbled or damaged, or of another data set; the end of a
                sentence that names the folder.
        """
        for name in self.files:
            regular_file(folder / name, most=self.largest_file)
        train, test = self.read(folder)
        for name, split, count in (("training", train, self.train), ("test", test, self.test)):
            shape, fitting = split.images.shape, (len(split), *self.image)
            if shape != fitting or len(split) > count:
                raise LocalLearnError(
                    f"its {name} split has {len(split):,} labels and images of shape {shape}, not at most {count:,} of"
                    f" shape {self.image}"
                )
        images = ImageSet(
            train=train,
            test=test,
            classes=self.classes,
            mean=self.mean,
            std=self.std,
            augmentation=self.augmentation,
        )
        return images, self._doubt(folder, train, test)

    def _doubt(self, folder: Path, train: Split, test: Split) -> str:
        if (len(train), len(test)) != (self.train, self.test):
            return (
                f"{len(train):,} of {self.title}'s {self.train:,} training images and {len(test):,} of its"
                f" {self.test:,} test images"
            )
        arrays: dict[str, np.ndarray] = {"train_images": train.images, "train_labels": train.labels}
        arrays |= {"test_images": test.images, "test_labels": test.labels}
        if wrong := [name for name, digest in self.sha256.items() if fingerprint(arrays[name]) != digest]:
            raise LocalLearnError(f"SHA-256 differs from the published images' for {', '.join(wrong)}")
        if wrong := [name for name, digest in self.md5.items() if _md5(folder / name) != digest]:
            return (
                f"as many images as {self.title}, but not verified, for {wrong[0]} is not the published file (it is"
                " damaged, or others wrote it)"
            )
        return ""


def unpack(known: PublishedSet, source: Path, folder: Path) -> None:
    """Put the official files into a folder; a file that the source lacks is left out.

    Args:
        known: the data set.
        source: a tar archive, a folder, or one of the files with its neighbours.
        folder: where the files go.

    Raises:
        LocalLearnError: there is no such source, an archive is cut off, or a file is none or larger than it can be;
            the end of a sentence that names the source.
    """
    package = known.package.files if known.package else ()
    wanted = {*known.files, *package}
    if source.name in wanted and is_no_folder(source):
        source = source.parent
    if source.is_dir():
        source = known.folder_in(source) or (source / "package" if (source / "package").is_dir() else source)
        for name in wanted:
            if is_no_folder(source / name):
                shutil.copyfile(regular_file(source / name, most=known.largest_file), folder / name)
    else:
        _extract(known, regular_file(source, most=2**50), folder, wanted)
    if known.package and any((folder / name).exists() for name in package):
        known.package.convert(folder)
        for name in package:
            (folder / name).unlink()


def _extract(known: PublishedSet, source: Path, folder: Path, wanted: set[str]) -> None:
    """Members are extracted by their bare names, so that none can lie outside of the folder."""
    left, total = set(known.files), 0
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                total += member.size
                if member.size < 0 or total > 2 * known.size or (name in wanted and member.size > known.largest_file):
                    raise tarfile.TarError(f"{name} has {member.size:,} bytes, more than fit")
                if name in wanted and not member.isdir():
                    _extract_file(archive, member, folder / name)
                    left.discard(name)
                if not left:
                    return  # what else an archive holds, such as unlabelled images, is not unpacked
    except Exception as error:  # garbled archives fail in many ways
        if lacks_space(error):
            raise
        raise LocalLearnError(f"it is cut off or no such tar archive ({describe(error)})") from error


def _extract_file(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    if not member.isfile():
        raise tarfile.TarError(f"{target.name} is a link or a device")
    archive.extract(member.replace(name=target.name, deep=False), target.parent, filter="data")


def parse_file(path: Path, parse: Callable[[Path], Parsed]) -> Parsed:
    """What a file says.

    Raises:
        LocalLearnError: it is garbled; the sentence names the file without its folder.
    """
    try:
        return parse(path)
    except LocalLearnError:
        raise
    except Exception as error:  # garbled bytes fail in pickle, SciPy, NumPy, JSON and Pillow in many ways
        raise LocalLearnError(f"{path.name} is garbled ({describe(error)})") from error


def is_no_folder(path: Path) -> bool:
    """Whether anything but a folder is there."""
    return os.path.exists(path) and not os.path.isdir(path)  # False where a folder may not be read


def fingerprint(array: np.ndarray) -> str:
    """SHA-256 (hexadecimal) of the element type, the shape and the elements in C order."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
