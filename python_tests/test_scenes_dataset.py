"""The rendered scenes as a data set: targets, cache, processes, tasks that train."""

import pickle
import sys
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import numpy as np
import pytest
import torch

from mtl_ext.data import DATASETS, Batch, scenes
from mtl_ext.data.processes import map_in_processes
from mtl_ext.data.scenes import CLASSES, render_scene
from mtl_ext.data.scenes.tasks import TASKS
from mtl_ext.models import small_conv
from mtl_ext.trainers import TrainConfig, Trainer

# The package of this name hides behind the function.
MODULE = sys.modules["mtl_ext.data.scenes.dataset"]
SMALL = {"train_size": 6, "test_size": 3, "height": 24, "width": 32}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_EXT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def everything(split):
    return split.batch(torch.arange(len(split)))


def equal(a: Batch, b: Batch):
    return torch.equal(a.inputs, b.inputs) and all(torch.equal(a.targets[k], b.targets[k]) for k in a.targets)


def test_batches_hold_what_was_rendered():
    data = scenes(**SMALL, seed=4)
    batch = data.train.batch(torch.tensor([2]))
    scene = render_scene(4, 2, 24, 32)
    targets = {name: target[0].numpy() for name, target in batch.targets.items()}
    assert np.abs(batch.inputs[0].numpy().transpose(1, 2, 0) - scene.rgb).max() < 0.51 / 255
    assert np.array_equal(targets["semantics"], scene.semantics)
    assert np.array_equal(targets["parts"], scene.parts)
    assert np.allclose(targets["depth"][0], scene.depth, rtol=1e-3)
    assert np.allclose(targets["normals"].transpose(1, 2, 0), scene.normals, atol=1e-3)
    assert np.array_equal(targets["edges"][0], scene.edges)
    assert np.array_equal(targets["saliency"][0], scene.saliency)
    hidden = [k + 1 for k, share in enumerate(scene.occlusion) if share >= 0.05]
    assert np.array_equal(targets["occlusion"][0] == 1, np.isin(scene.instances, hidden))


def test_targets_have_the_shapes_of_the_tasks():
    data = scenes(**SMALL, val_size=2)
    assert (len(data.train), len(data.test), len(data.val)) == (6, 3, 2)
    assert [task.name for task in data.tasks] == list(data.train.targets) == list(everything(data.val).targets)
    batch = everything(data.test)
    assert (batch.inputs.shape, batch.inputs.dtype) == ((3, 3, 24, 32), torch.float32)
    assert 0 <= batch.inputs.min() < batch.inputs.max() <= 1
    for task in data.tasks:
        target = batch.targets[task.name]
        if task.name in ("semantics", "parts"):
            assert (target.shape, target.dtype) == ((3, 24, 32), torch.int64)
            assert target.max() < task.outputs
        else:
            assert (target.shape, target.dtype) == ((3, task.outputs, 24, 32), torch.float32)
    assert scenes(**SMALL).val is None


def test_splits_share_nothing_and_do_not_depend_on_sizes():
    small = scenes(**SMALL, val_size=3)
    large = scenes(**(SMALL | {"train_size": 8}))
    first = everything(small.train)
    assert equal(first, large.train.batch(torch.arange(6)))
    assert equal(everything(small.test), everything(large.test))
    images = torch.cat([everything(split).inputs for split in (small.train, small.test, small.val)])
    assert len(images.flatten(1).unique(dim=0)) == len(images)
    assert not torch.equal(first.inputs, everything(scenes(**SMALL, seed=1).train).inputs)


def test_scenes_are_rendered_once_and_a_broken_cache_is_replaced(cache, monkeypatch):
    calls = []

    def counting(*arguments):
        calls.append(1)
        return render_scene(*arguments)

    monkeypatch.setattr(MODULE, "render_scene", counting)
    first = everything(scenes(**SMALL).train)
    assert len(calls) == 9
    assert equal(everything(scenes(**SMALL).train), first)
    assert len(calls) == 9
    scenes(**SMALL, texture=0.1)
    assert len(calls) == 18
    paths = sorted(cache.iterdir())
    assert len(paths) == 4
    good = {path: path.read_bytes() for path in paths}
    for spoil in (lambda b: b"", lambda b: b[:500], lambda b: b[:400] + bytes(400) + b[800:]):
        for path in paths:
            path.write_bytes(spoil(good[path]))
        assert equal(everything(scenes(**SMALL).train), first)
    # Another part's file under this part's name.
    for path in paths:
        path.write_bytes(good[min(paths, key=lambda p: len(good[p]))])
    assert equal(everything(scenes(**SMALL).train), first)
    assert sorted(cache.iterdir()) == paths


def test_a_cache_that_cannot_be_written_warns(cache, monkeypatch):
    cache.touch()
    monkeypatch.setenv("MTL_EXT_CACHE", str(cache / "folder"))
    with pytest.warns(UserWarning, match="MTL_EXT_CACHE"):
        assert len(scenes(**SMALL).train) == 6


def test_what_processes_are_sent_arrives():
    part = MODULE.SeriesPart(0, 1, seed=0, height=24, width=32, options=MODULE.SceneOptions())
    job = partial(MODULE._arrays_of, part)
    here, there = job(7), pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(job))(7)))
    assert all(np.array_equal(here[key], there[key]) for key in here)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"train_size": 0}, "train_size is 0, expected at least 1"),
        ({"test_size": -1}, "test_size is -1, expected at least 1"),
        ({"val_size": -1}, "val_size is -1, expected at least 0"),
        ({"height": 4}, "height is 4, expected at least 8"),
        ({"seed": -1}, "seed is -1, expected at least 0"),
        ({"workers": 0}, "workers is 0, expected at least 1"),
        ({"texture": 2}, r"texture is 2, expected 0 \.\. 1"),
    ],
)
def test_arguments_out_of_range_are_refused(options, text, cache):
    with pytest.raises(ValueError, match=text):
        scenes(**(SMALL | options))
    assert not cache.exists()


def test_one_worker_works_here_and_in_order():
    started = []
    results = map_in_processes(lambda job: started.append(job) or -job, [3, 1, 2], 1)
    assert next(results) == -3
    assert started == [3]
    assert list(results) == [-1, -2]
    assert list(map_in_processes(abs, [], 4)) == []


def test_a_process_that_dies_is_explained(monkeypatch):
    class DyingPool:
        def __init__(self, workers, **options):
            assert workers == 2

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def map(self, function, jobs):
            raise BrokenProcessPool

        def shutdown(self, cancel_futures):
            assert cancel_futures

    monkeypatch.setattr("mtl_ext.data.processes.ProcessPoolExecutor", DyingPool)
    with pytest.raises(RuntimeError, match='lacks `if __name__ == "__main__":`'):
        list(map_in_processes(abs, [1, 2], 5))


def test_a_network_trains_on_all_tasks():
    assert DATASETS["scenes"] is scenes
    config = TrainConfig(
        data="scenes",
        data_options=SMALL | {"train_size": 24},
        model_options={"in_channels": 3},
        batch_size=8,
        epochs=6,
        monitor_every=0,
    )
    result = Trainer(config).fit()
    first, last = result.epochs[0], result.epochs[-1]
    # Saliency and occlusion take more than these 18 steps.
    for name in ("semantics", "parts", "depth", "normals", "edges"):
        assert last.losses[name] < 0.95 * first.losses[name], name
    assert {task: list(values) for task, values in last.measures.items()} == {
        task.name: [make().name for make in task.metrics] for task in TASKS
    }


def test_the_network_of_the_quick_studies_takes_wide_images():
    tasks = scenes(**SMALL).tasks
    model = small_conv(tasks, in_channels=3)
    batch = everything(scenes(**SMALL).test)
    outputs = model(batch.inputs)
    assert tuple(outputs["semantics"].shape) == (3, len(CLASSES), 24, 32)
