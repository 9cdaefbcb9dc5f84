"""Metrics of edges: boundaries that need not lie on the very pixel."""

from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional

from mtl_ext.methods.base import check_range
from mtl_ext.metrics.base import Metric, check_same_shape

# Larger logits, infinite ones above all, are cut to this: thinning takes differences of them.
LARGEST = 1e4


class OdsF(Metric):
    """F-measure of edge pixels at the one threshold that is best for the whole split (odsF), in percent.

    At each threshold, precision is the share of predicted edge pixels with a true edge pixel within a tolerance, and
    recall the share of true edge pixels with a predicted one. Their counts are summed over the split, then
    ``F = 2 P R / (P + R)``, and the best F over thresholds 0.01, 0.02 ... 0.99 is the result.

    An approximation of the Berkeley benchmark (and of the ``seism`` toolbox that published numbers come from) in two
    places. Predictions are thinned once, by keeping the crests of their ridges, not by morphology at every
    threshold. And a pixel is matched when there is any other within the tolerance, whereas the benchmark matches one
    to one: where predictions are doubled or broken within the tolerance this measure is the higher one. It takes
    milliseconds per image instead of minutes.

    Args:
        tolerance: how far a match may be away, as a share of the image's diagonal.
        thin: thin the predictions; False where they have been already.

    Raises:
        ValueError: a tolerance outside 0 .. 1.
    """

    name = "odsF %"
    higher_is_better = True

    def __init__(self, *, tolerance: float = 0.0075, thin: bool = True) -> None:
        check_range("tolerance", tolerance, 0.0, 1.0)
        self.tolerance = tolerance
        self.thin = thin
        self.thresholds = torch.arange(1, 100, dtype=torch.float32) / 100
        self.predicted, self.correct, self.found = (torch.zeros(99, dtype=torch.int64) for _ in range(3))
        self.true = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds logits [B, 1, H, W] and targets of the same shape: 1 edge, 0 none, anything else does not count.

        Raises:
            ValueError: another shape.
        """
        check_same_shape(self, output, target)
        if target.dim() != 4 or target.shape[1] != 1:
            raise ValueError(f"OdsF has shape {list(target.shape)}, expected [B, 1, H, W]")
        edge = target == 1
        valid = edge | (target == 0)
        # A value that is not a number predicts nothing.
        logits = output.detach().float().nan_to_num(-LARGEST).clamp(-LARGEST, LARGEST)
        kept = valid & crests(logits) if self.thin else valid
        probability = logits.sigmoid() * kept
        radius = self.tolerance * sqrt(target.shape[-2] ** 2 + target.shape[-1] ** 2)
        near_edge = disc_maximum(edge.float(), radius) > 0
        self.predicted += self._at_least(probability)
        self.correct += self._at_least(probability[near_edge])
        # A true pixel is found at every threshold up to the largest probability around it.
        self.found += self._at_least(disc_maximum(probability, radius)[edge])
        self.true += int(edge.sum())

    def compute(self) -> float:
        """The best F, in percent; NaN where there was no true edge."""
        if self.true == 0:
            return float("nan")
        precision = self.correct.double() / self.predicted.clamp_min(1)
        recall = self.found.double() / self.true
        f = 2 * precision * recall / (precision + recall)
        return 100.0 * float(f.nan_to_num(0.0).max())

    def _at_least(self, values: Tensor) -> Tensor:
        """How many values reach each threshold, [99]."""
        reached = torch.bucketize(values.flatten(), self.thresholds.to(values.device), right=True)
        counts = torch.bincount(reached, minlength=100).cpu()
        return counts.flip(0).cumsum(0).flip(0)[1:]


def disc_maximum(image: Tensor, radius: float) -> Tensor:
    """The largest value within a distance of each pixel.

    Args:
        image: [B, 1, H, W], at least 0.
        radius: in pixels.
    """
    reach = min(int(radius), max(image.shape[-2:]))
    height = image.shape[-2]
    result = image
    for offset in range(-reach, reach + 1):
        half = int(sqrt(radius**2 - offset**2))
        rows = functional.max_pool2d(image, (1, 2 * half + 1), stride=1, padding=(0, half))
        shifted = functional.pad(rows, (0, 0, reach, reach))[:, :, reach + offset : reach + offset + height]
        result = torch.maximum(result, shifted)
    return result


def crests(logits: Tensor) -> Tensor:
    """The pixels that are larger than their two neighbours in at least two of four directions, [B, 1, H, W] bool.

    On a ridge those are the directions across it; on a slope that bends around a summit there may be one, along the
    slope. The image is smoothed a little before, so that a flat ridge of up to 5 pixels has one crest, in its middle.
    Logits, because probabilities are flat where a network is sure.

    Args:
        logits: [B, 1, H, W], finite.
    """
    kernel = logits.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    rows = functional.conv2d(functional.pad(logits, (2, 2, 0, 0), "replicate"), kernel.view(1, 1, 1, 5))
    smooth = functional.conv2d(functional.pad(rows, (0, 0, 2, 2), "replicate"), kernel.view(1, 1, 5, 1))
    height, width = smooth.shape[-2:]
    padded = functional.pad(smooth, (1, 1, 1, 1), "replicate")
    times_largest = torch.zeros_like(smooth)
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        before = padded[:, :, 1 - down : 1 - down + height, 1 - right : 1 - right + width]
        after = padded[:, :, 1 + down : 1 + down + height, 1 + right : 1 + right + width]
        times_largest += (smooth >= before) & (smooth > after)
    return times_largest >= 2
