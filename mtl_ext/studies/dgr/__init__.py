"""Shin, Do, Son: Learning Representation for Multitask Learning through Self-Supervised Auxiliary Learning (DGR)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_ext.report import Report
from mtl_ext.studies.choice import Choice
from mtl_ext.studies.dgr.outcomes import Outcomes
from mtl_ext.studies.dgr.protocol import Part, make_parts
from mtl_ext.studies.dgr.report import build_report
from mtl_ext.studies.dgr.representation import measure_representations
from mtl_ext.studies.recipe import Recipe
from mtl_ext.studies.runs import StudyRun
from mtl_ext.studies.study import Experiment, Material, Study

__all__ = ["DGRStudy"]


class DGRStudy(Study):
    """Every method of the paper with and without DGR, and what it is compared with and varied by.

    Experiments that share data or single-task rows say so by options, see :class:`mtl_ext.studies.dgr.protocol.Part`.
    """

    name = "dgr"
    summary = (
        "Shin et al., Learning Representation for Multitask Learning through Self-Supervised Auxiliary Learning:\n"
        "  eight methods with and without DGR; SAM and PTA; dummies, tasks, Swin; quality of representations"
    )
    examples = (
        "mtl-ext study dgr --preset quick                                      15 minutes on two cores",
        "mtl-ext study dgr --preset full --data utkface --root data/utkface --device cuda --workers 1",
    )

    def __init__(self, recipe: Recipe, methods: Sequence[str] | None = None) -> None:
        super().__init__(recipe, methods)
        self.parts: dict[str, Part] = make_parts(recipe, methods)

    def choices(self) -> dict[str, Choice]:
        """The strength of DGR, once for every experiment that does not take another's."""
        found = [(part.choice_name, part.choice) for part in self.parts.values()]
        return {name: choice for name, choice in found if choice is not None}

    def experiments(self, chosen: Mapping[str, Any]) -> dict[str, Experiment]:
        """One for every data set and architecture."""
        return {name: part.experiment(chosen[part.choice_name]) for name, part in self.parts.items()}

    def analyse(self, out: Path, runs: Sequence[StudyRun], workers: int) -> None:
        """Measures the representations of the experiments that ask for it."""
        wanted = [run for run in runs if self.parts[run.experiment].representation]
        measure_representations(out, wanted, workers)

    def report(self, material: Material) -> Report:
        """Claims, Tables 1 to 4, Figures 2 and 3, runtime."""
        outcomes = Outcomes.of(self.parts, material)
        if not any(part.runs for part in outcomes.parts.values()):
            raise ValueError("no run of an experiment is finished yet")
        return build_report(self.recipe, outcomes, material)
