"""Training on many devices, simulated: time, idle time, memory and traffic of several ways to divide the work.

Imports `cost` and what is below it.
"""

from locallearn.simulation.comparison import (
    Simulation as Simulation,
    refuse_numbers as refuse_numbers,
    simulate as simulate,
)
from locallearn.simulation.counting import load_of as load_of, measured_times as measured_times
from locallearn.simulation.layouts import (
    Outcome as Outcome,
    assign as assign,
    data_parallel as data_parallel,
    module_parallel as module_parallel,
    pipeline as pipeline,
)
from locallearn.simulation.link import Link as Link
from locallearn.simulation.load import (
    CopiedLayer as CopiedLayer,
    Load as Load,
    ModuleLoad as ModuleLoad,
    PhaseLoad as PhaseLoad,
)
