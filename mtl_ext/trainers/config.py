"""What describes a run completely."""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from mtl_ext.bilevel.meta_data import meta_share
from mtl_ext.files import write_text
from mtl_ext.methods.base import check_choice, check_range

Level = Literal["parameter", "feature"]
Schedule = Literal["cosine", "poly", "step", "constant"]
Precision = Literal["float32", "bfloat16", "float16"]
AccumulateBy = Literal["combined", "tasks"]

CHOICES = {"level": Level, "schedule": Schedule, "precision": Precision, "accumulate_by": AccumulateBy}
AT_LEAST = {
    "epochs": 1,
    "decoders": 1,
    "batch_size": 1,
    "accumulate": 1,
    "threads": 1,
    "eval_every": 1,
    "warmup_steps": 0,
    "early_stop": 0,
    "checkpoint_every": 0,
    "checkpoint_steps": 0,
    "log_steps": 0,
    "monitor_every": 0,
}


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Two runs of one configuration give the same numbers on one machine and torch version.

    Attributes:
        method: name of the method (`mtl-ext methods` lists them).
        method_options: hyper-parameters of the method.
        level: gradients with respect to the shared parameters or to the features; ignored by loss-level methods.
        normalise: bring every combined gradient of the shared parameters to the length of the summed gradient, that of
            equal weighting: a control, for what methods do by the length of their steps alone. One backward pass more.
        penalty: name of a penalty that joins every task's gradient (DGR). None: no penalty.
        penalty_options: its options, for example strength.
        sam_rho: length of the ascent of sharpness-aware minimisation (SAM) before every step. None: no ascent.
        decoders: of every task, trained together; the first predicts (PTA). 1: the head alone.
        self_auxiliaries: names SOURCE->TARGET of the self-auxiliary tasks: they learn the source's labels on the
            target's path, and are gone after training. One name "all": every pair. For networks with branches.
        frozen_heads: names of tasks whose heads keep their initial parameters: broken tasks, which the encoder alone
            can serve.
        tasks: names of the tasks to train; none means all of the data set.
        data: name of the data set.
        data_options: arguments of the data set, for example train_size.
        meta_data: where a method that looks ahead (AutoLambda) gets its other batches from: train_reshuffle (the
            training samples in another order) or holdout:SHARE (samples that are not trained on).
        holdout: share of the training split that is held out for validation, drawn from the seed, in [0, 1); for data
            sets without a validation split.
        model: name of the network.
        model_options: arguments of the network, for example width.
        epochs: passes over the training split.
        batch_size: samples per forward pass; of each task, where tasks have inputs of their own.
        accumulate: batches (of batch_size) per step of the optimizer; the last step of an epoch may have fewer.
        accumulate_by: combined - the method combines the tasks' gradients of every batch, and the step takes the
            samples' mean of the combinations; tasks - each task's gradients are summed over the batches first, as one
            large batch would give them (gradient methods at parameter level).
        optimizer: a class of torch.optim.
        optimizer_options: its arguments besides the learning rate, for the model's parameters.
        lr: learning rate of the model's parameters.
        method_lr: learning rate of the method's own parameters, if it has any; none means lr.
        schedule: how the learning rates fall from step to step: cosine (to 0), poly, step or constant.
        schedule_options: floor of cosine (share of lr, 0); power of poly (0.9); every (epochs) and factor (0.5) of
            step.
        warmup_steps: steps over which the learning rates first rise from near 0, in a straight line.
        clip_norm: largest norm of all gradients of the model together; longer ones are shortened. None: no limit.
        precision: of the forward passes: float32, bfloat16, or float16 with a scaled loss (CUDA only). Parameters,
            losses and the optimizer stay in float32.
        compile: compile the network, shared part and heads each for itself, with torch.compile.
        compile_options: arguments of torch.compile, for example mode.
        eval_every: epochs between two evaluations; the last epoch is always evaluated.
        select: the epoch whose network and measures are the result: last; best_val_delta (by Delta_MTL) or
            best_val_TASK/METRIC on the validation split; best_test (by Delta_MTL on the test split: a published habit,
            too optimistic, and marked in the results).
        baseline: the single-task measures (task -> metric -> value) that Delta_MTL refers to, or a JSON file of them.
            None: the measures of the run's first evaluation.
        early_stop: evaluations without a better value of select after which training ends; 0: never.
        checkpoint_every: epochs between two checkpoints of a run with a folder; 0: none by epochs.
        checkpoint_steps: steps between two checkpoints, in addition; 0: none by steps.
        log_steps: steps between two rows of steps.csv; 0: no such file.
        monitor_every: steps between measurements of gradient similarity; 0 measures nothing.
        seed: of the initial parameters, the order of the samples, what is held out, and the method's draws.
        device: where to train, for example cpu or cuda.
        threads: CPU threads; one is fastest for small networks on a busy machine.
    """

    method: str = "EW"
    method_options: dict[str, Any] = field(default_factory=dict)
    level: Level = "parameter"
    normalise: bool = False
    penalty: str | None = None
    penalty_options: dict[str, Any] = field(default_factory=dict)
    sam_rho: float | None = None
    decoders: int = 1
    self_auxiliaries: tuple[str, ...] = ()
    frozen_heads: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    data: str = "multi_mnist"
    data_options: dict[str, Any] = field(default_factory=dict)
    meta_data: str = "train_reshuffle"
    holdout: float = 0.0
    model: str = "small_conv"
    model_options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 4
    batch_size: int = 64
    accumulate: int = 1
    accumulate_by: AccumulateBy = "combined"
    optimizer: str = "Adam"
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    lr: float = 5e-3
    method_lr: float | None = None
    schedule: Schedule = "cosine"
    schedule_options: dict[str, Any] = field(default_factory=dict)
    warmup_steps: int = 0
    clip_norm: float | None = None
    precision: Precision = "float32"
    compile: bool = False
    compile_options: dict[str, Any] = field(default_factory=dict)
    eval_every: int = 1
    select: str = "last"
    baseline: dict[str, dict[str, float]] | str | None = None
    early_stop: int = 0
    checkpoint_every: int = 1
    checkpoint_steps: int = 0
    log_steps: int = 0
    monitor_every: int = 10
    seed: int = 0
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        """Refuses values that cannot train.

        Raises:
            ValueError: naming the field, what was found and what was expected.
        """
        for name, least in AT_LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int):
                raise ValueError(f"{name} is {value!r}, expected a whole number of at least {least}")
            check_range(name, value, least)
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), get_args(choices))
        for name in ("lr", "holdout", "clip_norm", "method_lr", "sam_rho"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, (int, float)):
                raise ValueError(f"{name} is {value!r}, expected a number")
            if name == "holdout":
                check_range(name, value, 0.0, 1.0, open_high=True)
            else:
                check_range(name, value, 0.0, open_low=True)
        if self.precision == "float16" and not self.device.startswith("cuda"):
            raise ValueError(f"precision is 'float16' on {self.device}, expected a CUDA device: take 'bfloat16' here")
        if self.normalise and self.accumulate > 1:
            raise ValueError(f"normalise goes by one batch's gradient: expected accumulate 1, not {self.accumulate}")
        if self.penalty is not None and self.decoders > 1:
            raise ValueError(f"penalty is on one head per task: expected decoders 1, not {self.decoders}")
        meta_share(self.meta_data)
        self._check_selection()

    def _check_selection(self) -> None:
        task, _, metric = self.select.removeprefix("best_val_").partition("/")
        named = self.select.startswith("best_val_") and bool(task and metric)
        if not named and self.select not in ("last", "best_val_delta", "best_test"):
            expected = "last, best_val_delta, best_val_TASK/METRIC or best_test"
            raise ValueError(f"select is {self.select!r}, expected {expected}")
        if self.early_stop and self.select == "last":
            raise ValueError("early_stop needs to know what is better: set select to best_val_delta or another best_")

    def save(self, path: Path) -> None:
        """Writes the whole configuration as a YAML file, which `mtl-ext train --config` and `load` read.

        Raises:
            ModuleNotFoundError: PyYAML is not installed.
        """
        content = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        write_text(path, _yaml().safe_dump(content, sort_keys=False))

    @classmethod
    def load(cls, path: Path) -> "TrainConfig":
        """Reads a YAML file with any of the fields.

        Raises:
            ValueError: naming the file and the field that does not exist or has a value that cannot train.
            ModuleNotFoundError: PyYAML is not installed.
        """
        yaml = _yaml()
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), _yaml_loader(yaml))
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is no YAML file: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path} holds {type(content).__name__}, expected fields and their values")
        unknown = [name for name in content if name not in cls.__dataclass_fields__]
        if unknown:
            raise ValueError(
                f"{path}: there is no field {unknown[0]!r}; there are {', '.join(cls.__dataclass_fields__)}"
            )
        try:
            lists = {name: tuple(content.get(name, ())) for name in ("tasks", "self_auxiliaries", "frozen_heads")}
            return cls(**{**content, **lists})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error


def _yaml_loader(yaml: Any) -> Any:
    """A safe loader that also takes 1e-3, without a point, for a number."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        pass

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    return Loader


def _yaml() -> Any:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('a run\'s files need PyYAML: pip install "mtl_ext[train]"') from error
    return yaml
