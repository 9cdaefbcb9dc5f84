"""Graffeuille et al., Enabling Asymmetric Knowledge Transfer in Multi-Task Learning with Self-Auxiliaries (SAAL)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_ext.report import Report
from mtl_ext.studies.runs import StudyRun
from mtl_ext.studies.saal.measures import measure, read_measures
from mtl_ext.studies.saal.outcomes import Outcomes, PartOutcomes
from mtl_ext.studies.saal.protocol import Part, parts
from mtl_ext.studies.saal.report import build_report
from mtl_ext.studies.study import Experiment, Material, Study

__all__ = ["SaalStudy"]

KINDS = ("single tasks", "pairs", "methods", "sharing")


class SaalStudy(Study):
    """Single tasks first, then pairs of tasks, whose gains decide on the self-auxiliaries, then all methods."""

    name = "saal"
    summary = (
        "Graffeuille et al., Self-Auxiliary Asymmetric Learning (SAAL): ten methods, shared blocks, task relationships"
    )
    examples = (
        "mtl-ext study saal --preset quick                                     15 minutes on two cores",
        "mtl-ext study saal --preset full --data nyuv2 --root data/nyuv2 --device cuda --workers 1",
    )

    def experiments(self, chosen: Mapping[str, Any]) -> dict[str, Experiment]:
        """Those of every data set: ``NAME single tasks``, and so on, see `Part`."""
        found: dict[str, Experiment] = {}
        for part in self._parts():
            found |= part.experiments(chosen)
        return found

    def analyse(self, out: Path, runs: Sequence[StudyRun], workers: int) -> None:
        """Look-ahead losses, gradient angles and feature similarity, for Table 5."""
        measure(out, self._parts(), workers)

    def report(self, material: Material) -> Report:
        """Claims, Tables 1 to 5, Figures 1 and 3."""
        outcomes = Outcomes([self._outcomes(part, material) for part in self._parts()])
        if not any(part.methods for part in outcomes.parts):
            raise ValueError("no method has a finished run with a seed with which all single-task runs are finished")
        return build_report(self.recipe, outcomes, material)

    def _parts(self) -> list[Part]:
        return parts(self.recipe, self.methods)

    def _outcomes(self, part: Part, material: Material) -> PartOutcomes:
        names = {kind: part.experiment_name(kind) for kind in (*KINDS, "runtime")}
        results = {kind: material.results[name] for kind, name in names.items() if name in material.results}
        return PartOutcomes(
            part,
            results["methods"].columns,
            {kind: results[kind].records for kind in KINDS if kind in results},
            read_measures(material.out, part),
            results["runtime"].step_times if "runtime" in results else {},
        )
