"""The loop: epochs of steps, evaluations and checkpoints, whatever the method."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtl_ext.data import MultiTaskData
from mtl_ext.trainers.bilevel import BilevelStep
from mtl_ext.trainers.build import build_parts
from mtl_ext.trainers.checkpoint import load_checkpoint, save_checkpoint
from mtl_ext.trainers.config import TrainConfig
from mtl_ext.trainers.evaluation import evaluate, performances
from mtl_ext.trainers.forward import Forward
from mtl_ext.trainers.interrupt import RunInterrupted, deferred_interrupt
from mtl_ext.trainers.results import EpochRecord, Measures, StepRecord, TrainResult
from mtl_ext.trainers.schedules import make_schedule
from mtl_ext.trainers.selection import Selection
from mtl_ext.trainers.steps import Step


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: being trained, counted from 1; one more than there are when all are done.
        step: steps done in this epoch.
        order: state of the generator of the order of the samples at the epoch's start.
        losses: [K] float64, sums over the epoch's steps.
        weights: the same of the method's weights.
        records: of the finished epochs.
        rows: of steps, where steps are logged.
    """

    order: Tensor
    losses: Tensor
    weights: Tensor
    epoch: int = 1
    step: int = 0
    records: list[EpochRecord] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "Progress":
        """From what `state_dict` gave."""
        return cls(**{**state, "records": [EpochRecord(**record) for record in state["records"]]})


class Trainer:
    """A model, a method and an optimizer on one data set, built from a configuration.

    Args:
        config: the run's description.
        data: the data set that the configuration describes, where it is loaded already.

    Attributes:
        parts: model, method, optimizer and what else the run is made of.
        step: what is called with the batches of each step.
        steps_per_epoch: steps of the optimizer in an epoch.

    Raises:
        ValueError: the configuration names what does not exist or does not go together.
    """

    def __init__(self, config: TrainConfig, data: MultiTaskData | None = None) -> None:
        self.config = config
        self.parts = build_parts(config, data)
        self.step = Step(self.parts) if self.parts.meta is None else BilevelStep(self.parts)
        deployed = self.parts.model.deployed()
        whole = deployed is self.parts.model
        self._evaluated = self.step.forward if whole else Forward(self.parts, deployed)
        self.selection = Selection(config, self.parts.measured)
        batches = -(-len(self.parts.data.train) // config.batch_size)
        self.steps_per_epoch = -(-batches // config.accumulate)
        self._schedule = make_schedule(config, self.steps_per_epoch)
        self._base_lrs = [group["lr"] for group in self.parts.optimizer.param_groups]
        self._order = torch.Generator().manual_seed(config.seed)
        self.progress = Progress(self._order.get_state(), *self._zeros())
        self._cuda = [self.parts.device] if self.parts.device.type == "cuda" else []
        self._global_draws: dict[str, Tensor] = {}
        self._seconds: deque[float] = deque(maxlen=1000)

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or waiting for a better one has ended."""
        return self.progress.epoch > self.config.epochs or self.selection.is_exhausted

    @property
    def total_steps(self) -> int:
        """Steps of the whole run, if it does not end early."""
        return self.config.epochs * self.steps_per_epoch

    @property
    def steps_done(self) -> int:
        """Steps since the beginning of the run."""
        return (self.progress.epoch - 1) * self.steps_per_epoch + self.progress.step

    def fit(
        self,
        on_step: Callable[[StepRecord], object] | None = None,
        on_epoch: Callable[[EpochRecord], object] | None = None,
        checkpoint: Path | None = None,
    ) -> TrainResult:
        """Trains to the end, from the beginning or from where a checkpoint was.

        Afterwards the model is that of the selected epoch.

        Args:
            on_step: called after every step.
            on_epoch: called with every epoch's record.
            checkpoint: file to save the state in, as often as the configuration says; with one, Ctrl-C first saves.

        Raises:
            FloatingPointError: a loss is not finite.
            RunInterrupted: Ctrl-C.
        """
        on_step, on_epoch = on_step or (lambda record: None), on_epoch or (lambda record: None)
        # The global generators serve whatever draws in a forward pass (dropout); the caller's are left as they were.
        with (
            cpu_threads(self.config.threads),
            torch.random.fork_rng(self._cuda),
            deferred_interrupt(checkpoint is not None) as interrupt,
        ):
            self._seed_global_draws()
            while not self.is_finished:
                for record in self._train_epoch():
                    on_step(record)
                    self._save_if_due(checkpoint, self.config.checkpoint_steps, self.steps_done, interrupt.is_set)
                on_epoch(self._end_epoch())
                epoch = self.progress.epoch - 1
                self._save_if_due(
                    checkpoint, self.config.checkpoint_every, epoch, interrupt.is_set, at_end=self.is_finished
                )
        if self.selection.model is not None:
            self.parts.model.load_state_dict(self.selection.model)
        return self._result()

    def evaluate(self) -> Measures:
        """Task -> metric -> value on the test split."""
        return evaluate(self.parts, self._evaluated, self.parts.data.test)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes during a run: tensors, numbers and plain containers."""
        parts = self.parts
        return {
            "model": parts.model.state_dict(),
            "method": parts.method.state_dict(),
            "optimizer": parts.optimizer.state_dict(),
            "scaler": None if parts.scaler is None else parts.scaler.state_dict(),
            "monitor": None if parts.monitor is None else parts.monitor.state_dict(),
            "penalty": None if parts.penalty is None else parts.penalty.state_dict(),
            "selection": self.selection.state_dict(),
            "progress": self.progress.state_dict(),
            "global_draws": self._global_draws_now(),
        }

    def load(self, path: Path) -> None:
        """Goes on from a checkpoint.

        Raises:
            ValueError: the file is damaged, or belongs to another configuration.
        """
        state, parts = load_checkpoint(path, self.config), self.parts
        try:
            for name in ("model", "method", "optimizer", "scaler", "monitor", "penalty"):
                part = getattr(parts, name)
                if part is not None:
                    part.load_state_dict(state[name])
            self.selection.load_state_dict(state["selection"])
            self.progress = Progress.from_state_dict(state["progress"])
            self._global_draws = state["global_draws"]
        except (KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"{path} was written by another version of model or method: {error}") from error

    def _train_epoch(self) -> Iterator[StepRecord]:
        """The rest of the epoch, step by step."""
        parts, progress = self.parts, self.progress
        self._order.set_state(progress.order)
        parts.model.train()
        for group in self.step.batches(self._order, progress.step):
            share = self._schedule(self.steps_done)
            for param_group, lr in zip(parts.optimizer.param_groups, self._base_lrs, strict=True):
                param_group["lr"] = share * lr
            start = time.perf_counter()
            losses, weights = self._step(group)
            self._seconds.append(time.perf_counter() - start)
            progress.losses += torch.tensor(losses, dtype=torch.float64)
            progress.weights += weights
            progress.step += 1
            is_logged = self.config.log_steps and self.steps_done % self.config.log_steps == 0
            record = StepRecord(
                self.steps_done,
                self.total_steps,
                progress.epoch,
                self._named(losses),
                self._named(weights.tolist()),
                parts.method.logged if is_logged else {},
            )
            if is_logged:
                progress.rows.append(record.row())
            yield record

    def _step(self, group: Any) -> tuple[list[float], Tensor]:
        try:
            return self.step(group)
        except FloatingPointError as error:
            raise FloatingPointError(f"step {self.steps_done + 1} of {self.total_steps}: {error}") from error

    def _end_epoch(self) -> EpochRecord:
        """Evaluates, tells method and selection, and goes on to the next epoch."""
        parts, progress, epoch = self.parts, self.progress, self.progress.epoch
        parts.method.end_epoch()
        is_due = epoch % self.config.eval_every == 0 or epoch == self.config.epochs
        data, forward = parts.data, self._evaluated
        record = EpochRecord(
            epoch,
            self._named((progress.losses / progress.step).tolist()),
            self._named((progress.weights / progress.step).tolist()),
            parts.optimizer.param_groups[0]["lr"],
            measures=evaluate(parts, forward, data.test) if is_due else {},
            val=evaluate(parts, forward, data.val) if is_due and data.val is not None else {},
        )
        if is_due:
            self.selection.update(record, parts.model)
        if record.val and parts.method.wants_performance:
            parts.method.update_performance(performances(record.val, parts.tasks))
        progress.records.append(record)
        progress.epoch, progress.step = epoch + 1, 0
        progress.order = self._order.get_state()
        progress.losses, progress.weights = self._zeros()
        return record

    def _save_if_due(
        self, checkpoint: Path | None, every: int, count: int, interrupted: bool, at_end: bool = False
    ) -> None:
        """Saves every so often, at the end, and before Ctrl-C ends the run."""
        if checkpoint is None:
            return
        if interrupted or at_end or (every and count % every == 0):
            save_checkpoint(checkpoint, self.config, self.state_dict())
        if interrupted and not self.is_finished:
            done = f"{self.steps_done} of {self.total_steps} steps"
            raise RunInterrupted(
                f"interrupted after {done}, nothing is lost: mtl-ext train --out {checkpoint.parent} --resume"
            )

    def _seed_global_draws(self) -> None:
        if not self._global_draws:
            torch.manual_seed(self.config.seed)
            return
        torch.set_rng_state(self._global_draws["cpu"])
        if self._cuda:
            torch.cuda.set_rng_state(self._global_draws["cuda"], self.parts.device)

    def _global_draws_now(self) -> dict[str, Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self._cuda:
            states["cuda"] = torch.cuda.get_rng_state(self.parts.device)
        return states

    def _result(self) -> TrainResult:
        data, progress = self.parts.data, self.progress
        return TrainResult(
            config=self.config,
            samples={"train": len(data.train), "val": len(data.val or ()), "test": len(data.test)},
            epochs=progress.records,
            selected_epoch=self.selection.epoch,
            selected_on_test=self.selection.on_test,
            baseline=self.selection.baseline,
            stopped_early=len(progress.records) < self.config.epochs,
            similarity=[] if self.parts.monitor is None else self.parts.monitor.records,
            step_seconds=statistics.median(self._seconds) if self._seconds else float("nan"),
        )

    def _zeros(self) -> tuple[Tensor, Tensor]:
        count = len(self.parts.tasks)
        return torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)

    def _named(self, values: list[float]) -> dict[str, float]:
        return {task.name: value for task, value in zip(self.parts.tasks, values, strict=True)}


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Sets torch's number of CPU threads inside a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
