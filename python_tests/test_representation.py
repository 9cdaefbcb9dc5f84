"""Quality of representations: encoding, simple classifiers against oracles, t-SNE, figures, runs from their folder."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from model_cases import CASES, CLASSES
from small_data import OWN_TASKS, TASKS, make_data, make_own_data, make_split
from torch import nn

from mtl_ext.data import Batch, MemorySplit
from mtl_ext.models import HardSharing, ResNet, small_conv
from mtl_ext.plots import COLOURS
from mtl_ext.representation import (
    CLASSIFIERS,
    TSNE_OPTIONS,
    Embedding,
    Encoded,
    accuracy_figure,
    classifier_accuracies,
    classifier_spread,
    encode,
    load_run,
    tsne,
    tsne_figure,
)
from mtl_ext.trainers import TrainConfig, train_run

case_of = {case.id: case for case in CASES}


def clouds(count=60, classes=3, noise=0.3, seed=0, scale=(1.0, 1.0, 1.0)):
    """A cloud of samples round the unit vector of each class."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    features = torch.eye(classes, 3)[labels] + noise * torch.randn(count, 3, generator=draw)
    return Encoded(features * torch.tensor(scale), labels)


def one_batch(case, targets):
    """A case's network, its task of classes, and its inputs as a split with targets."""
    model = case.make()
    return model, MemorySplit(case.inputs(), {CLASSES.name: targets})


def test_a_shared_representation_is_averaged_over_the_image():
    model, data = small_conv(TASKS, size=8), make_split(10, 0)
    encoded = encode(model, TASKS, data, batch_size=4)
    assert list(encoded) == ["brightest"]
    with torch.no_grad():
        expected = model.features(data.inputs).mean(dim=(2, 3))
    torch.testing.assert_close(encoded["brightest"].features, expected)
    assert torch.equal(encoded["brightest"].labels, data.targets["brightest"])


def test_a_grid_keeps_where_features_lie():
    model = HardSharing(nn.Identity(), {"brightest": nn.Sequential(nn.Flatten(), nn.Linear(64, 4))})
    data = make_split(6, 0)
    found = encode(model, TASKS[:1], data, grid=2)["brightest"].features
    quarters = [data.inputs[:, 0, row : row + 4, column : column + 4] for row in (0, 4) for column in (0, 4)]
    torch.testing.assert_close(found, torch.stack([quarter.mean(dim=(1, 2)) for quarter in quarters], dim=1))
    assert torch.equal(found.argmax(1), data.targets["brightest"])


@pytest.mark.parametrize("name", ["half_shared", "mtan-depth=18"])
def test_branched_networks_give_what_enters_the_head(name):
    model, split = one_batch(case_of[name], torch.tensor([1, 0, 3]))
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = encode(model, [CLASSES], split)["kind"]
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    entering = []
    model.eval().head("kind").register_forward_pre_hook(lambda head, inputs: entering.append(inputs[0]))
    model(split.inputs)
    torch.testing.assert_close(found.features, entering[0].mean(dim=(2, 3)).detach())
    assert not found.features.requires_grad


def test_the_levels_of_a_pyramid_are_put_one_after_another():
    model, split = one_batch(case_of["resnet_fpn"], torch.tensor([1, 0, 3]))
    found = encode(model, [CLASSES], split)["kind"].features
    levels = model.eval().features(split.inputs)
    assert found.shape == (3, sum(level.shape[1] for level in levels))
    torch.testing.assert_close(found[:, -levels[-1].shape[1] :], levels[-1].mean(dim=(2, 3)).detach())


def test_samples_without_a_label_are_left_out():
    model, split = one_batch(case_of["small_conv-size=12"], torch.tensor([-1, 2, 4]))
    encoded = encode(model, [CLASSES], split)["kind"]
    assert encoded.labels.tolist() == [2]
    assert len(encoded) == 1
    split = replace(split, targets={"kind": torch.tensor([-1, 4, 9])})
    with pytest.raises(ValueError, match="task 'kind' has no sample with a label"):
        encode(model, [CLASSES], split)


def test_tasks_with_inputs_of_their_own_are_encoded_from_these():
    model = small_conv(OWN_TASKS, size=8)
    classified = replace(OWN_TASKS[1], kind="classes", outputs=4)
    streams = make_own_data().test
    lengths = {name: len(split) for name, split in streams.splits.items()}
    assert lengths == {"brightest": 40, "mean": 25}

    class Relabelled:
        def batches(self, batch_size, generator=None, skip=0):
            for batch in streams.batches(batch_size):
                yield Batch(batch.inputs, {**batch.targets, "mean": batch.targets["mean"][:, 0].long() % 4})

    encoded = encode(model, [OWN_TASKS[0], classified], Relabelled(), batch_size=10)
    for name, split in streams.splits.items():
        with torch.no_grad():
            expected = model.features(split.inputs).mean(dim=(2, 3))
        torch.testing.assert_close(encoded[name].features, expected)


def test_a_split_without_classes_is_refused():
    model, data = small_conv(TASKS, size=8), make_split(4, 0)
    with pytest.raises(ValueError, match="expected a task with a class per sample among bright, mean"):
        encode(model, TASKS[1:], data)
    soft = replace(data, targets={"brightest": torch.rand(4, 4)})
    with pytest.raises(ValueError, match="expected a task with a class per sample among brightest"):
        encode(model, TASKS[:1], soft)
    for name in ("grid", "batch_size"):
        with pytest.raises(ValueError, match=f"{name} is 0, expected a whole number of at least 1"):
            encode(model, TASKS, data, **{name: 0})


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.zeros(2, 3, 4), torch.zeros(2).long(), r"features \[2, 3, 4\] torch\.float32"),
        (torch.zeros(2, 3), torch.zeros(3).long(), r"labels \[3\] torch\.int64"),
        (torch.zeros(2, 3), torch.zeros(2), r"labels \[2\] torch\.float32"),
        (torch.zeros(2, 3).long(), torch.zeros(2).long(), r"expected features \[M, C\] of floats"),
        (torch.zeros(0, 3), torch.zeros(0).long(), "expected at least one sample"),
        (torch.tensor([[1.0], [torch.nan]]), torch.zeros(2).long(), "not finite: the network .* has diverged"),
    ],
)
def test_samples_that_cannot_be_are_refused(features, labels, message):
    with pytest.raises(ValueError, match=message):
        Encoded(features, labels)


def test_samples_are_drawn_by_the_seed_and_kept_in_order():
    encoded = Encoded(torch.arange(20.0)[:, None], torch.arange(20))
    drawn = encoded.drawn(5, seed=1)
    assert len(drawn) == 5
    assert drawn.labels.tolist() == sorted(set(drawn.labels.tolist()))
    assert torch.equal(drawn.features[:, 0].long(), drawn.labels)
    assert torch.equal(drawn.labels, encoded.drawn(5, seed=1).labels)
    assert not torch.equal(drawn.labels, encoded.drawn(5, seed=2).labels)
    assert torch.equal(encoded.drawn(99).labels, encoded.labels)


def test_options_are_the_librarys_defaults():
    from sklearn.manifold import TSNE
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    makers = {"decision tree": DecisionTreeClassifier, "SVM": SVC, "kNN": KNeighborsClassifier}
    assert list(makers) == list(CLASSIFIERS)
    for make, options in [(makers[name], options) for name, options in CLASSIFIERS.items()] + [(TSNE, TSNE_OPTIONS)]:
        defaults = make().get_params()
        assert {name: defaults[name] for name in options} == options


def nearest_accuracy(train, test, neighbours=5):
    """k nearest neighbours after standardisation by the training samples, in plain float64 numpy."""
    inputs, queries = train.features.double().numpy(), test.features.double().numpy()
    mean, deviation = inputs.mean(0), inputs.std(0)
    inputs, queries = (inputs - mean) / deviation, (queries - mean) / deviation
    right = 0
    for query, label in zip(queries, test.labels.tolist(), strict=True):
        near = np.argsort(((inputs - query) ** 2).sum(1))[:neighbours]
        right += np.bincount(train.labels.numpy()[near], minlength=3).argmax() == label
    return 100 * right / len(queries)


def test_classifiers_learn_from_train_and_are_measured_on_test():
    train, test = clouds(), clouds(45, seed=1)
    found = classifier_accuracies(train, test)
    assert list(found) == ["decision tree", "SVM", "kNN"]
    assert all(80 < value < 100 for value in found.values())
    assert found["kNN"] == pytest.approx(nearest_accuracy(train, test))
    apart = classifier_accuracies(clouds(noise=0.02), clouds(45, noise=0.02, seed=1))
    assert set(apart.values()) == {100.0}
    drawn = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    shuffled = classifier_accuracies(Encoded(train.features, train.labels[drawn]), test)
    assert max(shuffled.values()) < 60


def test_the_scale_of_a_feature_does_not_count_but_that_of_test_against_train_does():
    scale = (1e-2, 1.0, 1e3)
    train, test = clouds(), clouds(45, seed=1)
    expected = classifier_accuracies(train, test)
    assert classifier_accuracies(clouds(scale=scale), clouds(45, seed=1, scale=scale)) == pytest.approx(expected)
    displaced = Encoded(test.features + 100, test.labels)
    assert classifier_accuracies(train, displaced)["kNN"] < 50


def test_equal_seeds_give_equal_accuracies():
    train, test = clouds(noise=0.8), clouds(45, noise=0.8, seed=1)
    assert classifier_accuracies(train, test, seed=3) == classifier_accuracies(train, test, seed=3)
    found = {classifier_accuracies(train, test, seed=seed)["decision tree"] for seed in range(6)}
    assert len(found) > 1


def test_the_spread_is_the_largest_difference():
    assert classifier_spread({"decision tree": 71.0, "SVM": 80.5, "kNN": 76.0}) == 9.5


def test_splits_that_cannot_be_learned_are_named():
    train, test = clouds(), clouds(9)
    with pytest.raises(ValueError, match="test has 2 features, expected the 3 of train"):
        classifier_accuracies(train, Encoded(test.features[:, :2], test.labels))
    with pytest.raises(ValueError, match="train has 4 samples, expected at least the 5 that kNN asks for"):
        classifier_accuracies(clouds(4), test)
    with pytest.raises(ValueError, match="all samples of train have class 2, expected at least two"):
        classifier_accuracies(Encoded(train.features, torch.full((60,), 2)), test)


def test_what_to_install_is_said(monkeypatch):
    for module in ("sklearn.svm", "sklearn.manifold"):
        monkeypatch.setitem(sys.modules, module, None)
    for call in (lambda: classifier_accuracies(clouds(), clouds()), lambda: tsne(clouds())):
        with pytest.raises(ImportError, match=r'needs? scikit-learn: pip install "mtl_ext\[eval\]"'):
            call()


def test_tsne_puts_alike_samples_together():
    encoded = clouds(noise=0.05, scale=(1.0, 1e3, 1.0))
    embedding = tsne(encoded, perplexity=10)
    assert embedding.points.shape == (60, 2)
    assert torch.equal(embedding.labels, encoded.labels)
    distances = torch.cdist(embedding.points, embedding.points).fill_diagonal_(torch.inf)
    assert torch.equal(encoded.labels[distances.argmin(1)], encoded.labels)
    assert torch.equal(tsne(encoded, perplexity=10).points, embedding.points)


def test_tsne_that_cannot_be_is_named():
    with pytest.raises(ValueError, match=r"perplexity is 30\.0, expected a number above 0 and below 9"):
        tsne(clouds(9))
    with pytest.raises(ValueError, match="encoded has a single feature, expected at least 2"):
        tsne(Encoded(torch.zeros(40, 1), torch.zeros(40).long()))


def test_the_figure_of_accuracies_shows_means_trials_and_spread():
    by_method = {
        "Vanilla": {"age": {"decision tree": [50.0, 54.0], "SVM": [60.0, 62.0], "kNN": [56.0, 58.0]}},
        "DGR": {"age": {"decision tree": [58.0, 60.0], "SVM": [62.0, 63.0], "kNN": [60.0, 61.0]}},
    }
    axis = accuracy_figure(by_method).axes[0]
    assert axis.get_title(loc="left") == "age"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["Vanilla", "DGR"]
    bars = [line.get_xdata().tolist() for line in axis.lines if len(line.get_xdata()) == 2]
    assert bars == [[52.0, 61.0], [59.0, 62.5]]
    marks = [collection.get_offsets()[:, 0].tolist() for collection in axis.collections]
    assert marks[:2] == [[50.0, 54.0], [52.0]]
    assert len(marks) == 2 * 3 * 2


def test_the_figure_of_embeddings_has_a_row_per_task_and_the_same_colours_in_it():
    points = torch.randn(12, 2)
    tasks = {"gender": Embedding(points, torch.arange(12) % 2), "age": Embedding(points, torch.arange(12))}
    names = {"gender": ("male", "female")}
    figure = tsne_figure({"Vanilla": tasks, "DGR": tasks}, ordered=("age",), class_names=names)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["Vanilla", "DGR", "", ""]
    assert [axis.get_ylabel() for axis in figure.axes] == ["gender", "", "age", ""]
    scatters = [[to_hex(colour) for colour in axis.collections[0].get_facecolors()] for axis in figure.axes]
    assert scatters[0] == scatters[1]
    assert scatters[0] == [colour.lower() for colour in COLOURS[:2] * 6]
    assert len(set(scatters[2])) == 12
    legend = figure.axes[1].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["male", "female"]
    many = {"class": Embedding(torch.randn(100, 2), torch.arange(100))}
    legend = tsne_figure({"Vanilla": many}).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()][:3] == ["0", "9", "18"]


RUN = TrainConfig(
    tasks=("mean", "brightest"),
    model="small_conv",
    model_options={"size": 8, "width": 8},
    epochs=1,
    batch_size=32,
    holdout=0.25,
    monitor_every=0,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torch.set_num_threads(1)
    return folder, train_run(RUN, make_data(), folder)


def test_a_run_is_loaded_as_it_was_trained(finished):
    folder, result = finished
    run = load_run(folder, make_data())
    assert run.config == RUN
    assert run.model.tasks == ("mean", "brightest")
    assert [task.name for task in run.tasks] == ["mean", "brightest"]
    assert (len(run.data.train), len(run.data.val), len(run.data.test)) == (72, 24, 40)
    assert not run.model.training
    test = run.data.test
    with torch.no_grad():
        right = run.model(test.inputs)["brightest"].argmax(1) == test.targets["brightest"]
    assert 100 * float(right.float().mean()) == pytest.approx(result.measures["brightest"]["acc %"])
    encoded = encode(run.model, run.tasks, run.data.train, grid=2)
    assert list(encoded) == ["brightest"]
    found = classifier_accuracies(encoded["brightest"], encode(run.model, run.tasks, test, grid=2)["brightest"])
    assert max(found.values()) > 60


def test_a_run_is_loaded_without_the_file_that_it_began_from(tmp_path):
    images = MemorySplit(torch.rand(4, 3, 32, 32), {"brightest": torch.arange(4)})
    data = replace(make_data(), train=images, test=images)
    weights = tmp_path / "weights.pth"
    torch.save(ResNet(width=2).state_dict(), weights)
    options = {"width": 2, "hidden": 0, "weights": str(weights)}
    config = replace(RUN, tasks=("brightest",), model="resnet_split", model_options=options, holdout=0.0)
    train_run(config, data, tmp_path / "run")
    weights.unlink()
    assert load_run(tmp_path / "run", data).model.tasks == ("brightest",)


def test_folders_without_a_finished_run_are_named(finished, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no finished run: config\.yaml is missing"):
        load_run(tmp_path)
    RUN.save(tmp_path / "config.yaml")
    with pytest.raises(FileNotFoundError, match=r"holds no finished run: model\.pt is missing"):
        load_run(tmp_path)
    (tmp_path / "model.pt").write_bytes((finished[0] / "model.pt").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"model\.pt is no file of tensors"):
        load_run(tmp_path, make_data())
    replace(RUN, model_options={"size": 8, "width": 4}).save(tmp_path / "config.yaml")
    (tmp_path / "model.pt").write_bytes((finished[0] / "model.pt").read_bytes())
    with pytest.raises(ValueError, match=r"model\.pt does not fit the network: it has in another shape"):
        load_run(tmp_path, make_data())
