"""The loop that sees one batch per step: what nearly every method needs."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mtl_ext.data import Batch, MultiTaskData
from mtl_ext.gradients import Features
from mtl_ext.monitors import SimilarityMonitor
from mtl_ext.trainers.build import build_data, build_method, build_model, build_optimizer, choose_tasks
from mtl_ext.trainers.config import EpochRecord, Measures, TrainConfig, TrainResult


class SingleTrainer:
    """A model, a method and an optimiser on one data set, built from a configuration.

    Args:
        config: the run's description.
        data: the data set that the configuration describes, where it is loaded already.

    Raises:
        ValueError: the configuration names what does not exist.
    """

    def __init__(self, config: TrainConfig, data: MultiTaskData | None = None) -> None:
        self.config = config
        self.data = build_data(config) if data is None else data
        self.tasks = choose_tasks(config, self.data)
        self.model = build_model(config, self.tasks)
        self.method = build_method(config, len(self.tasks))
        self.optimizer = build_optimizer(config, self.model, self.method)
        self.monitor = SimilarityMonitor(config.monitor_every) if config.monitor_every else None
        self.device = torch.device(config.device)
        self.cuda_devices = [self.device] if self.device.type == "cuda" else []
        self.steps_per_epoch = -(-len(self.data.train) // config.batch_size)
        self.schedule = self._make_schedule()
        self.steps_done = 0

    def step(self, *batches: Batch) -> tuple[list[float], Tensor]:
        """One training step.

        Args:
            batches: B samples on the trainer's device; several, where the method takes so many in a step.

        Returns:
            The K losses of the last batch before the step and the method's weights [K] float64.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        several = [self._losses(batch) for batch in batches]
        features, losses = several[-1]
        values = self._finite_values(losses)
        shared = self.model.shared_parameters()
        if self.monitor is not None:
            self.monitor.observe(losses, shared, features)
        self.optimizer.zero_grad()
        all_losses: Any = losses if len(batches) == 1 else [losses for _, losses in several]
        if self.config.level == "feature":
            all_features: Any = features if len(batches) == 1 else [features for features, _ in several]
            weights = self.method.backward(all_losses, features=all_features)
        else:
            weights = self.method.backward(all_losses, shared=shared)
        self.optimizer.step()
        if self.method.second_look:
            with torch.no_grad():
                self.method.look_again(self._losses(batches[-1])[1])
        self.schedule.step()
        self.steps_done += 1
        return values, weights

    def fit(
        self,
        on_step: Callable[[], object] = lambda: None,
        on_epoch: Callable[[EpochRecord], object] = lambda record: None,
    ) -> TrainResult:
        """Trains for the configured epochs and measures on the test split after each.

        Args:
            on_step: called after every step.
            on_epoch: called with every epoch's record.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        order = torch.Generator().manual_seed(self.config.seed)
        records, seconds = [], []
        # The global generator serves whatever draws in a forward pass (dropout); the caller's is left as it was.
        with cpu_threads(self.config.threads), torch.random.fork_rng(self.cuda_devices):
            torch.manual_seed(self.config.seed)
            for epoch in range(1, self.config.epochs + 1):
                losses, weights = [], []
                self.model.train()
                # Independent passes over the samples, where the method takes several batches in a step.
                passes = [self._pass(order) for _ in range(self.method.batches)]
                for batches in zip(*passes, strict=True):
                    start = time.perf_counter()
                    step_losses, step_weights = self.step(*(batch.to(self.device) for batch in batches))
                    seconds.append(time.perf_counter() - start)
                    losses.append(step_losses)
                    weights.append(step_weights)
                    on_step()
                self.method.end_epoch()
                means = torch.tensor(losses, dtype=torch.float64).mean(0).tolist()
                mean_weights = torch.stack(weights).mean(0).tolist()
                records.append(EpochRecord(epoch, self._named(means), self._named(mean_weights), self.evaluate()))
                on_epoch(records[-1])
        similarity = [] if self.monitor is None else self.monitor.records
        return TrainResult(self.config, records, similarity, statistics.median(seconds))

    @torch.no_grad()
    def evaluate(self) -> Measures:
        """Task -> metric -> value on the test split."""
        self.model.eval()
        metrics = {task.name: [make() for make in task.metrics] for task in self.tasks}
        for batch in self.data.test.batches(self.config.batch_size):
            batch = batch.to(self.device)
            outputs = self.model(batch.inputs)
            for name, accumulators in metrics.items():
                for metric in accumulators:
                    metric.update(outputs[name], batch.targets[name])
        return {name: {metric.name: metric.compute() for metric in group} for name, group in metrics.items()}

    def _losses(self, batch: Batch) -> tuple[Features, dict[str, Tensor]]:
        """Features and losses of a batch."""
        features = self.model.features(batch.inputs)
        outputs = self.model.outputs(features)
        return features, {task.name: task.loss(outputs[task.name], batch.targets[task.name]) for task in self.tasks}

    def _pass(self, order: torch.Generator) -> Iterator[Batch]:
        """One shuffled pass over the training samples."""
        return self.data.train.batches(self.config.batch_size, order)

    def _make_schedule(self) -> torch.optim.lr_scheduler.LRScheduler:
        if self.config.schedule == "constant":
            return torch.optim.lr_scheduler.ConstantLR(self.optimizer, factor=1.0)
        total = self.config.epochs * self.steps_per_epoch
        return torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, total)

    def _finite_values(self, losses: dict[str, Tensor]) -> list[float]:
        values: list[float] = torch.stack([loss.detach() for loss in losses.values()]).tolist()
        for name, value in zip(losses, values, strict=True):
            if not abs(value) < float("inf"):
                hint = "lower lr, or check the data of this task"
                raise FloatingPointError(f"the loss of task {name!r} is {value} at step {self.steps_done}: {hint}")
        return values

    def _named(self, values: list[float]) -> dict[str, float]:
        return {task.name: value for task, value in zip(self.tasks, values, strict=True)}


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Sets torch's number of CPU threads inside a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
