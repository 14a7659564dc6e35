"""What training costs, without training: parameters, multiply-accumulates, peak memory."""

from locallearn._live import LiveBytes as LiveBytes
from locallearn._peak import PeakMemory as PeakMemory, measure as measure, peak_memory as peak_memory
from locallearn.cost._by_module import ModuleBytes as ModuleBytes, bytes_by_module as bytes_by_module
from locallearn.cost._cost import Cost as Cost, cost as cost
from locallearn.cost._macs import (
    CONVOLUTION_AND_LINEAR as CONVOLUTION_AND_LINEAR,
    FVCORE as FVCORE,
    ModuleMacs as ModuleMacs,
    forward_macs as forward_macs,
    step_macs as step_macs,
)
from locallearn.cost._picture import draw_bytes as draw_bytes, draw_plan as draw_plan
from locallearn.cost._plan import Plan as Plan, plan as plan
from locallearn.cost._search import Candidate as Candidate
from locallearn.cost._time import Prediction as Prediction, predict as predict
