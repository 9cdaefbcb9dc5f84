"""From a run's description to its parts."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from mtl_ext.bilevel.meta_data import meta_share
from mtl_ext.comparators import PTA, SAM
from mtl_ext.data import DATASETS, MultiTaskData, Split, Task, hold_out
from mtl_ext.methods import METHODS, Method
from mtl_ext.models import MODELS, Architecture, Branched, HardSharing, SelfAuxiliaries
from mtl_ext.models.self_auxiliary import all_pairs, self_auxiliary_tasks
from mtl_ext.monitors import SimilarityMonitor
from mtl_ext.penalties import PENALTIES
from mtl_ext.task_names import split_name
from mtl_ext.trainers.config import TrainConfig

# What the trainer hands to a maker of a kind that asks for it by name; not for the user to set.
PROVIDED = {
    "model": ("tasks",),
    "method": ("num_tasks", "generator"),
    "optimizer": ("params", "lr"),
    "penalty": ("heads", "losses"),
}


@dataclass
class Parts:
    """What a run trains with.

    Attributes:
        config: what describes the run.
        data: the data set; its validation split may be held out of its training split.
        tasks: the K tasks that are trained, in order.
        model: the network.
        method: what makes one step of K losses.
        penalty: maker of what joins the tasks' gradients in every batch, or None.
        optimizer: of the model's and the method's parameters.
        sam: what looks for the worst parameters nearby before every step, or None.
        scaler: of the losses, in float16; else None.
        monitor: of the tasks' gradients, or None.
        meta: where a method that looks ahead gets its other batches from; else None.
        device: where all of it is.
    """

    config: TrainConfig
    data: MultiTaskData
    tasks: list[Task]
    model: Architecture
    method: Method
    penalty: nn.Module | None
    optimizer: torch.optim.Optimizer
    sam: SAM | None
    scaler: torch.amp.GradScaler | None
    monitor: SimilarityMonitor | None
    meta: Split | None
    device: torch.device

    @property
    def measured(self) -> list[Task]:
        """The tasks that have metrics."""
        return [task for task in self.tasks if task.metrics]


def build_parts(config: TrainConfig, data: MultiTaskData | None = None) -> Parts:
    """Everything that a configuration describes.

    Args:
        config: the run's description.
        data: the data set that the configuration names, where it is loaded already.

    Raises:
        ValueError: the configuration names what does not exist, or does not fit the data set or the method.
    """
    data = validated(config, build_data(config) if data is None else data)
    tasks = choose_tasks(config, data)
    model, tasks = with_self_auxiliaries(config, build_model(config, tasks), tasks)
    method = build_method(config, len(tasks))
    if method.wants_performance and data.val is None:
        raise ValueError(
            f"method {config.method!r} goes by validation measures, but the data set has no validation split: set "
            "holdout, for example to 0.1"
        )
    meta = None
    if method.bilevel:
        data, meta = with_meta_data(config, data)
    at_parameters = method.level == "gradient" and config.level == "parameter"
    if config.accumulate > 1 and config.accumulate_by == "tasks" and not at_parameters:
        raise ValueError(
            "accumulate_by is 'tasks', which sums the tasks' gradients at the shared parameters: take a gradient "
            "method and level parameter, or accumulate_by combined"
        )
    optimizer = build_optimizer(config, model, method)
    scaler = torch.amp.GradScaler(torch.device(config.device).type) if config.precision == "float16" else None
    sam = None if config.sam_rho is None else SAM(optimizer, model, rho=config.sam_rho, scaler=scaler)
    return Parts(
        config=config,
        data=data,
        tasks=tasks,
        model=model,
        method=method,
        penalty=build_penalty(config, model, tasks),
        optimizer=optimizer,
        sam=sam,
        scaler=scaler,
        monitor=SimilarityMonitor(config.monitor_every) if config.monitor_every else None,
        meta=meta,
        device=torch.device(config.device),
    )


def with_meta_data(config: TrainConfig, data: MultiTaskData) -> tuple[MultiTaskData, Split]:
    """The data set, and where the meta batches come from: its training split again, or what is held out of it."""
    share = meta_share(config.meta_data)
    if share == 0:
        return data, data.train
    train, meta = hold_out(data.train, share, config.seed)
    return replace(data, train=train), meta


def validated(config: TrainConfig, data: MultiTaskData) -> MultiTaskData:
    """The data set with a validation split, held out of the training split where the configuration says so.

    Raises:
        ValueError: there is a validation split already, or `select` needs one and there is none.
    """
    if config.holdout:
        if data.val is not None:
            raise ValueError(f"holdout is {config.holdout}, but the data set has a validation split: leave it at 0")
        train, held = hold_out(data.train, config.holdout, config.seed)
        return replace(data, train=train, val=held)
    if config.select.startswith("best_val") and data.val is None:
        raise ValueError(
            f"select is {config.select!r}, but the data set has no validation split: set holdout, for example to 0.1"
        )
    return data


def build_data(config: TrainConfig) -> MultiTaskData:
    """The data set that a configuration names.

    Raises:
        ValueError: an unknown data set or option.
    """
    maker = _lookup("data set", config.data, DATASETS, config.data_options)
    data: MultiTaskData = maker(**config.data_options)
    return data


def choose_tasks(config: TrainConfig, data: MultiTaskData) -> list[Task]:
    """The tasks that a configuration trains, in the configuration's order.

    Raises:
        ValueError: a name that is no task of the data set, or twice the same.
    """
    if not config.tasks:
        return list(data.tasks)
    by_name = {task.name: task for task in data.tasks}
    for name in config.tasks:
        if name not in by_name or config.tasks.count(name) > 1:
            raise ValueError(f"tasks holds {name!r}, expected different names of {', '.join(by_name)}")
    return [by_name[name] for name in config.tasks]


def build_model(config: TrainConfig, tasks: Sequence[Task]) -> Architecture:
    """The network, with initial parameters drawn from the configuration's seed.

    Raises:
        ValueError: an unknown network or option.
    """
    maker = _lookup("model", config.model, MODELS, config.model_options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model: Architecture = maker(tasks, **config.model_options)
        if config.decoders > 1:
            if not isinstance(model, HardSharing):
                raise ValueError(f"decoders is {config.decoders}, which model {config.model!r} cannot take: leave it 1")
            for task in model.tasks:
                model.heads[task] = PTA(model.head(task), decoders=config.decoders)
    return model.to(config.device)


def with_self_auxiliaries(
    config: TrainConfig, model: Architecture, tasks: list[Task]
) -> tuple[Architecture, list[Task]]:
    """The network and the tasks, with the self-auxiliary tasks that the configuration names.

    Raises:
        ValueError: the network has no branches, or a name is that of no pair of its tasks.
    """
    if not config.self_auxiliaries:
        return model, tasks
    if not isinstance(model, Branched):
        raise ValueError(
            f"self_auxiliaries need a network in which each task has a path of its own, which model {config.model!r} "
            "has not: take half_shared"
        )
    every = list(config.self_auxiliaries) == ["all"]
    pairs = all_pairs(model.tasks) if every else [split_name(name) for name in config.self_auxiliaries]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        wrapped = SelfAuxiliaries(model, pairs)
    return wrapped.to(config.device), [*tasks, *self_auxiliary_tasks(tasks, pairs)]


def build_penalty(config: TrainConfig, model: Architecture, tasks: Sequence[Task]) -> nn.Module | None:
    """The penalty on the measured tasks' heads, or None.

    Raises:
        ValueError: an unknown penalty or option, or one without its strength.
    """
    if config.penalty is None:
        return None
    maker = _lookup("penalty", config.penalty, PENALTIES, config.penalty_options)
    measured = [task for task in tasks if task.metrics]
    heads = {task.name: model.head(task.name) for task in measured}
    losses = {task.name: task.loss for task in measured}
    penalty: nn.Module = maker(heads, losses, **{"seed": config.seed, **config.penalty_options})
    return penalty.to(config.device)


def build_method(config: TrainConfig, num_tasks: int) -> Method:
    """The method; the number of tasks and the run's seed go to a method that asks for them.

    An option ``method``, of a method that wraps another, is that one's name, or a mapping of ``name`` and its options.

    Raises:
        ValueError: an unknown method or option.
    """
    provided = {"num_tasks": num_tasks, "seed": config.seed}
    return _named_method(config.method, config.method_options, provided).to(config.device)


def _named_method(name: str, options: Mapping[str, Any], provided: Mapping[str, Any]) -> Method:
    maker = _lookup("method", name, METHODS, options)
    asked = inspect.signature(maker).parameters
    arguments = {key: value for key, value in provided.items() if key in asked} | dict(options)
    if "method" in options:
        inner = options["method"]
        inner = {"name": inner} if isinstance(inner, str) else inner
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise ValueError(f"method {name!r} has the option method: {inner!r}, expected a name, or name and options")
        inner_options = {key: value for key, value in inner.items() if key != "name"}
        arguments["method"] = _named_method(inner["name"], inner_options, provided)
    method: Method = maker(**arguments)
    return method


def build_optimizer(config: TrainConfig, model: nn.Module, method: nn.Module) -> torch.optim.Optimizer:
    """The optimiser; the method's own parameters form a group of their own, without weight decay.

    Raises:
        ValueError: no such class in torch.optim, or an option that it does not take.
    """
    base = torch.optim.Optimizer
    classes = {name: value for name, value in vars(torch.optim).items() if inspect.isclass(value)}
    optimizers = {name: value for name, value in classes.items() if issubclass(value, base) and value is not base}
    maker = _lookup("optimizer", config.optimizer, optimizers, config.optimizer_options)
    groups: list[dict[str, Any]] = [{"params": list(model.parameters()), **config.optimizer_options}]
    own = list(method.parameters())
    if own:
        lr = config.lr if config.method_lr is None else config.method_lr
        groups.append({"params": own, "lr": lr, **config.optimizer_options, "weight_decay": 0.0})
    optimizer: torch.optim.Optimizer = maker(groups, lr=config.lr)
    return optimizer


def _lookup(
    kind: str, name: str, choices: Mapping[str, Callable[..., Any]], options: Mapping[str, Any]
) -> Callable[..., Any]:
    """The maker of a name, after checking that it exists and takes the options."""
    if name not in choices:
        raise ValueError(f"there is no {kind} {name!r}; there are {', '.join(choices)}")
    maker = choices[name]
    parameters = inspect.signature(maker).parameters
    known = [parameter for parameter in parameters if parameter not in PROVIDED.get(kind, ())]
    for option in options:
        if option not in known:
            raise ValueError(f"{kind} {name!r} has no option {option!r}; it has {', '.join(known) or 'none'}")
    for option in known:
        if parameters[option].default is inspect.Parameter.empty and option not in options:
            raise ValueError(f"{kind} {name!r} needs the option {option!r}")
    return maker
