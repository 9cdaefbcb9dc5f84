"""Training loops, one per shape of step."""

from mtl_ext.trainers.config import EpochRecord, TrainConfig, TrainResult
from mtl_ext.trainers.single import SingleTrainer, cpu_threads
from mtl_ext.trainers.timing import relative_step_times

__all__ = ["EpochRecord", "SingleTrainer", "TrainConfig", "TrainResult", "cpu_threads", "relative_step_times"]
