"""The data sets of the paper's tables, or what stands for them in a study."""

from mtl_ext.data.celeba import PRESETS
from mtl_ext.studies.claims import NotTestableError
from mtl_ext.studies.saal.outcomes import Outcomes, PartOutcomes

NYUV2, CITYSCAPES, CELEBA = "table_1", "table_2", "table_3"
NYUV2_MISSING = "neither NYUv2 nor data in place of it were run"
CITYSCAPES_MISSING = "Cityscapes was not run: --preset full --data cityscapes"
CELEBA_MISSING = "neither CelebA nor data in place of it were run"


def nyuv2(outcomes: Outcomes) -> PartOutcomes:
    """NYUv2, or what stands for it.

    Raises:
        NotTestableError: there is none, as for the next two.
    """
    return outcomes.of_table(NYUV2, NYUV2_MISSING)


def cityscapes(outcomes: Outcomes) -> PartOutcomes:
    """Cityscapes, or what stands for it."""
    return outcomes.of_table(CITYSCAPES, CITYSCAPES_MISSING)


def celeba(outcomes: Outcomes) -> PartOutcomes:
    """CelebA itself: what drawn faces say about their attributes says nothing about photographs."""
    part = outcomes.of_table(CELEBA, "CelebA was not run: --preset full --data celeba")
    if part.part.recipe.train.get("data") != "celeba":
        raise NotTestableError("about CelebA's photographs: --preset full --data celeba")
    if not set(PRESETS["saal"]) <= set(part.part.tasks):
        raise NotTestableError("about nine attributes, not all of which were run")
    return part
