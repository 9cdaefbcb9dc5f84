"""Metrics of saliency: which pixels belong to what stands out."""

import torch
from torch import Tensor

from mtl_ext.metrics.base import Metric, check_same_shape


class MaxIoU(Metric):
    """Intersection over union of the salient pixels, in percent: mean over images, at the best of 15 thresholds.

    For each threshold 0.20, 0.25 ... 0.90 an image's IoU is that of the pixels whose probability is above it; an image
    where prediction and target are both empty has 1. The means over the images are compared at the end: one threshold
    serves the whole split. Targets other than 0 and 1 do not count; an image without others is left out.
    """

    name = "max IoU %"
    higher_is_better = True

    def __init__(self) -> None:
        self.thresholds = torch.linspace(0.2, 0.9, 15, dtype=torch.float64)
        self.total = torch.zeros(15, dtype=torch.float64)
        self.count = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds logits [B, 1, H, W] and targets 0 or 1 of the same shape."""
        check_same_shape(self, output, target)
        probability, target = output.detach().double().sigmoid().flatten(1), target.flatten(1)
        salient = target == 1
        valid = salient | (target == 0)
        usable = valid.any(1).cpu()
        for index, threshold in enumerate(self.thresholds.tolist()):
            predicted = (probability > threshold) & valid
            intersection = (predicted & salient).sum(1).double()
            union = (predicted | salient).sum(1).double()
            ratios = torch.where(union == 0, 1.0, intersection / union).cpu()
            self.total[index] += ratios[usable].sum()
        self.count += int(usable.sum())

    def compute(self) -> float:
        """IoU at the best threshold, in percent."""
        return 100.0 * float(self.total.max()) / self.count if self.count else float("nan")
