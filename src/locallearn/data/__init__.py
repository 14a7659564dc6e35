"""Images as batches, in one order that is known beforehand; published data sets, and folders of your own images.

Imports `_chain`, `_torch` and `_utils`.
"""

from locallearn.data.augmentation import Augmentation as Augmentation, Border as Border
from locallearn.data.batches import (
    Batches as Batches,
    Feed as Feed,
    LoaderBatches as LoaderBatches,
    OrderedBatches as OrderedBatches,
    Split as Split,
    TensorBatches as TensorBatches,
)
from locallearn.data.class_names import shared_classes as shared_classes
from locallearn.data.data_set import DataSet as DataSet
from locallearn.data.download import get as get
from locallearn.data.files.class_folders import image_folder as image_folder
from locallearn.data.files.file_set import FileSet as FileSet, ImageFiles as ImageFiles
from locallearn.data.files.shards import ShardFiles as ShardFiles
from locallearn.data.files.streamed_batches import StreamedBatches as StreamedBatches
from locallearn.data.image_set import ImageSet as ImageSet
from locallearn.data.mixing import MixedBatches as MixedBatches
from locallearn.data.official.cifar10 import cifar10 as cifar10
from locallearn.data.official.cifar100 import cifar100 as cifar100
from locallearn.data.official.digits import digits as digits
from locallearn.data.official.imagenet import imagenet as imagenet
from locallearn.data.official.stl10 import stl10 as stl10
from locallearn.data.official.svhn import svhn as svhn
from locallearn.data.validation import hold_out as hold_out
