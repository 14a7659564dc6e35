"""Small JPEGs in class folders and in tar shards, and files that are no images."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cow")
_RANDOM = np.random.default_rng(3)


def jpeg(label: int, *, width: int = 40, height: int = 30, **options) -> bytes:
    """A picture whose class is the direction of its stripes."""
    rows, columns = np.mgrid[:height, :width]
    stripes = np.stack([rows % 8 < 4, columns % 8 < 4, (rows + columns) % 8 < 4])[label] * 160
    pixels = stripes[..., None] + _RANDOM.integers(0, 90, (height, width, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, **({"format": "JPEG", "quality": 90} | options))
    return buffer.getvalue()


BAD = {
    "empty.jpg": b"",
    "page.jpg": b"<html>no such page</html>",
    "half.jpg": jpeg(0)[:400],
}


def tree(folder: Path, *, train: int = 8, test: int = 4, bad: tuple[str, ...] = (), test_name: str = "val") -> Path:
    """`train` and `test` images of each class, and bad ones in the first."""
    for split, count in (("train", train), (test_name, test)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                size = {"width": 36 + number, "height": 44 - number}
                (folder / split / name / f"{number:03d}.jpg").write_bytes(jpeg(label, **size))
    for name in bad:
        (folder / "train" / CLASSES[0] / name).write_bytes(BAD[name])
    return folder


def shard(path: Path, samples: list[tuple[str, bytes]]) -> Path:
    """A tar archive of these files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in samples:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def shards_from(source: Path, folder: Path, *, per_shard: int = 10) -> Path:
    """The same images as a tree, in the same order, in webdataset's layout."""
    for split in ("train", "val"):
        samples: list[tuple[str, bytes]] = []
        for label, name in enumerate(CLASSES):
            for path in sorted((source / split / name).iterdir()):
                samples += [(f"{name}/{path.stem}.jpg", path.read_bytes()), (f"{name}/{path.stem}.cls", b"%d" % label)]
        for number, start in enumerate(range(0, len(samples), 2 * per_shard)):
            shard(folder / f"tiny-{split}-{number:06d}.tar", samples[start : start + 2 * per_shard])
    return folder
