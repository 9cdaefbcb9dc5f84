"""`mtl-ext make-data`: the same files whatever happens, and nobody's files lost."""

import json

import numpy as np
import pytest

from mtl_ext.cli import main
from mtl_ext.data.generators import GENERATORS, Extent, FolderGenerator, SampleGenerator
from mtl_ext.data.make_data import DESCRIPTION, DataPlan, make_data, plan_data
from mtl_ext.data.scenes import render_scene

SMALL = ["--train", "5", "--test", "3", "--height", "16", "--width", "24"]


class NumberWriter:
    """A layout of three splits: a file of text per sample, and a list of all."""

    def __init__(self):
        self.size = (20, 30)
        self.splits = {"train": 40, "dev": 20, "final": 10}
        self.written = []
        self.fail_at = None

    def write(self, sample, root, split, index):
        if len(self.written) == self.fail_at:
            (root / split / f"{index}.txt").write_text("half")
            raise KeyboardInterrupt
        self.written.append((split, index))
        (root / split).mkdir(exist_ok=True)
        (root / split / f"{index}.txt").write_text(str(sample))

    def finish(self, root, sizes):
        assert all((root / split / f"{index}.txt").exists() for split, size in sizes.items() for index in range(size))
        (root / "list.json").write_text(json.dumps(dict(sizes)))


def make_number(seed, index, height, width):
    return f"{seed} {index} {height}x{width}"


@pytest.fixture
def writer(monkeypatch):
    writer = NumberWriter()
    monkeypatch.setitem(GENERATORS, "numbers", SampleGenerator(make_number, {"text": writer}, version=3))
    return writer


def plan(train=4, **options):
    return plan_data("numbers", "text", train=train, val=2, test=3, **options)


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(capsys, *arguments):
    status = main(["make-data", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, " ".join(captured.out.split()), captured.err


def test_the_command_writes_what_was_rendered_the_same_with_any_number_of_workers(tmp_path, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    status, out, _ = run(capsys, "scenes", "--layout", "nyuv2", "--out", one, *SMALL, "--seed", 9, "--workers", 1)
    assert status == 0
    assert "5 train and 3 val samples of 16 x 24 written to" in out
    assert run(capsys, "scenes", "--layout", "nyuv2", "--out", two, *SMALL, "--seed", 9, "--workers", 2)[0] == 0
    assert tree(one) == tree(two)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    assert sorted(path.name for path in one.iterdir()) == [DESCRIPTION, "train", "val"]
    assert len(list((one / "train/image").iterdir())) == 5
    for split, index, first in (("train", 4, 0), ("val", 2, 10**9)):
        scene = render_scene(9, first + index, 16, 24)
        assert np.array_equal(np.load(one / split / "image" / f"{index}.npy"), scene.rgb)
        depth = np.load(one / split / "depth" / f"{index}.npy")[..., 0]
        assert np.array_equal(depth, np.where(scene.edges, 0, scene.depth))


def test_sizes_are_the_published_ones_unless_given(writer):
    assert plan_data("scenes", "nyuv2") == DataPlan(
        "scenes", "nyuv2", Extent({"train": 795, "val": 654}, (288, 384)), seed=0
    )
    given = plan_data("numbers", "text", train=1, val=2, test=3, height=8, width=9, seed=4)
    assert given == DataPlan("numbers", "text", Extent({"train": 1, "dev": 2, "final": 3}, (8, 9)), seed=4)
    assert plan_data("numbers", "text", test=1).extent.splits == {"train": 40, "dev": 20, "final": 1}


def test_splits_draw_from_different_parts_of_the_series(writer, tmp_path):
    make_data(plan(seed=7), tmp_path / "out")
    samples = {path: text for path, text in tree(tmp_path / "out").items() if path.endswith("txt")}
    assert len(set(samples.values())) == len(samples) == 9
    assert samples["train/1.txt"] == b"7 1 20x30"
    assert samples["final/0.txt"] == b"7 2000000000 20x30"
    description = json.loads((tmp_path / "out" / DESCRIPTION).read_text())
    assert (description["generator"], description["seed"], description["version"]) == ("numbers", 7, 3)


def test_an_interrupted_call_goes_on_where_it_was(writer, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    make_data(plan(), whole)
    writer.written, writer.fail_at = [], 5
    with pytest.raises(KeyboardInterrupt):
        make_data(plan(), out)
    assert not out.exists()
    first, writer.written, writer.fail_at = writer.written, [], None
    done = []
    make_data(plan(), out, advance=done.append)
    assert first + writer.written == [(s, i) for s, n in plan().extent.splits.items() for i in range(n)]
    assert done == [5, 1, 1, 1, 1]
    assert tree(out) == tree(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


@pytest.mark.parametrize("cut", [b"", b"train 0\ntrain 1\ntra", b"\xff\n", b"train 0\ntrain"])
def test_a_broken_list_of_what_is_done_costs_time_only(writer, tmp_path, cut):
    whole, out = tmp_path / "whole", tmp_path / "out"
    make_data(plan(), whole)
    writer.written, writer.fail_at = [], 5
    with pytest.raises(KeyboardInterrupt):
        make_data(plan(), out)
    (tmp_path / ".out.partial" / "make-data.done").write_bytes(cut)
    writer.fail_at = None
    make_data(plan(), out)
    assert tree(out) == tree(whole)


def write_folder(root, layout, sizes, seed, on_sample):
    for index in range(sizes["images"]):
        (root / f"{index}.txt").write_text(f"{layout} {seed}")
        on_sample()


def test_a_function_that_writes_the_whole_folder_is_a_generator_too(monkeypatch, tmp_path, capsys):
    generator = FolderGenerator(write_folder, {"plain": {"images": 9}}, version=1)
    monkeypatch.setitem(GENERATORS, "notes", generator)
    status, out, _ = run(capsys, "notes", "--layout", "plain", "--out", tmp_path / "out", "--train", 2, "--seed", 5)
    assert status == 0
    assert "2 images samples written to" in out
    assert tree(tmp_path / "out")["1.txt"] == b"plain 5"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.txt", "1.txt", DESCRIPTION]
    assert plan_data("notes", "plain").extent == Extent({"images": 9}, None)
    with pytest.raises(ValueError, match="width is 30, but images of layout 'plain' have one size only: leave it out"):
        plan_data("notes", "plain", width=30)
    with pytest.raises(ValueError, match="test is 3, but layout 'plain' has only images"):
        plan_data("notes", "plain", test=3)


def test_another_plan_starts_anew(writer, tmp_path):
    writer.fail_at = 5
    with pytest.raises(KeyboardInterrupt):
        make_data(plan(seed=1), tmp_path / "out")
    writer.written, writer.fail_at = [], None
    make_data(plan(train=2, seed=2), tmp_path / "out")
    assert len(writer.written) == 7
    assert sorted(path.name for path in (tmp_path / "out" / "train").iterdir()) == ["0.txt", "1.txt"]


def test_only_what_make_data_made_is_replaced_and_only_when_told(writer, tmp_path):
    out, mine = tmp_path / "out", tmp_path / "mine"
    out.mkdir()
    make_data(plan(), out)
    before = tree(out)
    with pytest.raises(FileExistsError, match="out holds a data set: choose another folder, or --overwrite"):
        make_data(plan(seed=1), out)
    assert tree(out) == before
    make_data(plan(seed=1), out, overwrite=True)
    assert tree(out)["train/0.txt"] == b"1 0 20x30"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for taken in (mine, mine / "thesis.txt"):
        with pytest.raises(FileExistsError, match="was not made by make-data, so it is never replaced"):
            make_data(plan(), taken, overwrite=True)
    assert tree(mine) == {"thesis.txt": b"years of work"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


def test_a_failed_replacement_leaves_the_old_data(writer, tmp_path):
    make_data(plan(), tmp_path / "out")
    before = tree(tmp_path / "out")
    writer.fail_at = len(writer.written) + 3
    with pytest.raises(KeyboardInterrupt):
        make_data(plan(seed=1), tmp_path / "out", overwrite=True)
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["scenes", "--layout", "nyu"], 1, "layout is 'nyu', expected"),
        (["sounds", "--layout", "nyuv2"], 2, "sounds"),
        (["scenes", "--layout", "nyuv2", "--train", "0"], 1, "train is 0, expected at least 1"),
        (["scenes", "--layout", "nyuv2", "--val", "3"], 1, "val is 3, but layout 'nyuv2' has only train and val"),
        (["scenes", "--layout", "nyuv2", "--height", "7"], 1, "height is 7, expected at least 8"),
        (["scenes", "--layout", "nyuv2", "--seed", "-1"], 1, "seed is -1, expected at least 0"),
        (["scenes", "--layout", "nyuv2", "--workers", "0"], 1, "workers is 0, expected at least 1"),
        (["scenes"], 2, "layout"),
    ],
)
def test_errors_take_one_line_and_leave_nothing(tmp_path, capsys, arguments, status, text):
    found, _, err = run(capsys, *arguments, "--out", tmp_path / "out")
    assert (found, err.count("\n")) == (status, 1)
    assert text in err
    assert not list(tmp_path.iterdir())
