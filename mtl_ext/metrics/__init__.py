"""Measures: of a task's quality, of a method against single-task training, of the gradients' similarity."""

from mtl_ext.metrics.delta import delta_mtl, task_changes
from mtl_ext.metrics.similarity import gds, gms
from mtl_ext.metrics.task_metrics import AbsoluteError, Accuracy, MeanIoU, Metric

__all__ = ["AbsoluteError", "Accuracy", "MeanIoU", "Metric", "delta_mtl", "gds", "gms", "task_changes"]
