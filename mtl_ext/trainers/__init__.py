"""Training runs: one loop, with a step for each shape of method."""

from mtl_ext.trainers.config import TrainConfig
from mtl_ext.trainers.evaluation import lower_is_better
from mtl_ext.trainers.interrupt import RunInterrupted
from mtl_ext.trainers.loop import Trainer, cpu_threads
from mtl_ext.trainers.results import EpochRecord, Measures, StepRecord, TrainResult
from mtl_ext.trainers.run import train_run
from mtl_ext.trainers.timing import relative_step_times

__all__ = [
    "EpochRecord",
    "Measures",
    "RunInterrupted",
    "StepRecord",
    "TrainConfig",
    "TrainResult",
    "Trainer",
    "cpu_threads",
    "lower_is_better",
    "relative_step_times",
    "train_run",
]
