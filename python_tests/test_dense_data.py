"""Dense data sets: what their generators write, their loaders read, value by value."""

import numpy as np
import pytest
import torch
from PIL import Image
from scene_cases import HEIGHT, WIDTH, write_all

from mtl_ext.data import cityscapes, cityscapes_png, metagraspnet, nyud_mt, nyuv2, pascal_context
from mtl_ext.data.cityscapes_png import disparity as read_disparity
from mtl_ext.data.cityscapes_png import part_ids, train_ids
from mtl_ext.data.layouts.pseudo_labels import COCO_IDS
from mtl_ext.data.pascal_context import NORMAL_CLASSES, PART_NUMBERS
from mtl_ext.data.prepare import IMAGENET_MEAN, IMAGENET_STD
from mtl_ext.data.scenes import CLASSES
from mtl_ext.metrics import RootMeanSquareError

SIZES = {"train": 3, "val": 2}
NYUV2_CLASSES = np.array([11, 4, 2, 6, 5, 1, 3])
BALL = CLASSES.index("ball")


def one_batch(split):
    (batch,) = split.batches(10)
    return batch


def stacked(scenes, make):
    """What `make` gives for each scene, [B, ...], channels first."""
    values = torch.from_numpy(np.stack([np.asarray(make(scene)) for scene in scenes]))
    return values.permute(0, 3, 1, 2) if values.dim() == 4 else values


def marked(values, edges, mark):
    """Values of a scene with the mark for no label on its edges."""
    edges = edges[..., None] if values.ndim == 3 else edges
    return np.where(edges, mark, values)


def standardized(path):
    """The colors of an image file as ASTMT feeds them."""
    with Image.open(path) as image:
        colors = np.asarray(image, dtype=np.float64) / 255
    return torch.from_numpy((colors - IMAGENET_MEAN) / IMAGENET_STD).permute(2, 0, 1).float()


@pytest.mark.parametrize("protocol", ["mtan", "auto_lambda"])
def test_nyuv2(tmp_path, protocol):
    scenes = write_all("nyuv2", tmp_path, SIZES)
    data = nyuv2(str(tmp_path), protocol)
    assert [task.name for task in data.tasks] == ["segmentation", "depth", "normals"]
    assert (len(data.train), len(data.test), data.val) == (3, 2, None)
    for split, name in ((data.train, "train"), (data.test, "val")):
        inputs, targets = one_batch(split)
        image = stacked(scenes[name], lambda scene: scene.rgb)
        assert torch.equal(inputs, image if protocol == "mtan" else 2 * image - 1)
        expected = stacked(scenes[name], lambda scene: marked(NYUV2_CLASSES[scene.semantics], scene.edges, -1))
        assert torch.equal(targets["segmentation"], expected)
        depth = stacked(scenes[name], lambda scene: marked(scene.depth, scene.edges, 0))
        assert torch.equal(targets["depth"], depth[:, None])
        normals = stacked(scenes[name], lambda scene: marked(scene.normals, scene.edges, 0).astype(np.float32))
        assert torch.equal(targets["normals"], normals)
        assert [targets[task.name].dtype for task in data.tasks] == [torch.int64, torch.float32, torch.float32]


@pytest.mark.parametrize("dtype", ["float64", "float32", "int16"])
def test_nyuv2_takes_any_number_format(tmp_path, dtype):
    write_all("nyuv2", tmp_path, SIZES)
    expected = one_batch(nyuv2(str(tmp_path)).train).targets["segmentation"]
    for path in (tmp_path / "train" / "label").iterdir():
        np.save(path, np.load(path).astype(dtype))
    assert torch.equal(one_batch(nyuv2(str(tmp_path)).train).targets["segmentation"], expected)


def test_protocols_train_normals_by_their_own_loss(tmp_path):
    write_all("nyuv2", tmp_path, SIZES)
    tasks = {protocol: nyuv2(str(tmp_path), protocol).tasks[2] for protocol in ("mtan", "auto_lambda")}
    output, target = torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1), torch.tensor([0, 1.0, 0]).reshape(1, 3, 1, 1)
    assert tasks["mtan"].loss(output, target) == 1
    assert tasks["auto_lambda"].loss(output, target) == 2
    with pytest.raises(ValueError, match="protocol is 'libmtl', expected one of 'mtan', 'auto_lambda'"):
        nyuv2(str(tmp_path), "libmtl")


def test_published_means_and_masks_can_be_chosen(tmp_path):
    write_all("nyuv2", tmp_path, SIZES)
    for options, reduction, mask in (
        ({}, "exact", "sum"),
        ({"reduction": "batch_mean", "mask": "norm"}, "batch_mean", "norm"),
    ):
        _, depth, normals = nyuv2(str(tmp_path), **options).tasks
        metrics = [make() for make in (*depth.metrics, *normals.metrics)]
        assert {metric.mean.reduction for metric in metrics} == {reduction}
        assert {metric.mask for metric in metrics[2:]} == {mask}
        cancelling = torch.tensor([0.5**0.5, -(0.5**0.5), 0]).reshape(1, 3, 1, 1)
        assert (normals.loss(-cancelling, cancelling) > 0) == (mask == "norm")
    with pytest.raises(ValueError, match="mask is 'all', expected one of 'sum', 'norm'"):
        nyuv2(str(tmp_path), mask="all")
    with pytest.raises(ValueError, match="reduction is 'mean', expected one of"):
        nyuv2(str(tmp_path), reduction="mean")


def test_cityscapes(tmp_path):
    scenes = write_all("cityscapes", tmp_path, SIZES)
    data = cityscapes(str(tmp_path))
    inputs, targets = one_batch(data.test)
    assert torch.equal(inputs, stacked(scenes["val"], lambda scene: scene.rgb))
    classes = np.array([2, 0, 4, 5, 6, 1, 3])
    expected = stacked(scenes["val"], lambda scene: marked(classes[scene.semantics], scene.edges, -1))
    assert torch.equal(targets["segmentation"], expected)
    inverse = stacked(scenes["val"], lambda scene: marked(1 / scene.depth, scene.edges, 0))
    assert torch.equal(targets["depth"], inverse[:, None])
    # LibMTL's release calls its labels `label`.
    for split in SIZES:
        (tmp_path / split / "label_7").rename(tmp_path / split / "label")
    assert torch.equal(one_batch(cityscapes(str(tmp_path)).test).targets["segmentation"], expected)
    assert cityscapes(str(tmp_path), classes=19).tasks[0].outputs == 19
    with pytest.raises(ValueError, match="classes is 8, expected one of 2, 7, 19"):
        cityscapes(str(tmp_path), classes=8)


def test_cityscapes_png(tmp_path):
    scenes = write_all("cityscapes_png", tmp_path, SIZES)
    data = cityscapes_png(str(tmp_path))
    inputs, targets = one_batch(data.test)
    assert torch.allclose(inputs, 2 * stacked(scenes["val"], lambda scene: np.rint(255 * scene.rgb)) / 255 - 1)
    classes = np.array([2, 0, 10, 11, 13, 15, 12])  # building, road, sky, person, car, bus, rider
    expected = stacked(scenes["val"], lambda scene: marked(classes[scene.semantics], scene.edges, -1))
    assert torch.equal(targets["segmentation"], expected)
    # Body and top: torso and head of balls and mugs, chassis and windows of crates and cans.
    table = np.zeros((7, 3), dtype=np.int64)
    table[[3, 6], 1:], table[[4, 5], 1:] = (1, 2), (9, 5)
    assert torch.equal(targets["parts"], stacked(scenes["val"], lambda scene: table[scene.semantics, scene.parts]))
    known = stacked(scenes["val"], lambda scene: marked(np.rint(1024 * scene.disparity) / 1024, scene.edges, -1))
    assert torch.equal(targets["disparity"][:, 0], known.float())


def test_cityscapes_png_accepts_part_files_without_the_slash(tmp_path):
    write_all("cityscapes_png", tmp_path, SIZES)
    expected = one_batch(cityscapes_png(str(tmp_path)).train).targets["parts"]
    for number in range(SIZES["train"]):
        (tmp_path / "train" / "part_seg" / f"{number}.tif").rename(tmp_path / "train" / f"part_seg{number}.tif")
    (tmp_path / "train" / "part_seg").rmdir()
    assert torch.equal(one_batch(cityscapes_png(str(tmp_path)).train).targets["parts"], expected)


def test_cityscapes_png_trains_on_crops(tmp_path):
    write_all("cityscapes_png", tmp_path, SIZES)
    data = cityscapes_png(str(tmp_path), crop=(HEIGHT, 8))
    (batch,) = data.train.batches(10, torch.Generator().manual_seed(0))
    assert batch.inputs.shape == (3, 3, HEIGHT, 8)
    assert batch.targets["parts"].shape == (3, HEIGHT, 8)
    assert one_batch(data.test).inputs.shape == (2, 3, HEIGHT, WIDTH)


def test_cityscapes_ids_are_mapped_as_published_and_unknown_ones_have_no_label():
    raw = np.array([-1, 0, 6, 7, 8, 9, 11, 16, 17, 18, 19, 28, 29, 30, 31, 33, 34, 255, 4000])
    assert train_ids(raw).tolist() == [-1, -1, -1, 0, 1, -1, 2, -1, 5, -1, 6, 15, -1, -1, 16, 18, -1, -1, -1]
    uids = np.array([7, 24, 24_000, 2_400_001, 2_500_003, 2_512_304, 2_600_001, 2_701_102, 2_800_005, 2_400_005])
    assert part_ids(uids).tolist() == [0, 0, 0, 1, 3, 4, 5, 6, 9, 0]
    assert part_ids(np.array([2_600_000, 2_600_009, 2_300_001, -1])).tolist() == [0, 0, 0, 0]
    assert read_disparity(np.array([0, 1, 1025, 513])).tolist() == [-1, 0, 1, 0.5]


def test_pascal_context(tmp_path):
    scenes = write_all("pascal_context", tmp_path, {"train": 5, "val": 1})
    data = pascal_context(str(tmp_path), size=(HEIGHT, WIDTH))
    inputs, targets = one_batch(data.train)
    assert [task.name for task in data.tasks] == ["segmentation", "parts", "saliency", "normals", "edges"]
    files = [tmp_path / "JPEGImages" / f"2008_{number:06d}.jpg" for number in range(5)]
    assert torch.allclose(inputs, torch.stack([standardized(path) for path in files]), atol=1e-5)
    classes = np.array([0, 0, 0, 15, 9, 20, 5])
    expected = stacked(scenes["train"], lambda scene: marked(classes[scene.semantics], scene.edges, 255))
    assert torch.equal(targets["segmentation"], expected)
    assert torch.equal(targets["saliency"][:, 0], stacked(scenes["train"], lambda scene: scene.saliency).float())

    def parts(scene):
        numbers = np.where(scene.semantics == BALL, np.array([0, 2, 1])[scene.parts], 0)
        return numbers if numbers.any() else np.full_like(numbers, 255)

    assert torch.equal(targets["parts"], stacked(scenes["train"], parts))
    assert {BALL in scene.semantics for scene in scenes["train"]} == {True, False}
    # All scene classes have normals; what eight bits lost of them is made up by the length.
    error = (targets["normals"] - stacked(scenes["train"], lambda scene: scene.normals)).abs().max()
    assert error < 0.01
    assert torch.allclose(targets["normals"].norm(dim=1), torch.ones(()), atol=1e-6)
    assert set(targets["edges"].unique().tolist()) == {0, 1}


def test_pascal_context_with_its_list_of_objects_reads_the_same(tmp_path):
    write_all("pascal_context", tmp_path, {"train": 5, "val": 1})
    expected = one_batch(pascal_context(str(tmp_path), size=(HEIGHT, WIDTH)).train)
    lists = tmp_path / "ImageSets" / "Parts"
    lists.mkdir()
    people = [int((expected.targets["parts"][number] != 255).any()) for number in range(5)]
    assert 0 < sum(people) < 5
    entries = ", ".join(f'"2008_{number:06d}": [{15 if found else 9}, 20]' for number, found in enumerate(people))
    (lists / "train.txt").write_text("{" + entries + "}")
    found = one_batch(pascal_context(str(tmp_path), size=(HEIGHT, WIDTH)).train)
    assert torch.equal(found.targets["parts"], expected.targets["parts"])
    # A list of other images does not count; one without people leaves all images without labels.
    (lists / "train.txt").write_text('{"other": []}')
    found = one_batch(pascal_context(str(tmp_path), size=(HEIGHT, WIDTH)).train)
    assert torch.equal(found.targets["parts"], expected.targets["parts"])
    (lists / "train.txt").write_text("{" + ", ".join(f'"2008_{number:06d}": []' for number in range(5)) + "}")
    assert torch.all(one_batch(pascal_context(str(tmp_path), size=(HEIGHT, WIDTH)).train).targets["parts"] == 255)


def test_pascal_context_masks_normals_of_classes_that_nyuv2_lacks(tmp_path):
    from mtl_ext.data.layouts.files import write_mat

    write_all("pascal_context", tmp_path, SIZES)
    label_map = np.full((HEIGHT, WIDTH), 440, dtype=np.uint16)
    label_map[:, 5:] = 360  # sky
    write_mat(tmp_path / "pascal-context" / "trainval" / "2008_000000.mat", {"LabelMap": label_map})
    targets = one_batch(pascal_context(str(tmp_path), size=(HEIGHT, WIDTH)).train).targets
    assert torch.all(targets["normals"][0, :, :, 5:] == 255)
    assert torch.all(targets["normals"][0, :, :, :5] <= 1)
    # A line two pixels wide lies between the regions; thinned, it is one pixel wide, its ends apart.
    assert targets["edges"][0, 0, 1:-1].sum(dim=1).tolist() == [1.0] * (HEIGHT - 2)
    assert len(NORMAL_CLASSES) == len(set(NORMAL_CLASSES))
    assert {427, 440, 158, 68} <= set(NORMAL_CLASSES)
    assert not {31, 98, 360, 431} & set(NORMAL_CLASSES)
    assert sorted(set(PART_NUMBERS.values())) == [1, 2, 3, 4, 5, 6]
    assert len(PART_NUMBERS) == 24


def test_images_of_any_size_become_one_size(tmp_path):
    write_all("pascal_context", tmp_path, SIZES, 20, 14)
    data = pascal_context(str(tmp_path), size=(16, 24))
    for split in (data.train, data.test):
        (batch,) = split.batches(10, torch.Generator().manual_seed(0))
        assert batch.inputs.shape[1:] == (3, 16, 24)
        assert {tuple(target.shape[-2:]) for target in batch.targets.values()} == {(16, 24)}
        lengths = batch.targets["normals"].norm(dim=1)
        assert torch.all(((lengths - 1).abs() < 1e-5) | (lengths > 400))
        assert set(batch.targets["segmentation"].unique().tolist()) <= {0, 5, 9, 15, 20, 255}


def test_nyud_mt(tmp_path):
    scenes = write_all("nyud_mt", tmp_path, SIZES)
    data = nyud_mt(str(tmp_path), size=(HEIGHT, WIDTH))
    inputs, targets = one_batch(data.test)
    files = [tmp_path / "images" / f"val_{number:04d}.jpg" for number in range(2)]
    assert torch.allclose(inputs, torch.stack([standardized(path) for path in files]), atol=1e-5)
    classes = np.array([0, 1, 21, 17, 28, 34, 39])
    expected = stacked(scenes["val"], lambda scene: marked(classes[scene.semantics], scene.edges, 255))
    assert torch.equal(targets["segmentation"], expected)
    depth = stacked(scenes["val"], lambda scene: marked(scene.depth, scene.edges, 255))
    assert torch.equal(targets["depth"][:, 0], depth)
    normals = stacked(scenes["val"], lambda scene: marked(scene.normals, scene.edges, 255))
    assert torch.allclose(targets["normals"], normals.float(), atol=1e-6)
    assert torch.equal(targets["edges"][:, 0], stacked(scenes["val"], lambda scene: scene.edges).float())


def test_nyud_mt_measures_the_root_over_the_whole_split(tmp_path):
    write_all("nyud_mt", tmp_path, SIZES)
    (make,) = nyud_mt(str(tmp_path), size=(HEIGHT, WIDTH)).tasks[1].metrics
    metric = make()
    assert isinstance(metric, RootMeanSquareError)
    metric.update(torch.tensor([[[[3.0, 7.0]]]]), torch.tensor([[[[0.5, 255.0]]]]))
    metric.update(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[0.5, 2.5]]]]))
    assert metric.compute() == pytest.approx(((2.5**2 + 2 * 0.5**2) / 3) ** 0.5)


def test_metagraspnet(tmp_path):
    scenes = write_all("metagraspnet", tmp_path, {"train": 3, "test": 2})
    data = metagraspnet(str(tmp_path), max_objects=4)
    assert (len(data.train), len(data.test)) == (3, 2)
    inputs, targets = one_batch(data.test)
    found = scenes["test"]
    assert torch.allclose(inputs, stacked(found, lambda scene: np.rint(255 * scene.rgb)) / 255)
    assert torch.equal(targets["foreground"], stacked(found, lambda scene: (scene.instances > 0).astype(np.int64)))
    depth = stacked(found, lambda scene: marked(scene.depth, scene.edges, 0))
    assert torch.allclose(targets["depth"][:, 0], depth)
    for number, scene in enumerate(found):
        assert torch.equal(targets["boxes"][number, :2], torch.from_numpy(scene.boxes).float())
        assert torch.equal(targets["amodal"][number, :2].bool(), torch.from_numpy(scene.amodal))
        visible = np.stack([scene.instances == 1, scene.instances == 2])
        assert torch.equal(targets["visible"][number, :2].bool(), torch.from_numpy(visible))
        assert torch.allclose(targets["occlusion"][number, :2], torch.from_numpy(scene.occlusion))
        # The first object hides nothing, the second is hidden by it.
        expected = np.where(scene.instances == 0, -1, scene.instances - 1)
        assert torch.equal(targets["occluded"][number], torch.from_numpy(expected).long())
    for name, empty in (("boxes", 0), ("amodal", 0), ("visible", 0), ("occlusion", -1)):
        assert torch.all(targets[name][:, 2:] == empty)


def test_metagraspnet_boxes_follow_mirror_and_size(tmp_path):
    write_all("metagraspnet", tmp_path, {"train": 2, "test": 1})
    data = metagraspnet(str(tmp_path), size=(2 * HEIGHT, 2 * WIDTH), max_objects=2)
    originals = list(zip(*boxes_of(data.train), strict=True))
    mirrored = []
    for seed in range(6):
        for image, boxes in zip(*boxes_of(data.train, torch.Generator().manual_seed(seed)), strict=True):
            ((found, flip),) = [
                (expected, flip)
                for original, expected in originals
                for flip in (False, True)
                if torch.allclose(image.flip(-1) if flip else image, original, atol=1e-5)
            ]
            sides = 2 * WIDTH - found[:, [2, 0]] if flip else found[:, [0, 2]]
            assert torch.equal(boxes[:, [0, 2]], sides)
            assert torch.equal(boxes[:, [1, 3]], found[:, [1, 3]])
            mirrored.append(flip)
    assert set(mirrored) == {True, False}


def boxes_of(split, generator=None):
    (batch,) = split.batches(10, generator)
    return batch.inputs, batch.targets["boxes"]


def test_metagraspnet_divides_scenes_by_seed_where_there_are_no_lists(tmp_path):
    write_all("metagraspnet", tmp_path, {"train": 9, "test": 1})
    for name in ("train", "test"):
        (tmp_path / "dataset_sim" / f"{name}.txt").unlink()
    first, again, other = (metagraspnet(str(tmp_path), test_share=0.3, seed=seed) for seed in (0, 0, 1))
    assert (len(first.train), len(first.test)) == (7, 3)
    assert first.test.ids == again.test.ids != other.test.ids
    assert not set(first.train.ids) & set(first.test.ids)


def test_metagraspnet_real_scenes(tmp_path):
    scenes = write_all("metagraspnet", tmp_path, {"train": 2, "test": 1})
    expected = one_batch(metagraspnet(str(tmp_path), max_objects=2).train)
    (tmp_path / "dataset_sim").rename(tmp_path / "dataset_real")
    for number, scene in zip((0, 2), scenes["train"], strict=True):
        folder = tmp_path / "dataset_real" / f"scene{number}"
        visible = np.stack([scene.instances == 1, scene.instances == 2])
        masks = np.stack([visible, scene.amodal], axis=1).astype(np.uint8)
        np.savez(folder / "0_amodal.npz", amodal_bitmaps_full_size_instances=masks)
        # Views without outlines are left out.
        (folder / "7.npz").write_bytes(b"")
    (tmp_path / "dataset_real" / "test.txt").write_text("scene2\n")
    found = one_batch(metagraspnet(str(tmp_path), part="real", max_objects=2).train)
    assert torch.equal(found.inputs, expected.inputs)
    assert all(torch.equal(found.targets[name], target) for name, target in expected.targets.items())


@pytest.mark.parametrize(
    ("name", "load"), [("nyuv2", nyuv2), ("cityscapes_png", cityscapes_png), ("pascal_context", pascal_context)]
)
def test_pseudo_labels_join_the_training_samples(tmp_path, name, load):
    height, width = 64, 96
    scenes = write_all(f"{name}+pseudo", tmp_path, SIZES, height, width)
    options = {"size": (height, width)} if name == "pascal_context" else {}
    options |= {"crop": (64, 64)} if name == "cityscapes_png" else {}
    data = load(str(tmp_path), pseudo_labels=True, **options)
    assert [task.name for task in data.tasks[-3:]] == ["pseudo_segmentation", "pseudo_class", "pseudo_tokens"]
    targets = one_batch(data.train).targets
    right = targets["pseudo_segmentation"] == stacked(scenes["train"], lambda scene: COCO_IDS[scene.semantics])
    assert right.float().mean() > 0.5
    assert targets["pseudo_class"].shape == (3, 1000)
    assert torch.allclose(targets["pseudo_class"].sum(dim=1), torch.ones(3), atol=0.01)
    assert targets["pseudo_tokens"].shape == (3, 10, 2, 3)
    assert torch.all(targets["pseudo_tokens"][:, 5:].sum(dim=1) <= 0.91)
    assert not set(one_batch(data.test).targets) & set(targets) - {task.name for task in data.tasks[:-3]}
    (augmented,) = data.train.batches(10, torch.Generator().manual_seed(0))
    assert augmented.targets["pseudo_tokens"].shape == (3, 10, 2, 2 if name == "cityscapes_png" else 3)
    assert augmented.targets["pseudo_segmentation"].shape == augmented.targets["segmentation"].shape
    outputs = {
        task.name: torch.randn(3, task.outputs, *(() if task.kind == "classes" else augmented.inputs.shape[-2:]))
        for task in data.tasks
    }
    for task in data.tasks:
        assert torch.isfinite(task.loss(outputs[task.name], augmented.targets[task.name]))


def test_noise_is_a_map_of_its_own_for_each_image(tmp_path):
    write_all("nyuv2", tmp_path, SIZES)
    maps = one_batch(nyuv2(str(tmp_path), noise=True).train).targets["noise"]
    assert maps.shape == (3, 1, HEIGHT, WIDTH)
    assert 0 <= maps.min() <= maps.max() < 1
    assert len({values.sum().item() for values in maps}) == 3
    assert torch.equal(one_batch(nyuv2(str(tmp_path), noise=True).train).targets["noise"], maps)
    assert "noise" not in one_batch(nyuv2(str(tmp_path), noise=True).test).targets


LOADERS = {
    "nyuv2": nyuv2,
    "cityscapes": cityscapes,
    "cityscapes_png": lambda root, **options: cityscapes_png(root, (8, 8), **options),
    "pascal_context": lambda root, **options: pascal_context(root, (HEIGHT, WIDTH), **options),
    "nyud_mt": lambda root, **options: nyud_mt(root, (HEIGHT, WIDTH), **options),
    "metagraspnet": lambda root, **options: metagraspnet(root, max_objects=2, **options),
}


@pytest.mark.parametrize("name", LOADERS)
def test_passes_resume_and_threads_change_nothing(tmp_path, name):
    write_all(name, tmp_path, {"train": 5, "test" if name == "metagraspnet" else "val": 1})
    passes = [
        list(LOADERS[name](str(tmp_path), workers=workers).train.batches(2, torch.Generator().manual_seed(1), skip))
        for workers, skip in ((0, 0), (2, 0), (0, 2))
    ]
    assert [len(pass_) for pass_ in passes] == [3, 3, 1]
    for batches, start in ((passes[1], 0), (passes[2], 2)):
        for batch, expected in zip(batches, passes[0][start:], strict=True):
            assert torch.equal(batch.inputs, expected.inputs)
            assert all(torch.equal(batch.targets[key], target) for key, target in expected.targets.items())


@pytest.mark.parametrize("name", LOADERS)
def test_losses_and_metrics_take_what_the_loader_gives(tmp_path, name):
    write_all(name, tmp_path, {"train": 3, "test" if name == "metagraspnet" else "val": 2})
    data = LOADERS[name](str(tmp_path))
    assert len({task.name for task in data.tasks}) == len(data.tasks)
    for split in (data.train, data.test):
        batch = one_batch(split)
        for task in data.tasks:
            output = torch.randn(len(batch.inputs), task.outputs, *batch.inputs.shape[-2:], requires_grad=True)
            loss = task.loss(output, batch.targets[task.name])
            loss.backward()
            assert torch.isfinite(loss)
            assert torch.isfinite(output.grad).all()
            metrics = [make() for make in task.metrics]
            assert metrics
            for metric in metrics:
                metric.update(output.detach(), batch.targets[task.name])
                assert isinstance(metric.compute(), float)
            assert len({metric.name for metric in metrics}) == len(metrics)
