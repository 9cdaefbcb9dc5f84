"""Mao et al., Robust Analysis of Multi-Task Learning on a Complex Vision System."""

from collections.abc import Mapping
from typing import Any

from mtl_ext.report import Report
from mtl_ext.studies.robust.outcomes import Outcomes
from mtl_ext.studies.robust.protocol import BASELINE, rows, variants
from mtl_ext.studies.robust.report import build_report
from mtl_ext.studies.study import Experiment, Material, Study

__all__ = ["RobustStudy"]


class RobustStudy(Study):
    """All methods of the paper at both levels, with monitors, against equal weighting."""

    name = "robust"
    summary = (
        "Mao et al., Robust Analysis of Multi-Task Learning: 26 variants of 15 methods at parameter and feature level"
    )
    examples = (
        "mtl-ext study robust --preset quick                                   20 minutes on two cores",
        "mtl-ext study robust --preset tiny --methods PCGrad MGDA --out studies/try",
        "mtl-ext study robust --preset full --data nyuv2 --root data/nyuv2 --device cuda --workers 1",
    )

    def experiments(self, chosen: Mapping[str, Any]) -> dict[str, Experiment]:
        """One: the baseline and every variant, in the order of the paper's Table 1."""
        recipe = self.recipe
        return {"": Experiment(rows(recipe, self.methods), recipe.seeds, BASELINE, recipe.timing_rounds)}

    def report(self, material: Material) -> Report:
        """Claims, Tables 1 to 3, curves, correlation of the levels, runtime."""
        results = material.results[""]
        segmentation = self.recipe.groups.get("segmentation", [])
        outcomes = Outcomes(variants(self.methods), results.columns, results.records, segmentation)
        if not outcomes.present:
            raise ValueError("no run of the baseline and of a method with the same seed is finished yet")
        return build_report(self.recipe, outcomes, results, material.versions)
