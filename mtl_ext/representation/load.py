"""A finished run's network and data, from its folder."""

from dataclasses import dataclass, replace
from pathlib import Path

from mtl_ext.data import MultiTaskData, Task
from mtl_ext.models import Architecture
from mtl_ext.models.weights import load_weights
from mtl_ext.trainers.build import build_data, build_model, choose_tasks, validated
from mtl_ext.trainers.config import TrainConfig


@dataclass(frozen=True)
class LoadedRun:
    """What a run has left.

    Attributes:
        config: the run's description.
        data: the data set, with the validation split that the run held out; what a method that looks ahead held out
            for its meta batches is in the training split.
        tasks: the K tasks that were trained, in order.
        model: the network with the selected parameters, in evaluation mode.
    """

    config: TrainConfig
    data: MultiTaskData
    tasks: list[Task]
    model: Architecture


def load_run(folder: Path, data: MultiTaskData | None = None, *, device: str = "cpu") -> LoadedRun:
    """Loads what `train_run` wrote; nothing but tensors is unpickled.

    Args:
        folder: of the run.
        data: the data set that the run's configuration describes, where it is loaded already.
        device: where the network goes, wherever it was trained.

    Raises:
        FileNotFoundError: the folder holds no finished run.
        ValueError: config.yaml describes no run, or model.pt does not hold its network.
        ModuleNotFoundError: PyYAML is not installed.
    """
    config_path, model_path = folder / "config.yaml", folder / "model.pt"
    for path in (config_path, model_path):
        if not path.exists():
            raise FileNotFoundError(f"{folder} holds no finished run: {path.name} is missing")
    config = TrainConfig.load(config_path)
    data = validated(config, build_data(config) if data is None else data)
    tasks = choose_tasks(config, data)
    # The run's weights replace those that its network began from, whose file may be gone.
    options = {name: value for name, value in config.model_options.items() if name != "weights"}
    model = build_model(replace(config, model_options=options, device="cpu", precision="float32"), tasks)
    load_weights(model, model_path)
    return LoadedRun(config, data, tasks, model.to(device).eval())
