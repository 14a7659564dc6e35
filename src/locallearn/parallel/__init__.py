"""One network in many processes, on `torch.distributed`. Imports `_engine` and what is below it."""

from locallearn.parallel.data import data as data
