"""Which task helps which: measures of the knowledge that a source task gives to a target task, and their agreement.

After Graffeuille et al. (SAAL), sections 3.2, 4.3 and 4.4, on networks with a shared bottom.
"""

from mtl_ext.relationships.agreement import Agreement, agreement
from mtl_ext.relationships.coefficients import saal_coefficients
from mtl_ext.relationships.enumeration import enumerate_pairs, self_auxiliary_pairs
from mtl_ext.relationships.feature_similarity import feature_similarity
from mtl_ext.relationships.figure import relationships_figure
from mtl_ext.relationships.gradient_angle import gradient_angles
from mtl_ext.relationships.look_ahead import LookAhead
from mtl_ext.relationships.observed import Observed, observe_run
from mtl_ext.relationships.values import Measure, Relationships, mean_relationships

__all__ = [
    "Agreement",
    "LookAhead",
    "Measure",
    "Observed",
    "Relationships",
    "agreement",
    "enumerate_pairs",
    "feature_similarity",
    "gradient_angles",
    "mean_relationships",
    "observe_run",
    "relationships_figure",
    "saal_coefficients",
    "self_auxiliary_pairs",
]
