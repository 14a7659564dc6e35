"""CIFAR-100: 50,000 training and 10,000 test images of 32 x 32 pixels in a hundred classes (Krizhevsky, 2009)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from locallearn.data.archives import all_parts
from locallearn.data.augmentation import Augmentation, Border
from locallearn.data.image_set import ImageSet, Split
from locallearn.data.pickles import cifar_batch
from locallearn.data.store import StoredSet, load

CIFAR100 = StoredSet(
    name="cifar100",
    title="CIFAR-100",
    size=184_801_000,
    image=(32, 32, 3),
    classes=100,
    train=50_000,
    test=10_000,
    md5={
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
)

# The fine classes in the order of their labels, as the official file `meta` lists them.
_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


def cifar100(root: Path) -> ImageSet:
    """CIFAR-100's fine classes from `root/cifar100`, where `get("cifar100", root)` puts them.

    Mean and standard deviation are of all training pixels; augmentation is CIFAR-10's.

    Raises:
        LocalLearnError: it is not there or damaged.
    """
    train, test = load(CIFAR100, root)
    return ImageSet(
        train=train,
        test=test,
        classes=tuple(_CLASSES.split()),
        mean=(129.3, 124.1, 112.4),
        std=(68.2, 65.4, 70.4),
        augmentation=Augmentation(pad=4, border=Border.REFLECT, flip=True),
    )


def read_cifar100(source: Path, *, called: str, md5: Mapping[str, str]) -> tuple[Split, Split]:
    """Read the official Python version: a pickle for each split.

    Args:
        source: cifar-100-python.tar.gz or the folder extracted from it.
        called: what errors call it.
        md5: that files must have; `CIFAR100.md5` for the published ones, none for others of the same layout.

    Raises:
        LocalLearnError: it cannot be read, lacks a file, or one is garbled.
    """
    folders = ("", "cifar-100-python")
    parsers = {"train": _split, "test": _split}
    parts = all_parts(source, parsers, title=CIFAR100.title, folders=folders, called=called, md5=md5)
    return parts["train"], parts["test"]


def _split(content: bytes) -> Split:
    images, labels = cifar_batch(content, b"fine_labels")
    return Split(images=images, labels=labels)
