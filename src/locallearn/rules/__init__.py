"""Training rules, one file per paper, and wrappers of rules."""

from locallearn.rules._alternatives import (
    ByStage as ByStage,
    ConvolutionalAugLocal as ConvolutionalAugLocal,
    RepetitiveAugLocal as RepetitiveAugLocal,
    SequentialAugLocal as SequentialAugLocal,
    table10 as table10,
)
from locallearn.rules._auglocal import AugLocal as AugLocal
from locallearn.rules._auglocal_imagenet import ImageNetAugLocal as ImageNetAugLocal
from locallearn.rules._bp import BP as BP, Checkpoint as Checkpoint
from locallearn.rules._dgl import DGL as DGL
from locallearn.rules._hilo import HiLo as HiLo
from locallearn.rules._hpff import HPFF as HPFF
from locallearn.rules._infopro import ImageNetInfoPro as ImageNetInfoPro, InfoPro as InfoPro, InfoProLoss as InfoProLoss
from locallearn.rules._lam import LAM as LAM
from locallearn.rules._man import MAN as MAN
from locallearn.rules._mlaan import MLAAN as MLAAN, MLM as MLM
from locallearn.rules._pff import PFF as PFF
from locallearn.rules._pooling import Pooling as Pooling
from locallearn.rules._predsim import PredSim as PredSim
from locallearn.rules._rule import Rule as Rule
from locallearn.rules._wrapper import Wrapper as Wrapper
