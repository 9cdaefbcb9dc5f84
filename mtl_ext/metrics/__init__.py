"""Measures: of a task's quality, of a method against single-task training, of the gradients' similarity."""

from mtl_ext.metrics.base import Metric
from mtl_ext.metrics.classification import Accuracy, BinaryAccuracy, MeanIoU, PixelAccuracy
from mtl_ext.metrics.delta import delta_mtl, task_changes
from mtl_ext.metrics.edges import OdsF
from mtl_ext.metrics.normals import MeanAngle, MedianAngle, WithinAngle
from mtl_ext.metrics.ranking import final_value, moving_average, ranking_similarity
from mtl_ext.metrics.regression import AbsoluteError, RelativeError, RootMeanSquareError
from mtl_ext.metrics.saliency import MaxIoU
from mtl_ext.metrics.similarity import cosines, gds, gms
from mtl_ext.metrics.universality import Universality, universality

__all__ = [
    "AbsoluteError",
    "Accuracy",
    "BinaryAccuracy",
    "MaxIoU",
    "MeanAngle",
    "MeanIoU",
    "MedianAngle",
    "Metric",
    "OdsF",
    "PixelAccuracy",
    "RelativeError",
    "RootMeanSquareError",
    "Universality",
    "WithinAngle",
    "cosines",
    "delta_mtl",
    "final_value",
    "gds",
    "gms",
    "moving_average",
    "ranking_similarity",
    "task_changes",
    "universality",
]
