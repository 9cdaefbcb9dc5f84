"""One file from which a run goes on bit for bit."""

import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mtl_ext.files import write_atomically
from mtl_ext.trainers.config import TrainConfig

FORMAT = 1


def save_checkpoint(path: Path, config: TrainConfig, state: Mapping[str, Any]) -> None:
    """Replaces a checkpoint; whenever the process ends, the file holds the old or the new one as a whole.

    Args:
        path: the file.
        config: the run's description.
        state: tensors, numbers, strings, lists, tuples and dicts.
    """
    content = {"format": FORMAT, "config": asdict(config), "state": dict(state)}
    write_atomically(path, lambda file: torch.save(content, file), durable=True)


def load_checkpoint(path: Path, config: TrainConfig) -> dict[str, Any]:
    """The state of a checkpoint, on the CPU.

    Raises:
        ValueError: the file is damaged or no checkpoint, or belongs to another configuration: names the fields.
    """
    state = _read(path)
    saved, mine = (json.loads(json.dumps(fields)) for fields in (state["config"], asdict(config)))
    differing = [
        f"{name} ({saved.get(name, 'absent')!r} there, {mine.get(name, 'absent')!r} here)"
        for name in dict.fromkeys([*saved, *mine])
        if name not in saved or name not in mine or saved[name] != mine[name]
    ]
    if differing:
        raise ValueError(f"{path} belongs to another run, which differs in {', '.join(differing)}")
    content: dict[str, Any] = state["state"]
    return content


def remove_unfinished(path: Path) -> None:
    """Removes what killed processes left of their unfinished saves."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    reason = "it is no checkpoint"
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} does not fit its checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(content, dict) and content.get("format") == FORMAT:
            return content
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split())[:100]
    raise ValueError(f"{path} cannot be resumed from: {reason}. Start the run again, with --overwrite, or elsewhere")
