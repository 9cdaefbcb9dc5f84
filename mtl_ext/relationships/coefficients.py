"""The weights that SAAL_w has learnt, as a measure of task relationships."""

from mtl_ext.task_names import is_primary
from mtl_ext.trainers import TrainResult


def saal_coefficients(result: TrainResult) -> dict[str, float]:
    """The self-auxiliary tasks' weights after Eq. 11, as means over the last epoch of a run.

    Within a target they are in the order of the weights before Eq. 11.

    Raises:
        ValueError: the run has no self-auxiliary tasks.
    """
    weights = {name: weight for name, weight in result.epochs[-1].weights.items() if not is_primary(name)}
    if not weights:
        raise ValueError("the run trained no self-auxiliary tasks: set self_auxiliaries to ('all',), and method SAALw")
    return weights
