"""Mao et al., Robust Analysis of Multi-Task Learning on a Complex Vision System."""

from mtl_ext.report import Report
from mtl_ext.studies.robust.outcomes import Outcomes
from mtl_ext.studies.robust.protocol import BASELINE, rows, variants
from mtl_ext.studies.robust.report import build_report
from mtl_ext.studies.study import Material, Study
from mtl_ext.trainers import TrainConfig

__all__ = ["RobustStudy"]


class RobustStudy(Study):
    """All methods of the paper at both levels, with monitors, against equal weighting."""

    name = "robust"
    reference = BASELINE

    def rows(self) -> dict[str, TrainConfig]:
        """The baseline and every variant, in the order of the paper's Table 1."""
        return rows(self.recipe, self.methods)

    def report(self, material: Material) -> Report:
        """Claims, Tables 1 to 3, curves, correlation of the levels, runtime."""
        segmentation = self.recipe.groups.get("segmentation", [])
        outcomes = Outcomes(variants(self.methods), material.columns, material.records, segmentation)
        if not outcomes.present:
            raise ValueError("no run of the baseline and of a method with the same seed is finished yet")
        return build_report(self.recipe, outcomes, material)
