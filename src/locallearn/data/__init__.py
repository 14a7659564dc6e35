"""Data sets of labelled images."""

from locallearn.data._augment import Augmentation as Augmentation, Border as Border
from locallearn.data._batches import (
    Batches as Batches,
    LoaderBatches as LoaderBatches,
    TensorBatches as TensorBatches,
)
from locallearn.data._cifar10 import cifar10 as cifar10
from locallearn.data._cifar100 import cifar100 as cifar100
from locallearn.data._class_names import shared_classes as shared_classes
from locallearn.data._data_set import DataSet as DataSet, Feed as Feed
from locallearn.data._digits import digits as digits
from locallearn.data._file_set import FileSet as FileSet, ImageFiles as ImageFiles
from locallearn.data._folder import image_folder as image_folder
from locallearn.data._get import get as get
from locallearn.data._image_set import ImageSet as ImageSet, Split as Split
from locallearn.data._imagenet import imagenet as imagenet
from locallearn.data._shard_files import ShardFiles as ShardFiles
from locallearn.data._stl10 import stl10 as stl10
from locallearn.data._streamed import StreamedBatches as StreamedBatches
from locallearn.data._svhn import svhn as svhn
