"""Section 4.3: what simple classifiers make of the frozen encoders, and how the classes lie in their features."""

import functools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtl_ext.data.processes import map_in_processes
from mtl_ext.files import write_json
from mtl_ext.metrics import Universality, universality
from mtl_ext.models import fresh_copy
from mtl_ext.representation import (
    Embedding,
    Encoded,
    LoadedRun,
    classifier_accuracies,
    classifier_spread,
    encode,
    load_run,
    tsne,
)
from mtl_ext.studies.dgr.protocol import VANILLA, added
from mtl_ext.studies.runs import StudyRun, run_folder

FILE = "representation.json"
# Rows whose features are also drawn and searched for the optimal head, which takes longer.
SHOWN = (VANILLA, added(VANILLA))
TRAIN_SAMPLES, TEST_SAMPLES, DRAWN_SAMPLES = 5000, 2000, 500
# The arbitrary heads of Definition 2 are none of those that DGR trained with: another seed.
ARBITRARY_SEED = 10_007
ITERATIONS = 200


@dataclass(frozen=True)
class Representation:
    """What was measured of a trained encoder, of every task with classes.

    Attributes:
        accuracies: task -> classifier -> accuracy on the test split in percent.
        order: task -> correlation of the distance of two classes' centres with the difference of their numbers.
        silhouette: task -> mean silhouette of the classes, -1 .. 1; test split, standardised features.
        excess: task -> loss of an arbitrary head, its classes permuted, minus that of the optimal one (Definition 2:
            universality is its inverse); empty where it was not searched for.
        norm: task -> norm of the gradient of that arbitrary head's loss.
        points: task -> test samples in the plane, [x, y, class]; empty where they are not drawn.
    """

    accuracies: Mapping[str, Mapping[str, float]]
    order: Mapping[str, float]
    silhouette: Mapping[str, float]
    excess: Mapping[str, float]
    norm: Mapping[str, float]
    points: Mapping[str, Sequence[Sequence[float]]]

    def mean_accuracy(self, task: str) -> float:
        """Over the classifiers."""
        return statistics.fmean(self.accuracies[task].values())

    def classifier_spread(self, task: str) -> float:
        """How far the best and the worst classifier are apart, in points."""
        return classifier_spread(self.accuracies[task])

    def embedding(self, task: str) -> Embedding:
        """The samples in the plane."""
        table = torch.tensor(self.points[task])
        return Embedding(table[:, :2], table[:, 2].long())


def measure_representations(out: Path, runs: Sequence[StudyRun], workers: int) -> None:
    """Measures the encoders of finished runs, each into its run's folder, where that is missing."""
    missing = [run for run in runs if (out / run.folder / "model.pt").exists()]
    missing = [run for run in missing if not (out / run.folder / FILE).exists()]
    for _ in map_in_processes(functools.partial(_measure_one, out), missing, workers):
        pass


def read_representations(
    out: Path, experiment: str, runs: Mapping[str, Mapping[int, object]]
) -> dict[str, dict[int, Representation]]:
    """Row -> seed -> what was measured, of the rows and seeds where anything was."""
    found: dict[str, dict[int, Representation]] = {}
    for row, seeds in runs.items():
        for seed in seeds:
            path = out / run_folder(experiment, row, seed) / FILE
            if path.exists():
                found.setdefault(row, {})[seed] = Representation(**_with_nan(json.loads(path.read_text())))
    return found


def _with_nan(stored: Any) -> Any:
    """JSON has no NaN: it is null there."""
    if isinstance(stored, dict):
        return {key: _with_nan(value) for key, value in stored.items()}
    return float("nan") if stored is None else stored


def class_order(encoded: Encoded) -> float:
    """How far classes lie in the order of their numbers, -1 .. 1; NaN with fewer than three classes.

    The correlation, over pairs of classes, of the distance of their centres with the difference of their numbers.
    """
    features, labels = _standardised(encoded)
    classes = np.unique(labels)
    if len(classes) < 3:
        return float("nan")
    centres = np.stack([features[labels == label].mean(0) for label in classes])
    first, second = np.triu_indices(len(classes), 1)
    distances = np.linalg.norm(centres[first] - centres[second], axis=1)
    return float(np.corrcoef(distances, classes[second] - classes[first])[0, 1])


def silhouette(encoded: Encoded) -> float:
    """Mean silhouette of the classes; NaN with fewer than two.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.metrics import silhouette_score
    except ImportError as error:
        raise ImportError('the silhouette needs scikit-learn: pip install "mtl_ext[eval]"') from error
    features, labels = _standardised(encoded)
    if not 1 < len(np.unique(labels)) < len(labels):
        return float("nan")
    return float(silhouette_score(features, labels))


def _measure_one(out: Path, run: StudyRun) -> None:
    torch.set_num_threads(run.config.threads)
    folder = out / run.folder
    loaded = load_run(folder, device=run.config.device)
    splits = ((loaded.data.train, TRAIN_SAMPLES), (loaded.data.test, TEST_SAMPLES))
    encoded = [encode(loaded.model, loaded.tasks, split, batch_size=run.config.batch_size) for split, _ in splits]
    train, test = (
        {task: samples.drawn(count) for task, samples in by_task.items()}
        for by_task, (_, count) in zip(encoded, splits, strict=True)
    )
    found = _universalities(loaded, test, run.config.seed) if run.row in SHOWN else {}
    drawn = test if run.row in SHOWN and run.config.seed == 0 else {}
    measured = Representation(
        accuracies={task: classifier_accuracies(train[task], test[task], run.config.seed) for task in test},
        order={task: class_order(samples) for task, samples in test.items()},
        silhouette={task: silhouette(samples) for task, samples in test.items()},
        excess={task: result.excess for task, result in found.items()},
        norm={task: result.norm for task, result in found.items()},
        points={task: _points(samples.drawn(DRAWN_SAMPLES)) for task, samples in drawn.items()},
    )
    write_json(folder / FILE, asdict(measured))


def _universalities(loaded: LoadedRun, test: Mapping[str, Encoded], seed: int) -> dict[str, Universality]:
    """Of every task with classes, with an arbitrary head that reads averaged features."""
    found = {}
    for task in loaded.tasks:
        if task.name not in test:
            continue
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(ARBITRARY_SEED + seed)
            arbitrary = fresh_copy(loaded.model.head(task.name)).cpu()
        features = test[task.name].features[:, :, None, None]
        labels = test[task.name].labels
        found[task.name] = universality(arbitrary, features, labels, task.loss, max_iterations=ITERATIONS)
    return found


def _points(samples: Encoded) -> list[list[float]]:
    embedding = tsne(samples, perplexity=min(30.0, len(samples) / 4))
    return torch.cat([embedding.points.double(), embedding.labels[:, None].double()], dim=1).tolist()


def _standardised(encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Features of mean 0 and deviation 1 (constant ones 0), and labels."""
    features = encoded.features.double().numpy()
    deviation = features.std(0)
    return (features - features.mean(0)) / np.where(deviation > 0, deviation, 1.0), encoded.labels.numpy()
