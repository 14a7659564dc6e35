"""Trains a network from settings and fills a run folder. Imports `parallel` and what is below it."""

from locallearn._engine.cuda_graphs import CapturedSteps as CapturedSteps
from locallearn._engine.stepper import ModuleStepper as ModuleStepper, Stepper as Stepper
from locallearn.training.curves import draw_curves as draw_curves
from locallearn.training.evaluation import (
    Evaluation as Evaluation,
    best_epoch as best_epoch,
    chosen_on as chosen_on,
    evaluate as evaluate,
)
from locallearn.training.files.checkpoint import (
    Checkpoint as Checkpoint,
    digest_of as digest_of,
    load_checkpoint as load_checkpoint,
    load_weights as load_weights,
    save_checkpoint as save_checkpoint,
    trained_weights as trained_weights,
)
from locallearn.training.files.data_card import refuse_other_data as refuse_other_data
from locallearn.training.files.run_folder import OF_PROCESSES as OF_PROCESSES, RunFolder as RunFolder
from locallearn.training.fit import Fit as Fit
from locallearn.training.from_settings import (
    build as build,
    data_of as data_of,
    load_images as load_images,
    make_model as make_model,
)
from locallearn.training.loggers import Logger as Logger, TensorBoard as TensorBoard, WandB as WandB
from locallearn.training.loop import Interrupted as Interrupted, Loop as Loop, Watcher as Watcher
from locallearn.training.optimizers import SGD as SGD, AdamW as AdamW, OptimizerSettings as OptimizerSettings
from locallearn.training.processes.launch import Launch as Launch, program as program
from locallearn.training.run import train as train
from locallearn.training.schedules import (
    Constant as Constant,
    Cosine as Cosine,
    EpochDecay as EpochDecay,
    ImageNetCosine as ImageNetCosine,
    PaperCosine as PaperCosine,
    Schedule as Schedule,
    StepDecay as StepDecay,
)
from locallearn.training.settings.fit import FitSettings as FitSettings
from locallearn.training.settings.loop import LoopSettings as LoopSettings
from locallearn.training.settings.text import (
    as_yaml as as_yaml,
    plain as plain,
    plain_settings as plain_settings,
    public_path as public_path,
    rule_text as rule_text,
)
from locallearn.training.settings.train import NO_RESULT as NO_RESULT, TrainSettings as TrainSettings
from locallearn.training.torch_schedule import TorchSchedule as TorchSchedule
from locallearn.training.trained import Trained as Trained, load_run as load_run
from locallearn.training.transfer import Transfer as Transfer, evaluate_run as evaluate_run
