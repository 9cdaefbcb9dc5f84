"""Quality of a trained representation: simple classifiers on the frozen encoder's features, and t-SNE of them."""

from mtl_ext.representation.classifiers import CLASSIFIERS, classifier_accuracies, classifier_spread
from mtl_ext.representation.encode import Encoded, encode
from mtl_ext.representation.figures import accuracy_figure, tsne_figure
from mtl_ext.representation.load import LoadedRun, load_run
from mtl_ext.representation.tsne import TSNE_OPTIONS, Embedding, tsne

__all__ = [
    "CLASSIFIERS",
    "TSNE_OPTIONS",
    "Embedding",
    "Encoded",
    "LoadedRun",
    "accuracy_figure",
    "classifier_accuracies",
    "classifier_spread",
    "encode",
    "load_run",
    "tsne",
    "tsne_figure",
]
