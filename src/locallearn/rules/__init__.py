"""Training rules, one file per paper, and wrappers of rules."""

from locallearn.rules.auglocal import AugLocal as AugLocal, ImageNetAugLocal as ImageNetAugLocal
from locallearn.rules.auglocal_ablations import (
    ByStage as ByStage,
    ConvolutionalAugLocal as ConvolutionalAugLocal,
    RepetitiveAugLocal as RepetitiveAugLocal,
    SequentialAugLocal as SequentialAugLocal,
    table10 as table10,
)
from locallearn.rules.base import Rule as Rule
from locallearn.rules.baselines import (
    BP as BP,
    Checkpoint as Checkpoint,
    ImageNetPooling as ImageNetPooling,
    Pooling as Pooling,
)
from locallearn.rules.dgl import DGL as DGL
from locallearn.rules.hpff import HPFF as HPFF, PFF as PFF, HiLo as HiLo
from locallearn.rules.infopro import (
    HPFFImageNetInfoPro as HPFFImageNetInfoPro,
    ImageNetInfoPro as ImageNetInfoPro,
    InfoPro as InfoPro,
)
from locallearn.rules.infopro_loss import InfoProLoss as InfoProLoss
from locallearn.rules.man import MAN as MAN, MANPP as MANPP
from locallearn.rules.mlaan import LAM as LAM, MLAAN as MLAAN, MLM as MLM
from locallearn.rules.predsim import PredSim as PredSim
from locallearn.rules.reduced import Reduced as Reduced
from locallearn.rules.wrapper import Wrapper as Wrapper
