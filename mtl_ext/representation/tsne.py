"""The features in the plane, by t-SNE (van der Maaten & Hinton 2008)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mtl_ext.methods.base import check_range
from mtl_ext.representation.encode import Encoded

# scikit-learn's defaults, written out: another version must not change a study.
TSNE_OPTIONS: dict[str, Any] = {
    "early_exaggeration": 12.0,
    "learning_rate": "auto",
    "max_iter": 1000,
    "init": "pca",
    "metric": "euclidean",
    "method": "barnes_hut",
    "angle": 0.5,
}


@dataclass(frozen=True)
class Embedding:
    """Samples in the plane.

    Attributes:
        points: [M, 2].
        labels: [M] int64, the classes.
    """

    points: Tensor
    labels: Tensor


def tsne(encoded: Encoded, *, perplexity: float = 30.0, seed: int = 0) -> Embedding:
    """Samples in the plane, those beside each other whose features, of mean 0 and deviation 1, are alike.

    Distances between clusters, their sizes and the axes mean nothing. A thousand samples take some seconds; draw
    (`Encoded.drawn`) no more than a reader can tell apart.

    Args:
        encoded: the samples.
        perplexity: about how many neighbours count as near, below the number of samples.
        seed: of the optimisation.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: a perplexity for which there are too few samples, or a single feature.
    """
    if encoded.features.shape[1] < 2:
        raise ValueError("encoded has a single feature, expected at least 2: there is nothing to bring into the plane")
    check_range("perplexity", perplexity, 0.0, len(encoded), open_low=True, open_high=True)
    try:
        from sklearn.manifold import TSNE
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ImportError('t-SNE needs scikit-learn: pip install "mtl_ext[eval]"') from error
    features = StandardScaler().fit_transform(encoded.features.numpy())
    points = TSNE(n_components=2, perplexity=perplexity, random_state=seed, **TSNE_OPTIONS).fit_transform(features)
    return Embedding(torch.from_numpy(points), encoded.labels)
