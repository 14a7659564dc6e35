"""CIFAR-100: 50,000 training and 10,000 test images of 32 x 32 pixels in a hundred classes (Krizhevsky, 2009)."""

from __future__ import annotations

from pathlib import Path

from locallearn.data.augmentation import Augmentation, Border
from locallearn.data.batches import Split
from locallearn.data.image_set import ImageSet
from locallearn.data.official.cifar_pickles import read_batch
from locallearn.data.published_set import PublishedSet

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
    """CIFAR-100's fine classes from `root/cifar100/cifar-100-python`, where `get("cifar100", root)` puts them.

    Mean and standard deviation are of all training pixels; augmentation is CIFAR-10's.

    Raises:
        LocalLearnError: it is not there or damaged.
    """
    return CIFAR100.load(root)


def _read(folder: Path) -> tuple[Split, Split]:
    return read_batch(folder / "train", "fine_labels"), read_batch(folder / "test", "fine_labels")


CIFAR100 = PublishedSet(
    name="cifar100",
    title="CIFAR-100",
    folder="cifar-100-python",
    files=("train", "test"),
    read=_read,
    urls={"https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
    size=360_000_000,
    train=50_000,
    test=10_000,
    image=(32, 32, 3),
    classes=tuple(_CLASSES.split()),
    mean=(129.3, 124.1, 112.4),
    std=(68.2, 65.4, 70.4),
    augmentation=Augmentation(pad=4, border=Border.REFLECT, flip=True),
    md5={"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
)
