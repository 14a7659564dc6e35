"""Supervised local learning: train deep networks in gradient-isolated local modules.

net = locallearn.localize(model, locallearn.AugLocal(depth=4), modules="all", input_shape=(3, 32, 32))
losses = net.backward(images, labels)
"""

from locallearn import models as models, parallel as parallel
from locallearn._chain.chain import Chain as Chain, TracedChain as TracedChain
from locallearn._chain.partition import Partition as Partition
from locallearn._engine.local_net import LocalNet as LocalNet
from locallearn._localize import localize as localize
from locallearn._nn.layer_like import new_layer_like as new_layer_like
from locallearn._objectives.auxiliary import (
    Auxiliary as Auxiliary,
    Head as Head,
    Loss as Loss,
    Outputs as Outputs,
    WeightedSum as WeightedSum,
    WithFront as WithFront,
)
from locallearn._objectives.objective import Level as Level, Objective as Objective, Site as Site, Span as Span
from locallearn._utils.errors import (
    LocalLearnError as LocalLearnError,
    LocalLearnWarning as LocalLearnWarning,
    NonFiniteLossError as NonFiniteLossError,
    OutOfMemoryError as OutOfMemoryError,
    UnpredictableError as UnpredictableError,
)
from locallearn.rules import (
    BP as BP,
    DGL as DGL,
    HPFF as HPFF,
    LAM as LAM,
    MAN as MAN,
    MANPP as MANPP,
    MLAAN as MLAAN,
    MLM as MLM,
    PFF as PFF,
    AugLocal as AugLocal,
    ByStage as ByStage,
    Checkpoint as Checkpoint,
    ConvolutionalAugLocal as ConvolutionalAugLocal,
    HiLo as HiLo,
    HPFFImageNetInfoPro as HPFFImageNetInfoPro,
    ImageNetAugLocal as ImageNetAugLocal,
    ImageNetInfoPro as ImageNetInfoPro,
    ImageNetPooling as ImageNetPooling,
    InfoPro as InfoPro,
    InfoProLoss as InfoProLoss,
    Pooling as Pooling,
    PredSim as PredSim,
    Reduced as Reduced,
    RepetitiveAugLocal as RepetitiveAugLocal,
    Rule as Rule,
    SequentialAugLocal as SequentialAugLocal,
    Wrapper as Wrapper,
)

__version__ = "0.1.0"
