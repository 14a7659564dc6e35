"""What training costs, without training: parameters, multiply-accumulates, peak memory, predicted time; and plans.

Imports `_localize`, `_planning` and what is below them.
"""

from locallearn._planning.prediction import (
    PeakMemory as PeakMemory,
    Prediction as Prediction,
    measure as measure,
    peak_memory as peak_memory,
    predict as predict,
)
from locallearn._planning.search import Candidate as Candidate
from locallearn._torch.live_bytes import LiveBytes as LiveBytes
from locallearn.cost.by_module import ModuleBytes as ModuleBytes, bytes_by_module as bytes_by_module
from locallearn.cost.phases import Activity as Activity, Phase as Phase, PhaseRecorder as PhaseRecorder
from locallearn.cost.pictures import draw_bytes as draw_bytes, draw_plan as draw_plan
from locallearn.cost.planner import Plan as Plan, plan as plan
from locallearn.cost.summary import (
    CONVOLUTION_AND_LINEAR as CONVOLUTION_AND_LINEAR,
    FVCORE as FVCORE,
    Cost as Cost,
    ModuleMacs as ModuleMacs,
    cost as cost,
    forward_macs as forward_macs,
    step_macs as step_macs,
)
from locallearn.cost.timeline import Timeline as Timeline, timeline as timeline
from locallearn.cost.warning import warning_of as warning_of
