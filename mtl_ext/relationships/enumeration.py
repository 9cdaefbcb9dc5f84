"""Enumeration: what training with each other task does to a task."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from mtl_ext.data import MultiTaskData, Task
from mtl_ext.metrics import task_changes
from mtl_ext.models.architecture import shares_bottom
from mtl_ext.models.self_auxiliary import all_pairs
from mtl_ext.relationships.cached_runs import CachedRuns, OnRun
from mtl_ext.relationships.values import Relationships, mean_relationships
from mtl_ext.task_names import self_auxiliary_name
from mtl_ext.trainers import TrainConfig, lower_is_better
from mtl_ext.trainers.build import build_data, build_model, choose_tasks


def enumerate_pairs(
    config: TrainConfig,
    data: MultiTaskData | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    folder: Path | None = None,
    on_run: OnRun = lambda done, total: None,
) -> dict[str, float]:
    """The change of each task against single-task training when it shares its bottom with one other (SAAL, Eq. 5).

    Of source s and target t: the mean over the metrics of t of the relative change, positive where better, of the
    network of both tasks against the network of t alone, on the validation split; the mean over seeds, each against the
    single-task network of its own. K + K (K - 1) / 2 runs per seed.

    Args:
        config: of a run of all tasks, with a network that shares everything before the heads; its seed is not used.
        data: the data set that the configuration describes, where it is loaded already.
        seeds: of the runs.
        folder: where the runs are kept and found again, by their configurations; None: in the cache.
        on_run: called before the first run and after each.

    Returns:
        ``SOURCE->TARGET`` -> change; 0.01 is one percent.

    Raises:
        ValueError: the configuration cannot train, its network has branches, or there is no validation split.
    """
    data = build_data(config) if data is None else data
    tasks = measured_tasks(config, data)
    names = [task.name for task in tasks]
    subsets = [(name,) for name in names] + list(combinations(names, 2))
    runs, measures, done = CachedRuns(folder, data), {}, 0
    on_run(0, len(subsets) * len(seeds))
    for seed in seeds:
        for subset in subsets:
            measures[subset, seed] = runs.validation(replace(config, tasks=subset, seed=seed))
            done += 1
            on_run(done, len(subsets) * len(seeds))
    lower = lower_is_better(tasks)
    each = []
    for seed in seeds:
        changes = {}
        for source, target in all_pairs(names):
            both = measures[(source, target) if (source, target) in subsets else (target, source), seed]
            single = measures[(target,), seed]
            changes[self_auxiliary_name(source, target)] = task_changes({target: both[target]}, single, lower)[target]
        each.append(changes)
    return mean_relationships(each)


def self_auxiliary_pairs(changes: Relationships) -> tuple[str, ...]:
    """SAAL_e's choice, for ``TrainConfig.self_auxiliaries``: the pairs whose source makes the target better."""
    return tuple(pair for pair, change in changes.items() if change > 0)


def measured_tasks(config: TrainConfig, data: MultiTaskData) -> list[Task]:
    """The tasks whose relationships a configuration can measure.

    Raises:
        ValueError: fewer than two tasks, one without metrics, no validation split, or no shared bottom.
    """
    tasks = choose_tasks(config, data)
    unmeasured = [task.name for task in tasks if not task.metrics]
    if len(tasks) < 2 or unmeasured:
        raise ValueError(
            f"tasks are {[t.name for t in tasks]}, without metrics {unmeasured}: expected two or more with"
        )
    if data.val is None and not config.holdout:
        raise ValueError("the data set has no validation split: set holdout, for example to 0.1")
    if config.self_auxiliaries or not shares_bottom(build_model(config, tasks)):
        raise ValueError(
            "relationships are those of a network that shares everything before its heads: take shared_blocks 5 of "
            "half_shared, or another network, and no self_auxiliaries"
        )
    return tasks
