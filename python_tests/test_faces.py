"""Faces: their traits, what of them is seen, and CelebA's and UTKFace's files."""

import json
from statistics import NormalDist

import numpy as np
import pytest
import torch
from PIL import Image

from mtl_ext.data import celeba, faces, utkface
from mtl_ext.data.celeba import ATTRIBUTES, PRESETS, choose_attributes
from mtl_ext.data.faces import FACE_LAYOUTS, make_face
from mtl_ext.data.faces.drawing import Looks, draw_face
from mtl_ext.data.faces.traits import FACIAL_HAIR, HAIR_COLOURS, TRAITS, VISIBLE, draw_people, loadings, make_consistent
from mtl_ext.data.make_data import make_data, plan_data
from mtl_ext.data.utkface import parse_name, utkface_targets

SIZES = {"train": 7, "val": 2, "test": 3}


def write(layout, root, sizes):
    writer, drawn = FACE_LAYOUTS[layout], {}
    for part, (split, count) in enumerate(sizes.items()):
        drawn[split] = [make_face(0, 100 * part + index, *writer.size) for index in range(count)]
        for index, face in reversed(list(enumerate(drawn[split]))):
            writer.write(face, root, split, index)
    writer.finish(root, sizes)
    return drawn


@pytest.fixture(scope="module", params=["celeba", "celeba_png"])
def celeba_files(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    return root, write(request.param, root, SIZES)


@pytest.fixture(scope="module")
def people():
    return draw_people(6000, np.random.default_rng(0))


def test_presets_are_exactly_the_published_names():
    assert len(ATTRIBUTES) == len(set(ATTRIBUTES)) == 40
    assert (ATTRIBUTES[0], ATTRIBUTES[20], ATTRIBUTES[39]) == ("5_o_Clock_Shadow", "Male", "Young")
    assert " ".join(PRESETS["saal"]) == (
        "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair"
    )
    assert " ".join(PRESETS["tag"]) == (
        "5_o_Clock_Shadow Black_Hair Blond_Hair Brown_Hair Goatee Mustache No_Beard Rosy_Cheeks Wearing_Hat"
    )
    assert PRESETS["all"] == ATTRIBUTES


def test_attributes_have_the_stated_rates_and_correlations():
    """The copula's normal scores, before what cannot be seen together is removed."""
    weights = loadings()
    assert (np.square(weights).sum(1) <= 1).all()
    rng = np.random.default_rng(0)
    factors, own = rng.standard_normal((20000, 3)), rng.standard_normal((20000, 40))
    scores = factors @ weights.T + own * np.sqrt(1 - np.square(weights).sum(1))
    expected = weights @ weights.T
    np.fill_diagonal(expected, 1)
    np.testing.assert_allclose(np.corrcoef(scores.T), expected, atol=0.03)


def test_rates_and_joint_rates_of_drawn_attributes_follow_the_copula(people):
    share = dict(zip(ATTRIBUTES, people.attributes.mean(0), strict=True))
    for name in ("Male", "Young", "Smiling", "Eyeglasses", "Wearing_Lipstick", "Attractive"):
        assert share[name] == pytest.approx(TRAITS[name].rate, abs=0.025)
    column = {name: people.attributes[:, i] for i, name in enumerate(ATTRIBUTES)}
    both = (column["Heavy_Makeup"] & column["Wearing_Lipstick"]).mean()
    rho = float(loadings()[ATTRIBUTES.index("Heavy_Makeup")] @ loadings()[ATTRIBUTES.index("Wearing_Lipstick")])
    points = np.random.default_rng(1).multivariate_normal([0, 0], [[1, rho], [rho, 1]], 200000)
    limits = [NormalDist().inv_cdf(1 - TRAITS[name].rate) for name in ("Heavy_Makeup", "Wearing_Lipstick")]
    assert both == pytest.approx((points > limits).all(1).mean(), abs=0.025)


def test_traits_that_cannot_be_seen_together_do_not_occur_together(people):
    has = {name: people.attributes[:, i] for i, name in enumerate(ATTRIBUTES)}
    assert np.sum([has[name] for name in HAIR_COLOURS], axis=0).max() == 1
    assert not (has["Straight_Hair"] & has["Wavy_Hair"]).any()
    for name in ("Bangs", "Straight_Hair", "Wavy_Hair", *HAIR_COLOURS):
        assert not (has["Bald"] & has[name]).any()
    assert not (has["Wearing_Hat"] & has["Bangs"]).any()
    for name in FACIAL_HAIR:
        assert not (has["No_Beard"] & has[name]).any()
    children = people.age < 16
    assert children.mean() > 0.05
    assert has["No_Beard"][children].all()
    assert not has["Bald"][children].any()
    assert (people.age.min(), people.age.max()) >= (1, 90)
    assert np.bincount(people.group, minlength=5) / 6000 == pytest.approx([0.4, 0.2, 0.15, 0.15, 0.1], abs=0.03)
    assert (has["Young"] == (people.age < np.median(people.age[~has["Young"]]))).mean() > 0.8


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_visible_attributes_and_only_those_change_the_image(name):
    changed = []
    for seed in range(3):
        margins = np.full((1, 40), -1.0)
        margins[0, ATTRIBUTES.index("No_Beard")] = 1.0
        plain = dict(zip(ATTRIBUTES, make_consistent(margins, np.array([30]))[0].tolist(), strict=True))
        looks = Looks.draw(np.random.default_rng(seed))
        # An attribute is drawn itself, but for Young, which is seen by the wrinkles of those who are not.
        ages = (60, 30) if name == "Young" else (30, 30)
        pair = [
            draw_face({**plain, name: value}, age, 0, looks, 64) for value, age in zip((False, True), ages, strict=True)
        ]
        images = [image.astype(float) for image in pair]
        changed.append(int((np.abs(images[0] - images[1]).max(-1) > 20).sum()))
    if name in VISIBLE:
        assert min(changed) >= 12
    else:
        assert changed == [0, 0, 0]


def test_a_face_is_decided_by_seed_and_number_and_keeps_its_traits_at_every_size():
    face, again, other = make_face(3, 5, 64, 64), make_face(3, 5, 64, 64), make_face(3, 6, 64, 64)
    assert np.array_equal(face.pixels, again.pixels)
    assert not np.array_equal(face.pixels, other.pixels)
    large = make_face(3, 5, 128, 96)
    assert large.pixels.shape == (128, 96, 3)
    assert np.array_equal(large.attributes, face.attributes)
    assert (large.age, large.group) == (face.age, face.group)


def test_faces_in_memory_have_the_labels_that_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_EXT_CACHE", str(tmp_path))
    data = faces(train_size=6, test_size=4)
    assert tuple(task.name for task in data.tasks) == PRESETS["saal"]
    (batch,) = data.test.batches(9)
    assert batch.inputs.shape == (4, 3, 64, 64)
    drawn = [make_face(0, index, 64, 64) for index in range(6, 10)]
    pixels = np.stack([face.pixels for face in drawn]).transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(batch.inputs.numpy(), pixels, atol=1e-6)
    for k, name in enumerate(PRESETS["saal"]):
        assert batch.targets[name].tolist() == [int(face.attributes[k]) for face in drawn]
    other = faces("utkface", 6, 4)
    assert [(task.name, task.outputs) for task in other.tasks] == [("age", 7), ("gender", 2), ("ethnicity", 5)]
    (batch,) = other.test.batches(9)
    assert batch.targets["age"].tolist() == [min(face.age // 10, 6) for face in drawn]
    assert batch.targets["gender"].tolist() == [face.gender for face in drawn]
    assert len(faces("visible", 6, 4).tasks) == 38
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="labels is 'sall', expected one of 'saal', 'tag'"):
        faces("sall")
    with pytest.raises(ValueError, match="test_size is 0"):
        faces(test_size=0)


def test_celeba_files_give_back_what_was_written(celeba_files):
    root, drawn = celeba_files
    data = celeba(str(root), "all", size=None)
    assert [len(split) for split in (data.train, data.val, data.test)] == [7, 2, 3]
    for split, name in ((data.train, "train"), (data.val, "val"), (data.test, "test")):
        (batch,) = split.batches(10)
        attributes = torch.stack([batch.targets[name] for name in ATTRIBUTES], dim=1).bool().numpy()
        assert np.array_equal(attributes, np.stack([face.attributes for face in drawn[name]]))
        assert batch.inputs.shape == (len(split), 3, 218, 178)
        if (root / "Img").exists():
            pixels = np.stack([face.pixels for face in drawn[name]]).transpose(0, 3, 1, 2)
        else:
            files = sorted((root / "celeba" / "img_align_celeba").iterdir())
            number = {"train": 0, "val": 7, "test": 9}[name]
            images = [np.asarray(Image.open(path)) for path in files[number : number + len(split)]]
            pixels = np.stack(images).transpose(0, 3, 1, 2)
            assert np.abs(pixels[0].astype(int) - drawn[name][0].pixels.transpose(2, 0, 1)).mean() < 6
        np.testing.assert_array_equal((batch.inputs * 255).round().numpy(), pixels)


def test_celeba_files_are_numbered_as_published(celeba_files):
    root, _ = celeba_files
    (path,) = root.rglob("list_eval_partition.txt")
    lines = path.read_text().split("\n")
    assert (lines[0], lines[7], lines[9]) == ("000001.jpg 0", "162771.jpg 1", "182638.jpg 2")


def test_celeba_options(celeba_files):
    root, _ = celeba_files
    data = celeba(str(root), ["Male", "Young"], size=32, fraction=0.5, flip=True, workers=2)
    assert [task.name for task in data.tasks] == ["Male", "Young"]
    assert len(data.train) == 4
    assert data.train.ids == celeba(str(root), fraction=0.5).train.ids
    assert len({tuple(celeba(str(root), fraction=0.5, seed=seed).train.ids) for seed in range(6)}) > 2
    plain = next(celeba(str(root), ["Male"], size=32).train.batches(7)).inputs
    batch = next(data.train.batches(4, torch.Generator().manual_seed(1)))
    assert batch.inputs.shape == (4, 3, 32, 32)
    for image in batch.inputs:
        assert any(torch.equal(image, other) or torch.equal(image, other.flip(-1)) for other in plain)


def test_wrong_celeba_options_are_refused(celeba_files):
    root = str(celeba_files[0])
    with pytest.raises(ValueError, match="fraction is 0"):
        celeba(root, fraction=0)
    with pytest.raises(ValueError, match="attributes is 'nine', expected one of 'saal', 'tag', 'all'"):
        celeba(root, "nine")
    with pytest.raises(ValueError, match="attributes is 'Bold'"):
        celeba(root, ["Bald", "Bold"])
    with pytest.raises(ValueError, match="each only once"):
        choose_attributes(["Bald", "Bald"])
    with pytest.raises(ValueError, match="at least one name"):
        choose_attributes([])


def spoil_text(path, old, new):
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "list_attr_celeba.txt",
            "12\n",
            "13\n",
            "its first line says 13 images, 12 lines follow",
        ),
        ("list_attr_celeba.txt", "Young", "Old", "does not hold the names of the 40 attributes"),
        ("list_attr_celeba.txt", "000003.jpg -1", "000003.jpg  0", "the line of 000003.jpg holds something else"),
        ("list_attr_celeba.txt", "000003.jpg -1", "000003.jpg", "list_attr_celeba.txt cannot be read"),
        ("list_eval_partition.txt", "000002.jpg 0", "000002.jpg 3", "gives 3 for 000002.jpg, expected 0, 1 or 2"),
        ("list_eval_partition.txt", "000002.jpg 0\n", "", "gives nothing for 000002.jpg"),
    ],
)
def test_broken_lists_of_celeba_are_named(tmp_path, name, old, new, message):
    write("celeba", tmp_path, SIZES)
    spoil_text(tmp_path / "celeba" / name, old, new)
    with pytest.raises(ValueError, match=message):
        celeba(str(tmp_path))


def test_missing_and_broken_files_of_celeba_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)no file .*list_attr_celeba.txt.*root/celeba/.*Anno/"):
        celeba(str(tmp_path))
    write("celeba", tmp_path, SIZES)
    image = tmp_path / "celeba" / "img_align_celeba" / "000004.jpg"
    image.write_bytes(image.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"000004\.jpg cannot be read"):
        list(celeba(str(tmp_path)).train.batches(7))
    image.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of 12 images, among them 000004\.jpg"):
        celeba(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("26_1_2_20170116184024662.jpg.chip.jpg", (26, 1, 2)),
        ("116_0_4_20170116184024662.jpg", (116, 0, 4)),
        ("0_0_0_1.jpg", (0, 0, 0)),
        ("39_1_20170116174525125.jpg.chip.jpg", None),
        ("61_3_20170109150557335.jpg.chip.jpg", None),
        ("24_0_1_20170116220224657 .jpg.chip.jpg", None),
        ("53__0_20170116184028385.jpg.chip.jpg", None),
        ("117_0_0_1.jpg", None),
        ("20_2_0_1.jpg", None),
        ("20_0_5_1.jpg", None),
    ],
)
def test_names_of_utkface_are_parsed_or_unusable(name, expected):
    assert parse_name(name) == expected


def test_ages_fall_into_seven_bins():
    ages = [0, 9, 10, 19, 59, 60, 116]
    targets = utkface_targets(np.array([(age, 1, 3) for age in ages]))
    assert targets["age"].tolist() == [0, 0, 1, 1, 5, 6, 6]
    assert targets["gender"].tolist() == [1] * 7
    assert targets["ethnicity"].tolist() == [3] * 7


def test_utkface_files_give_back_what_was_written_and_record_their_split(tmp_path):
    drawn = write("utkface", tmp_path, {"images": 20})["images"]
    data = utkface(str(tmp_path), size=None)
    assert [len(split) for split in (data.train, data.val, data.test)] == [14, 2, 4]
    record = tmp_path / "UTKFace" / "split_seed0.json"
    assert {part: len(names) for part, names in json.loads(record.read_text()).items()} == {
        "train": 14,
        "val": 2,
        "test": 4,
    }
    by_number = {20170101000000000 + index: face for index, face in enumerate(drawn)}
    seen = []
    for split in (data.train, data.val, data.test):
        (batch,) = split.batches(20)
        for index, name in enumerate(split.ids):
            number = int(name.split("_")[3].split(".")[0])
            face = by_number[number]
            seen.append(number)
            targets = [batch.targets[task][index].item() for task in ("age", "gender", "ethnicity")]
            assert targets == [min(face.age // 10, 6), face.gender, face.group]
            pixels = np.asarray(Image.open(tmp_path / "UTKFace" / name)).transpose(2, 0, 1)
            np.testing.assert_array_equal((batch.inputs[index] * 255).round().numpy(), pixels)
    assert sorted(seen) == sorted(by_number)
    again = utkface(str(tmp_path / "UTKFace"))
    assert again.train.ids == data.train.ids
    assert next(again.train.batches(2)).inputs.shape == (2, 3, 200, 200)
    assert utkface(str(tmp_path), seed=1).train.ids != data.train.ids


def test_the_record_of_utkface_is_the_split_and_has_to_fit(tmp_path):
    write("utkface", tmp_path, {"images": 10})
    before = utkface(str(tmp_path))
    record = tmp_path / "UTKFace" / "split_seed0.json"
    split = json.loads(record.read_text())
    split["train"], split["test"] = split["test"], split["train"]
    record.write_text(json.dumps(split))
    assert utkface(str(tmp_path)).test.ids == before.train.ids
    (tmp_path / "UTKFace" / before.train.ids[0]).unlink()
    with pytest.raises(ValueError, match=r"split_seed0\.json does not hold every usable image"):
        utkface(str(tmp_path))
    record.write_text("[]")
    with pytest.raises(ValueError, match=r"split_seed0\.json does not hold"):
        utkface(str(tmp_path))


def test_unusable_names_and_missing_folders_of_utkface_are_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)none of the 0 \.jpg files.*\[age\]_\[gender\]_\[race\]_\[time\]"):
        utkface(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no folder"):
        utkface(str(tmp_path / "nowhere"))
    write("utkface", tmp_path, {"images": 10})
    (tmp_path / "UTKFace" / "39_1_20170116174525125.jpg.chip.jpg").touch()
    with pytest.warns(UserWarning, match="1 of 11 images left out for their names: 39_1_20170116174525125"):
        data = utkface(str(tmp_path))
    assert sum(map(len, (data.train, data.val, data.test))) == 10
    (tmp_path / "UTKFace" / data.train.ids[0]).write_bytes(b"no image")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=f"{data.train.ids[0]} cannot be read"):
        list(utkface(str(tmp_path)).train.batches(9))


def test_make_data_writes_what_the_loader_reads(tmp_path):
    root = tmp_path / "out"
    make_data(plan_data("faces", "celeba", train=3, val=2, test=2, height=109, width=89), root)
    data = celeba(str(root), ["Male"], size=None)
    assert [len(split) for split in (data.train, data.val, data.test)] == [3, 2, 2]
    (batch,) = data.train.batches(3)
    assert batch.inputs.shape == (3, 3, 109, 89)
    expected = [make_face(0, index, 109, 89).attributes[ATTRIBUTES.index("Male")] for index in range(3)]
    assert batch.targets["Male"].tolist() == expected
