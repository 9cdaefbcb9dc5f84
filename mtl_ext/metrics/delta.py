"""Delta_MTL: how much better or worse than single-task training, averaged over tasks."""

from collections.abc import Collection, Mapping

Measures = Mapping[str, Mapping[str, float]]


def task_changes(measures: Measures, baseline: Measures, lower_is_better: Collection[str] = ()) -> dict[str, float]:
    """Relative change of each task against its baseline, positive where it is better.

    ``1/m_k sum_i (-1)^l_ki (M_ki - S_ki) / S_ki`` for each task k with m_k metrics; l is 1 where lower is better.

    Args:
        measures: task -> metric -> value M.
        baseline: task -> metric -> value S of the single-task model; the same tasks and metrics.
        lower_is_better: names of the metrics (of any task) where a smaller value is better.

    Returns:
        task -> change; 0.01 is one percent better.

    Raises:
        ValueError: no task, tasks or metrics that differ between the two, or a baseline of 0.
    """
    if not measures or set(measures) != set(baseline):
        found = f"measures has tasks {sorted(measures)}, baseline has {sorted(baseline)}"
        raise ValueError(f"{found}: expected the same, at least one")
    changes = {}
    for task, metrics in measures.items():
        single = baseline[task]
        if not metrics or set(metrics) != set(single):
            raise ValueError(f"task {task!r}: measures has metrics {sorted(metrics)}, baseline has {sorted(single)}")
        total = 0.0
        for metric, value in metrics.items():
            if single[metric] == 0:
                raise ValueError(f"task {task!r}: the baseline's {metric!r} is 0, a relative change is undefined")
            change = (value - single[metric]) / single[metric]
            total += -change if metric in lower_is_better else change
        changes[task] = total / len(metrics)
    return changes


def delta_mtl(measures: Measures, baseline: Measures, lower_is_better: Collection[str] = ()) -> float:
    """Delta_MTL: the mean over tasks of :func:`task_changes`; each task counts once, however many metrics it has.

    Args:
        measures: task -> metric -> value.
        baseline: task -> metric -> value of the single-task model.
        lower_is_better: names of the metrics where a smaller value is better.

    Returns:
        A fraction; 0.01 is one percent better than single-task training on average.

    Raises:
        ValueError: as :func:`task_changes`.
    """
    changes = task_changes(measures, baseline, lower_is_better)
    return sum(changes.values()) / len(changes)
