"""Feature similarity: how well the features of one task serve another."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mtl_ext.data import MultiTaskData
from mtl_ext.metrics import task_changes
from mtl_ext.models.self_auxiliary import all_pairs
from mtl_ext.relationships.cached_runs import CachedRuns, OnRun
from mtl_ext.relationships.enumeration import measured_tasks
from mtl_ext.relationships.values import mean_relationships
from mtl_ext.task_names import self_auxiliary_name
from mtl_ext.trainers import TrainConfig, lower_is_better
from mtl_ext.trainers.build import build_data


def feature_similarity(
    config: TrainConfig,
    data: MultiTaskData | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    folder: Path | None = None,
    on_run: OnRun = lambda done, total: None,
) -> dict[str, float]:
    """The change of each task against single-task training on the frozen encoder of another (SAAL, section 4.4).

    Of source s and target t: the single-task network of s gives its encoder, frozen, statistics included; two
    convolutions and a new head of t are trained behind it (:func:`mtl_ext.models.transfer`, after Taskonomy, Zamir et
    al. 2018), for as long as the single-task network of t, to which it is compared. K + K (K - 1) runs per seed, of
    which the first K are those of `enumerate_pairs`.

    Args:
        config: see `enumerate_pairs`, as the others; the features are maps [B, C, H, W].
        data: the data set that the configuration describes, where it is loaded already.
        seeds: of the runs.
        folder: where the runs are kept and found again, by their configurations; None: in the cache.
        on_run: called before the first run and after each.

    Returns:
        ``SOURCE->TARGET`` -> change on the validation split, the mean over seeds; 0.01 is one percent.

    Raises:
        ValueError: see `enumerate_pairs`; or the features are no maps.
    """
    data = build_data(config) if data is None else data
    tasks = measured_tasks(config, data)
    names, lower = [task.name for task in tasks], lower_is_better(tasks)
    runs, done, total = CachedRuns(folder, data), 0, len(seeds) * len(names) ** 2
    on_run(0, total)
    each = []
    for seed in seeds:
        alone = {name: replace(config, tasks=(name,), seed=seed) for name in names}
        single = {}
        for name, single_config in alone.items():
            single[name] = runs.validation(single_config)
            on_run(done := done + 1, total)
        changes = {}
        for source, target in all_pairs(names):
            options = {
                "model": config.model,
                "model_options": config.model_options,
                "weights": str(runs.run_folder(alone[source]) / "model.pt"),
            }
            measures = runs.validation(replace(alone[target], model="transfer", model_options=options))
            on_run(done := done + 1, total)
            changes[self_auxiliary_name(source, target)] = task_changes(measures, single[target], lower)[target]
        each.append(changes)
    return mean_relationships(each)
