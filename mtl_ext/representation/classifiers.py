"""Simple classifiers in the place of a task's trained head (DGR, Section 4.3 and Fig. 3a)."""

from collections.abc import Mapping
from typing import Any

from mtl_ext.representation.encode import Encoded

# scikit-learn's defaults, written out: another version must not change a study.
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "decision tree": {
        "criterion": "gini",
        "splitter": "best",
        "max_depth": None,
        "min_samples_split": 2,
        "min_samples_leaf": 1,
        "max_features": None,
    },
    "SVM": {"C": 1.0, "kernel": "rbf", "gamma": "scale", "tol": 1e-3, "max_iter": -1},
    "kNN": {"n_neighbors": 5, "weights": "uniform", "metric": "minkowski", "p": 2},
}


def classifier_accuracies(train: Encoded, test: Encoded, seed: int = 0) -> dict[str, float]:
    """Accuracy of a decision tree, an SVM and k nearest neighbours that learn a task from the encoder's features.

    Every feature is first brought to mean 0 and deviation 1 over the training samples. Time and memory of the SVM grow
    with the square of the number of training samples: 20,000 take minutes.

    Args:
        train: the training split.
        test: the test split, encoded by the same network.
        seed: of the decision tree, which chooses among equal splits at random; the others have nothing to draw.

    Returns:
        Name of the classifier -> accuracy on the test split in percent.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: the splits differ in the number of features, or the training split has too few samples or classes.
    """
    _check_splits(train, test)
    learned = _classifiers(seed)
    inputs, answers = train.features.numpy(), train.labels.numpy()
    found = {}
    for name, classifier in learned.items():
        classifier.fit(inputs, answers)
        found[name] = 100.0 * float(classifier.score(test.features.numpy(), test.labels.numpy()))
    return found


def classifier_spread(accuracies: Mapping[str, float]) -> float:
    """How much a task's accuracy depends on the choice of the classifier: the largest minus the smallest, in points.

    DGR states that its representation is "less sensitive to the choice of classifiers" without a measure; this is ours.
    """
    return max(accuracies.values()) - min(accuracies.values())


def _check_splits(train: Encoded, test: Encoded) -> None:
    if train.features.shape[1] != test.features.shape[1]:
        raise ValueError(
            f"test has {test.features.shape[1]} features, expected the {train.features.shape[1]} of train: encode both "
            "splits by the same network"
        )
    neighbours = CLASSIFIERS["kNN"]["n_neighbors"]
    if len(train) < neighbours:
        raise ValueError(f"train has {len(train)} samples, expected at least the {neighbours} that kNN asks for")
    first = train.labels[0]
    if (train.labels == first).all():
        raise ValueError(f"all samples of train have class {int(first)}, expected at least two classes")


def _classifiers(seed: int) -> dict[str, Any]:
    """Each behind a standardisation that it learns, too."""
    try:
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC
        from sklearn.tree import DecisionTreeClassifier
    except ImportError as error:
        raise ImportError('the classifiers need scikit-learn: pip install "mtl_ext[eval]"') from error
    options = CLASSIFIERS
    made = {
        "decision tree": DecisionTreeClassifier(random_state=seed, **options["decision tree"]),
        "SVM": SVC(**options["SVM"]),
        "kNN": KNeighborsClassifier(**options["kNN"]),
    }
    return {name: make_pipeline(StandardScaler(), classifier) for name, classifier in made.items()}
