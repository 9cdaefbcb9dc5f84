"""Which methods take part, at which level, and what the paper says about each."""

from dataclasses import dataclass

from mtl_ext.studies.recipe import Recipe
from mtl_ext.trainers import TrainConfig

BASELINE = "Baseline"
# The paper's names -> ours. Gradient methods run at both levels; "(rep)" marks gradients at the shared representation.
GRADIENT_METHODS = {
    "PCGrad": "PCGrad",
    "GradVac": "GradVac",
    "GradDrop": "GradDrop",
    "RGW": "RGW",
    "MGDA": "MGDA",
    "CAGrad": "CAGrad",
    "Nash-MTL": "NashMTL",
    "Aligned-MTL": "AlignedMTL",
    "GradNorm": "GradNorm",
    "IMTL": "IMTL",
    "CosReg": "CosReg",
}
LOSS_METHODS = {"Uncertainty": "UW", "RLW": "RLW", "FAMO": "FAMO", "DWA": "DWA"}
# "Extremely poor performance" (section 3), so not in the paper's tables.
NOT_REPORTED = ("GradNorm", "Nash-MTL", "(rep) GradDrop", "(rep) GradNorm", "(rep) Nash-MTL")
# Both levels in the paper's Table 2.
TWO_LEVELS = ("PCGrad", "GradVac", "RGW", "MGDA", "CAGrad", "Aligned-MTL", "IMTL", "CosReg")


@dataclass(frozen=True)
class Variant:
    """A method at a level.

    Attributes:
        name: the paper's, with "(rep)" in front at feature level.
        method: its name in this package.
        level: parameter or feature; parameter for the methods that look at no gradients.
    """

    name: str
    method: str
    level: str

    @property
    def reported(self) -> bool:
        """Whether the paper's Table 1 has it."""
        return self.name not in NOT_REPORTED


def rep(name: str) -> str:
    """The feature-level run of a method."""
    return f"(rep) {name}"


def variants(methods: list[str] | None = None) -> list[Variant]:
    """The baseline and all variants in the order of the paper's Table 1.

    Args:
        methods: the paper's names of the methods to keep, at all their levels; None: all.

    Raises:
        ValueError: a name that the paper does not have.
    """
    known = [*GRADIENT_METHODS, *LOSS_METHODS]
    for name in methods or []:
        if name not in known:
            raise ValueError(f"methods has {name!r}, expected names out of {', '.join(known)}")
    rows = [Variant(name, method, "parameter") for name, method in {**GRADIENT_METHODS, **LOSS_METHODS}.items()]
    rows += [Variant(rep(name), method, "feature") for name, method in GRADIENT_METHODS.items()]
    kept = [row for row in rows if methods is None or row.name.removeprefix("(rep) ") in methods]
    return [Variant(BASELINE, "EW", "parameter"), *kept]


def rows(recipe: Recipe, methods: list[str] | None = None) -> dict[str, TrainConfig]:
    """Name -> configuration of the baseline and of every variant."""
    return {variant.name: recipe.config(variant.method, variant.level) for variant in variants(methods)}
