"""Training rules, one file per paper."""

from locallearn.rules._auglocal import AugLocal as AugLocal
from locallearn.rules._bp import BP as BP, Checkpoint as Checkpoint
from locallearn.rules._dgl import DGL as DGL
from locallearn.rules._rule import Rule as Rule
