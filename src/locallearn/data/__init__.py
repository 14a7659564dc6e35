"""Data sets of labelled images."""

from locallearn.data._batches import (
    Batches as Batches,
    LoaderBatches as LoaderBatches,
    TensorBatches as TensorBatches,
)
from locallearn.data._cifar10 import cifar10 as cifar10
from locallearn.data._digits import digits as digits
from locallearn.data._get import get as get
from locallearn.data._image_set import (
    Augmentation as Augmentation,
    Border as Border,
    ImageSet as ImageSet,
    Split as Split,
)
