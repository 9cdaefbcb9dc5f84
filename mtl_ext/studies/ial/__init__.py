"""Li et al., Unprejudiced Training Auxiliary Tasks Makes Primary Better: impartial auxiliary learning (IAL)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_ext.report import Report
from mtl_ext.studies.choice import Choice
from mtl_ext.studies.ial.outcomes import Evidence, Outcomes
from mtl_ext.studies.ial.panels import draw_panels
from mtl_ext.studies.ial.protocol import SINGLE, UNIFORM, Protocol
from mtl_ext.studies.ial.report import build_report
from mtl_ext.studies.recipe import Recipe
from mtl_ext.studies.runs import RunRecord, StudyRun
from mtl_ext.studies.study import Experiment, Material, Study

__all__ = ["IALStudy"]


class IALStudy(Study):
    """Every task primary in turn, without and with noisy tasks; IAL's ablations; domains with inputs of their own."""

    name = "ial"
    summary = (
        "Li et al., Unprejudiced Training Auxiliary Tasks Makes Primary Better (IAL):\n"
        "  18 methods with every task primary in turn, noisy auxiliary tasks, ablations"
    )
    examples = (
        "mtl-ext study ial --preset quick                                      10 minutes on two cores",
        "mtl-ext study ial --preset full --data nyud_mt --root data/NYUD_MT --device cuda --workers 1",
    )

    def __init__(self, recipe: Recipe, methods: Sequence[str] | None = None) -> None:
        super().__init__(recipe, methods)
        self.protocol = Protocol(recipe, methods)

    def choices(self) -> dict[str, Choice]:
        """Grids of auxiliary weights, and where Auto-λ starts."""
        return self.protocol.choices()

    def experiments(self, chosen: Mapping[str, Any]) -> dict[str, Experiment]:
        """``plain``, ``noisy``, ``ablations`` and ``domains``, as far as the recipe has them."""
        found = {}
        for name, recipe in self.protocol.recipes.items():
            rows = self.protocol.rows(name, chosen)
            reference = UNIFORM if UNIFORM in rows else next(iter(rows))
            found[name] = Experiment(rows, recipe.seeds, reference, recipe.timing_rounds if name == "plain" else 0)
        return found

    def analyse(self, out: Path, runs: Sequence[StudyRun], workers: int) -> None:
        """Predicts the test images that the report shows."""
        dense = [run for run in runs if run.experiment in ("plain", "noisy")]
        if dense:
            ablated, broken = self._ablated_and_broken()
            failing = (ablated, broken) if ablated else None
            draw_panels(
                out, dense, self.protocol.primary("plain"), self.protocol.option("plain", "panels", (0,)), failing
            )

    def report(self, material: Material) -> Report:
        """Claims, Tables I to XI as far as there are runs, figures, runtime."""
        evidence = self._evidence(material)
        if not any(part.has(UNIFORM, SINGLE) for part in evidence.parts.values()):
            raise ValueError("no run of Uniform and of single tasks with the same seed is finished yet")
        return build_report(self.protocol, evidence, material)

    def _evidence(self, material: Material) -> Evidence:
        """The runs by data set; ablations share rows with ``plain``, and ``noisy`` its single tasks."""
        records: dict[str, list[RunRecord]] = {
            name: list(results.records) for name, results in material.results.items()
        }
        singles = [record for record in records.get("plain", []) if record.row.startswith(f"{SINGLE} [")]
        groups: dict[str, dict[str, list[RunRecord]]] = {
            "plain": {name: records[name] for name in ("plain", "ablations") if name in records},
            "noisy": {"plain": singles, "noisy": records.get("noisy", [])},
            "domains": {"domains": records.get("domains", [])},
        }
        parts = {
            name: Outcomes(material.results[name].columns, self.protocol.primary(name), group, material.out)
            for name, group in groups.items()
            if name in material.results
        }
        times = material.results["plain"].step_times if "plain" in material.results else {}
        return Evidence(
            parts.get("plain"), parts.get("noisy"), parts.get("domains"), times, *self._ablated_and_broken()
        )

    def _ablated_and_broken(self) -> tuple[str, str]:
        options = self.protocol.recipe.options
        return options.get("ablated", ""), options.get("broken", "")
