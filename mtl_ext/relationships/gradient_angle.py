"""The angle between two tasks' gradients at the shared parameters."""

import math
import statistics
from collections.abc import Mapping, Sequence

from mtl_ext.models.self_auxiliary import all_pairs
from mtl_ext.task_names import self_auxiliary_name


def gradient_angles(similarity: Sequence[Mapping[str, float]], tasks: Sequence[str]) -> dict[str, float]:
    """The median angle over a run, in degrees: the smaller, the closer. The same in both directions of a pair.

    Args:
        similarity: what :class:`mtl_ext.monitors.SimilarityMonitor` recorded, at the shared parameters.
        tasks: the tasks that were trained.

    Raises:
        ValueError: nothing was recorded.
    """
    if not similarity:
        raise ValueError("similarity holds no records: set monitor_every of the run to 1 or more")
    found = {}
    for source, target in all_pairs(tasks):
        keys = [f"parameter_cosine/{a}/{b}" for a, b in ((source, target), (target, source))]
        cosines = [record[key] for record in similarity for key in keys if key in record]
        angles = [math.degrees(math.acos(max(-1.0, min(1.0, cosine)))) for cosine in cosines]
        found[self_auxiliary_name(source, target)] = statistics.median(angles)
    return found
