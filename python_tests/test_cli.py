"""`mtl-ext train | methods | doctor`, help, and errors in one line."""

import json
import subprocess
import sys

import pytest
import yaml

from mtl_ext import ops
from mtl_ext.cli import main
from mtl_ext.methods import METHODS

SMALL = ["--data_options.train_size", "96", "--data_options.test_size", "32", "--batch_size", "32", "--epochs", "2"]


def run(capsys, *arguments):
    status = main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def results(folder):
    content = json.loads((folder / "results.json").read_text())
    content.pop("step_seconds")
    return content


def test_train_writes_its_folder_and_its_config_repeats_the_run(tmp_path, capsys):
    first, again = tmp_path / "first", tmp_path / "again"
    options = [
        "--method",
        "PCGrad",
        "--method_options.reduction",
        "mean",
        "--level",
        "feature",
        "--tasks",
        "[pixels,left]",
    ]
    status, out, _ = run(capsys, "train", *options, *SMALL, "--seed", 3, "--lr", "1e-3", "--out", first)
    assert status == 0
    assert "pixels" in out
    assert "mIoU %" in out
    config = yaml.safe_load((first / "config.yaml").read_text())
    assert (config["method_options"], config["tasks"], config["lr"]) == (
        {"reduction": "mean"},
        ["pixels", "left"],
        1e-3,
    )
    assert list(results(first)["epochs"][-1]["measures"]) == ["pixels", "left"]
    assert len((first / "epochs.csv").read_text().splitlines()) == 3
    assert list((first / "tensorboard").iterdir())

    assert run(capsys, "train", "--config", first / "config.yaml", "--out", again)[0] == 0
    assert results(again) == results(first)
    assert (again / "config.yaml").read_text() == (first / "config.yaml").read_text()


def test_train_does_not_replace_results_unasked(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "train", "--method", "EW", *SMALL)[0] == 0
    assert (tmp_path / "runs/EW-seed0/results.json").exists()
    status, _, err = run(capsys, "train", "--method", "EW", *SMALL)
    assert (status, err.count("\n")) == (1, 1)
    assert "runs/EW-seed0 holds results" in err
    assert run(capsys, "train", "--method", "EW", *SMALL, "--overwrite")[0] == 0


def test_flags_override_the_config_file(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(
        "method: UW\nepochs: 1\nbatch_size: 32\ndata_options: {train_size: 64, test_size: 32}\n"
    )
    status, *_ = run(capsys, "train", "--config", tmp_path / "run.yaml", "--method", "RLW", "--out", tmp_path / "out")
    assert status == 0
    config = results(tmp_path / "out")["config"]
    assert (config["method"], config["data_options"]["train_size"]) == ("RLW", 64)


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["train", "--method", "Best"], 1, "no method 'Best'; there are"),
        (["train", "--epochs", "many"], 2, "epochs"),
        (["train", "--config", "absent.yaml"], 2, "absent.yaml"),
        (["train", "--speed", "9"], 2, "--speed"),
        (["trian"], 2, "trian"),
        (["demo", "--epochs", "0"], 1, "epochs is 0"),
    ],
)
def test_errors_take_one_line(capsys, tmp_path, monkeypatch, arguments, status, text):
    monkeypatch.chdir(tmp_path)
    found, _, err = run(capsys, *arguments)
    assert (found, err.count("\n")) == (status, 1)
    assert err.startswith("mtl-ext: ")
    assert text in err
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="no method 'Best'"):
        main(["train", "--method", "Best", "--debug"])


@pytest.mark.parametrize(
    "command", ["", "demo", "train", "study", "report", "make-data", "pareto", "methods", "doctor"]
)
def test_help_has_an_example(capsys, command):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"] if command else [])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert f"  mtl-ext {command}" in out
    assert "example" in out


@pytest.mark.parametrize("columns", ["80", "140"])
def test_methods_lists_every_method_with_paper_cost_and_options(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    status, out, _ = run(capsys, "methods")
    assert status == 0
    losses, gradients = out.split("Methods on gradients: K backward passes of the trunk, or 1 at feature level")
    assert losses.startswith("Methods on losses: 1 backward pass of the trunk in a step")
    for name, method in METHODS.items():
        table = losses if method.level == "loss" else gradients
        assert sum(line.split()[:1] == [name] for line in table.splitlines()) == 1
    assert all(len(line) <= int(columns) for line in out.splitlines())
    words = " ".join(gradients.replace("─", " ").split())
    assert "all but CRMOGM, PBI and PCD reduction (sum or mean), those on gradients but CosReg weight_heads" in words


def test_a_row_of_methods_has_the_paper_the_extra_cost_and_the_options(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    _, out, _ = run(capsys, "methods")
    rows = {line.split()[0]: " ".join(line.split()) for line in out.splitlines() if line.split()}
    assert "(Liu et al. 2021, Algorithm 1)" in rows["CAGrad"]
    assert rows["CAGrad"].endswith(" c=0.4, rescale=1")
    assert rows["MoDo"].endswith("All passes for 3 batches. gamma=0.1, rho=0.1")
    assert rows["CosReg"].endswith("K more passes at parameter level. c=10.0, detach_heads=False")
    assert rows["FAMO"].endswith("A forward pass after the step. lower_bounds, lr=0.025, weight_decay=0.001")
    assert rows["DTP"].endswith("Validation after each epoch. gamma=2.0, momentum=0.0")


def test_doctor_tells_kernels_from_references(capsys):
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    assert "instruction set" in out
    assert "threads" in out
    for name in ops.OPERATORS:
        row = next(line for line in out.splitlines() if f" {name} " in line)
        words = ["kernel" if ops.has_kernel(name, device) else "reference" for device in ("cpu", "cuda")]
        assert [word for word in row.split() if word in ("kernel", "reference")] == words


def test_a_missing_extra_is_named_in_one_line(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    monkeypatch.delitem(sys.modules, "mtl_ext.cli.commands", raising=False)
    status, _, err = run(capsys, "doctor")
    assert (status, err) == (1, 'mtl-ext: the command line needs jsonargparse: pip install "mtl_ext[train]"\n')


def test_the_package_imports_without_the_extras():
    extras = {"rich", "jsonargparse", "matplotlib", "yaml", "tensorboard", "mlxtend", "sklearn"}
    modules = "mtl_ext.trainers, mtl_ext.plots, mtl_ext.representation, mtl_ext.cli"
    code = f"import sys, {modules}; sys.exit(bool({extras} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
