"""One network in many processes, on `torch.distributed`. Imports `cost` and what is below it."""

from locallearn.parallel.data import data as data
from locallearn.parallel.modules import ModulePart as ModulePart, modules as modules
from locallearn.parallel.prediction import ProcessCost as ProcessCost, predict_modules as predict_modules
from locallearn.parallel.replay import Staleness as Staleness
