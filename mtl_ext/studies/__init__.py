"""Studies: what a paper ran, run again, with its claims judged by what came out."""

from pathlib import Path

from mtl_ext.studies.dgr import DGRStudy
from mtl_ext.studies.ial import IALStudy
from mtl_ext.studies.recipe import Recipe, load_recipe, make_recipe, read_recipe, recipe_names
from mtl_ext.studies.robust import RobustStudy
from mtl_ext.studies.saal import SaalStudy
from mtl_ext.studies.study import Study, read_description

STUDIES: dict[str, type[Study]] = {cls.name: cls for cls in (RobustStudy, DGRStudy, IALStudy, SaalStudy)}


def report_folder(out: Path) -> Path:
    """Writes the report of a study's folder anew, from what is there, and returns its path.

    Raises:
        ValueError: the folder holds no study, or nothing to report yet.
    """
    description = read_description(out)
    if description["study"] not in STUDIES:
        raise ValueError(f"{out} is of the study {description['study']!r}, expected one of {', '.join(STUDIES)}")
    study = STUDIES[description["study"]](make_recipe(description["recipe"]), description["methods"])
    return study.write_report(out, description)


__all__ = [
    "STUDIES",
    "DGRStudy",
    "IALStudy",
    "Recipe",
    "RobustStudy",
    "SaalStudy",
    "Study",
    "load_recipe",
    "read_recipe",
    "recipe_names",
    "report_folder",
]
