"""Methods on a two-task problem whose Pareto front is known: where they end, and where their theory says they do."""

from mtl_ext.pareto.descent import Descent, descend
from mtl_ext.pareto.theory import THEORY, Outcome, Theory, judge
from mtl_ext.pareto.toy import STARTS, Front, Toy

__all__ = ["STARTS", "THEORY", "Descent", "Front", "Outcome", "Theory", "Toy", "descend", "judge"]
