"""A run: what describes it completely, and what comes out of it."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Measures = dict[str, dict[str, float]]


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Two runs of one configuration give the same numbers on one machine and torch version.

    Attributes:
        method: name of the method (`mtl-ext methods` lists them).
        method_options: hyper-parameters of the method.
        level: gradients with respect to the shared parameters or to the features; ignored by loss-level methods.
        tasks: names of the tasks to train; none means all of the data set.
        data: name of the data set.
        data_options: arguments of the data set, for example train_size.
        model: name of the network.
        model_options: arguments of the network, for example width.
        epochs: passes over the training split.
        batch_size: samples per step.
        optimizer: a class of torch.optim.
        optimizer_options: its arguments besides the learning rate, for the model's parameters.
        lr: learning rate of the model's parameters.
        method_lr: learning rate of the method's own parameters, if it has any; none means lr.
        schedule: how the learning rates fall from step to step: cosine (to 0) or constant.
        seed: of the initial parameters, the order of the samples and the method's draws.
        monitor_every: steps between measurements of gradient similarity; 0 measures nothing.
        device: where to train, for example cpu or cuda.
        threads: CPU threads; one is fastest for small networks on a busy machine.
    """

    method: str = "EW"
    method_options: dict[str, Any] = field(default_factory=dict)
    level: Literal["parameter", "feature"] = "parameter"
    tasks: tuple[str, ...] = ()
    data: str = "multi_mnist"
    data_options: dict[str, Any] = field(default_factory=dict)
    model: str = "small_conv"
    model_options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 4
    batch_size: int = 64
    optimizer: str = "Adam"
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    lr: float = 5e-3
    method_lr: float | None = None
    schedule: Literal["cosine", "constant"] = "cosine"
    seed: int = 0
    monitor_every: int = 10
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        """Refuses values that cannot train.

        Raises:
            ValueError: naming the field, what was found and what was expected.
        """
        for name, least in (("epochs", 1), ("batch_size", 1), ("threads", 1), ("monitor_every", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {least}")
        for name, choices in (("level", ("parameter", "feature")), ("schedule", ("cosine", "constant"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(choices)}")
        if not self.lr > 0:
            raise ValueError(f"lr is {self.lr}, expected a number above 0")


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave: means over its steps, and the test measures after it."""

    epoch: int
    losses: dict[str, float]
    weights: dict[str, float]
    measures: Measures


@dataclass(frozen=True)
class TrainResult:
    """What a run gave.

    Attributes:
        config: the run's description.
        epochs: one record per epoch.
        similarity: the monitor's records (see :class:`mtl_ext.monitors.SimilarityMonitor`).
        step_seconds: median wall-clock time of a training step.
    """

    config: TrainConfig
    epochs: list[EpochRecord]
    similarity: list[dict[str, float]]
    step_seconds: float

    @property
    def measures(self) -> Measures:
        """Task -> metric -> value on the test split after the last epoch."""
        return self.epochs[-1].measures

    def mean_similarity(self, name: str) -> float:
        """Mean over the run of one of the monitor's measures; NaN where nothing was measured."""
        values = [record[name] for record in self.similarity]
        return sum(values) / len(values) if values else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, for JSON."""
        return asdict(self)
