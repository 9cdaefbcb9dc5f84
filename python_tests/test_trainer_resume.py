"""A run that stops, however it stops, and goes on as if it had not."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace

import pytest
import torch
from small_data import SIZE, make_data, make_own_data
from torch import nn

from mtl_ext.cli import main, train
from mtl_ext.models import MODELS, small_conv
from mtl_ext.trainers import RunInterrupted, TrainConfig, checkpoint, train_run
from mtl_ext.trainers.interrupt import deferred_interrupt

BASE = TrainConfig(
    model="with_dropout",
    model_options={"size": SIZE},
    epochs=3,
    batch_size=16,
    accumulate=2,
    holdout=0.1,
    select="best_val_mean/abs err",
    warmup_steps=2,
    checkpoint_steps=2,
    log_steps=1,
    monitor_every=4,
)
RUNS = [
    pytest.param({"method": "GradDrop", "level": "feature"}, make_data, id="GradDrop"),
    pytest.param({"method": "MoCo", "accumulate_by": "tasks"}, make_data, id="MoCo"),
    pytest.param({"method": "MoDo", "optimizer": "SGD", "optimizer_options": {"momentum": 0.9}}, make_data, id="MoDo"),
    pytest.param({"method": "GradVac", "holdout": 0.0, "select": "best_test"}, make_own_data, id="own inputs"),
]


@pytest.fixture(autouse=True)
def model_that_draws(monkeypatch):
    def with_dropout(tasks, size):
        model = small_conv(tasks, size=size)
        model.encoder = nn.Sequential(nn.Dropout(0.2), nn.BatchNorm2d(1), model.encoder)
        return model

    monkeypatch.setitem(MODELS, "with_dropout", with_dropout)


def contents(folder):
    """What a run leaves, but for the time that it took."""
    results = json.loads((folder / "results.json").read_text())
    results.pop("step_seconds")
    tables = [(folder / name).read_text() for name in ("epochs.csv", "steps.csv", "config.yaml")]
    return results, tables, torch.load(folder / "model.pt", weights_only=True)


def assert_same(folder, other):
    (results, tables, model), (other_results, other_tables, other_model) = contents(folder), contents(other)
    assert results == other_results
    assert tables == other_tables
    assert all(torch.equal(model[name], other_model[name]) for name in other_model)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at_step(last, *arguments, **options):
    train_run(*arguments, **options, on_progress=lambda record: record.step == last and die())


def killed_in_save(position, *arguments, **options):
    """Dies in the save number `position` from 0: in the middle of the file, or with the file complete but not named."""
    saves, save = [], torch.save

    def half_a_save(content, file):
        saves.append(1)
        save(content, file)
        if len(saves) == position + 1:
            file.truncate(file.tell() // 2)
            file.flush()
            die()

    checkpoint.torch.save = half_a_save
    train_run(*arguments, **options)


def killed_before_rename(*arguments, **options):
    replace_file = os.replace

    def die_with_checkpoint(source, target):
        if str(target).endswith("checkpoint.pt"):
            die()
        replace_file(source, target)

    os.replace = die_with_checkpoint
    train_run(*arguments, **options)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(("change", "make"), RUNS)
def test_a_run_killed_again_and_again_ends_with_the_same_bits(tmp_path, change, make):
    config, data = replace(BASE, **change), make()
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_run(config, data, whole)
    fork = multiprocessing.get_context("fork")
    kills = [
        (killed_in_save, 0, False),  # before there is any checkpoint
        (killed_at_step, 3, True),
        (killed_in_save, 1, True),
        (killed_before_rename, None, True),
        (killed_at_step, 8, True),
    ]
    for kill, position, resume in kills:
        arguments = (config, data, killed) if position is None else (position, config, data, killed)
        child = fork.Process(target=kill, args=arguments, kwargs={"resume": resume})
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    first_steps = []
    train_run(config, data, killed, resume=True, on_progress=lambda record: first_steps.append(record.step))
    assert first_steps[0] > 1
    assert_same(killed, whole)


def test_ctrl_c_finishes_the_step_and_saves(tmp_path):
    config, data = replace(BASE, method="GradVac", checkpoint_steps=0, checkpoint_every=0), make_data()
    train_run(config, data, tmp_path / "whole")
    steps = []

    def press_ctrl_c(record):
        steps.append(record.step)
        if record.step == 4:
            signal.raise_signal(signal.SIGINT)

    folder = tmp_path / "interrupted"
    with pytest.raises(RunInterrupted, match=f"after 4 of 9 steps.*mtl-ext train --out {folder} --resume"):
        train_run(config, data, folder, on_progress=press_ctrl_c)
    assert steps == [1, 2, 3, 4]
    train_run(config, data, folder, resume=True)
    assert_same(folder, tmp_path / "whole")
    assert train_run(config, data, folder, resume=True).epochs[-1].epoch == 3  # nothing left to do


@pytest.fixture
def answers_ctrl_c():
    """Python's own handler, also where the tests run in the background of a shell, which ignores Ctrl-C there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_does_not_wait(answers_ctrl_c):
    with pytest.raises(KeyboardInterrupt), deferred_interrupt(True) as flag:
        signal.raise_signal(signal.SIGINT)
        assert flag.is_set
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is answers_ctrl_c


def test_the_command_line_ends_with_130_and_goes_on_from_the_folder_alone(tmp_path, capsys, monkeypatch):
    label = train.step_label
    options = ["--data_options.train_size", "96", "--data_options.test_size", "32", "--batch_size", "32"]
    options += ["--method", "GradDrop", "--epochs", "2", "--log_steps", "1", "--out"]
    assert main(["train", *options, str(tmp_path / "whole")]) == 0
    folder = tmp_path / "stopped"

    def press_ctrl_c(config, record):
        if record.step == 2:
            signal.raise_signal(signal.SIGINT)
        return label(config, record)

    monkeypatch.setattr(train, "step_label", press_ctrl_c)
    assert main(["train", *options, str(folder)]) == 130
    monkeypatch.undo()
    assert capsys.readouterr().err == (
        f"mtl-ext: interrupted after 2 of 6 steps, nothing is lost: mtl-ext train --out {folder} --resume\n"
    )
    assert main(["train", "--out", str(folder)]) == 1
    assert "holds an unfinished run: --resume it" in capsys.readouterr().err
    assert main(["train", "--out", str(folder), "--resume", "--lr", "0.5", "--method", "UW"]) == 1
    error = capsys.readouterr().err
    assert "differs in method ('GradDrop' there, 'UW' here), lr (0.005 there, 0.5 here)" in error
    assert main(["train", "--out", str(folder), "--resume"]) == 0
    assert_same(folder, tmp_path / "whole")


def test_resuming_needs_a_folder_with_a_run(tmp_path, capsys):
    assert main(["train", "--resume"]) == 2
    assert "--resume needs --out" in capsys.readouterr().err
    assert main(["train", "--resume", "--out", str(tmp_path)]) == 2
    assert f"there is no run to resume in {tmp_path}" in capsys.readouterr().err
    with pytest.raises(ValueError, match="resume goes on with what a folder holds"):
        train_run(BASE, make_data(), resume=True)


def flip(data):
    data[len(data) // 2] ^= 1


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (flip, "does not fit its checksum"),
        (lambda data: data.__delitem__(slice(len(data) // 2, None)), "not a zip file"),
        (lambda data: data.clear(), "not a zip file"),
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path, damage, text):
    path, config = tmp_path / "checkpoint.pt", TrainConfig()
    checkpoint.save_checkpoint(path, config, {"tensor": torch.zeros(1000), "list": [1, 2.0, None, "a", (3,)]})
    assert checkpoint.load_checkpoint(path, config)["list"] == [1, 2.0, None, "a", (3,)]
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"cannot be resumed from: .*{text}.*--overwrite"):
        checkpoint.load_checkpoint(path, config)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="cannot be resumed from: it is no checkpoint"):
        checkpoint.load_checkpoint(path, TrainConfig())
    torch.save(RunInterrupted, path)
    with pytest.raises(ValueError, match="cannot be resumed from: Weights only load failed"):
        checkpoint.load_checkpoint(path, TrainConfig())


def test_a_checkpoint_of_another_model_is_refused(tmp_path, monkeypatch):
    config = replace(BASE, epochs=1, select="last")
    train_run(config, make_data(), tmp_path)
    monkeypatch.setitem(MODELS, "with_dropout", small_conv)
    with pytest.raises(ValueError, match="was written by another version of model or method"):
        train_run(config, make_data(), tmp_path, resume=True)
