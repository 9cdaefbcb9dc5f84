"""Measures on a split, and what methods learn of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext.data import Inputs, Split, Task
from mtl_ext.trainers.build import Parts
from mtl_ext.trainers.forward import Forward
from mtl_ext.trainers.results import Measures

LEAST_PERFORMANCE = 1e-3


@torch.no_grad()
def evaluate(parts: Parts, forward: Forward, split: Split) -> Measures:
    """Task -> metric -> value on a split; tasks with inputs of their own are measured on these alone."""
    parts.model.eval()
    metrics = {task.name: [make() for make in task.metrics] for task in parts.measured}
    first = None
    for batch in split.batches(parts.config.batch_size):
        batch = batch.to(parts.device)
        first = batch.inputs if first is None else first
        outputs = forward(batch._replace(inputs=_without_empty(batch.inputs, first)))
        for name, accumulators in metrics.items():
            if len(batch.targets[name]):
                for metric in accumulators:
                    metric.update(outputs[name], batch.targets[name])
    return {name: {metric.name: metric.compute() for metric in group} for name, group in metrics.items()}


def _without_empty(inputs: Inputs, first: Inputs) -> Inputs:
    """The inputs, with an earlier sample where a task's own stream has ended: not every layer takes 0 samples."""
    if isinstance(inputs, Tensor) or isinstance(first, Tensor):
        return inputs
    return {task: own if len(own) else first[task][:1] for task, own in inputs.items()}


def lower_is_better(tasks: Sequence[Task]) -> set[str]:
    """Names of the metrics where a smaller value is better."""
    metrics = (make() for task in tasks for make in task.metrics)
    return {metric.name for metric in metrics if not metric.higher_is_better}


def performances(measures: Measures, tasks: Sequence[Task]) -> list[float]:
    """How well each task does, in (0, 1], from its first metric, for methods that go by it.

    A percentage that is better when higher counts as a fraction; an error e as ``1 / (1 + e)``, a percentage of errors
    as what is left to 1. Values below 0.001 count as 0.001.

    Args:
        measures: task -> metric -> value on validation data.
        tasks: the K tasks, in order.
    """
    values = []
    for task in tasks:
        metric = task.metrics[0]()
        value = measures[task.name][metric.name]
        if "%" in metric.name:
            value = value / 100 if metric.higher_is_better else 1 - value / 100
        elif not metric.higher_is_better:
            value = 1 / (1 + value)
        # NaN stays NaN, which the method refuses with the task's place.
        values.append(min(max(value, LEAST_PERFORMANCE), 1.0) if value == value else value)
    return values
