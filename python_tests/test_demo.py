"""`mtl-ext demo --quick`: the main job from the digits to the table, the files and the figure."""

import csv
import io
import json
import math

import pytest
from rich.console import Console

from mtl_ext.cli.demo import demo

LABELS = [
    *("EW", "RLW", "UW"),
    *("PCGrad (parameter)", "PCGrad (feature)"),
    *("MGDA (parameter)", "MGDA (feature)"),
]
TASKS = ["left", "right", "pixels", "coverage"]


@pytest.fixture(scope="module")
def quick_demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    console = Console(record=True, width=80, file=io.StringIO())
    demo(console, out, quick=True)
    return out, console.export_text()


def test_the_table_holds_every_method_untruncated(quick_demo):
    _, text = quick_demo
    for label in ["single task", *LABELS]:
        assert any(line.startswith(label) for line in text.splitlines())
    assert "…" not in text
    for column in ("Delta", "step", "GDS", "GMS", *TASKS):
        assert column in text


def test_the_json_holds_everything(quick_demo):
    content = json.loads((quick_demo[0] / "results.json").read_text())
    assert {"mtl_ext", "torch", "python", "kernels"} <= set(content["versions"])
    assert content["config"]["data_options"]["train_size"] == 128
    assert list(content["single_task"]) == TASKS
    assert [method["label"] for method in content["methods"]] == LABELS
    for method in content["methods"]:
        assert list(method["epochs"][-1]["measures"]) == TASKS
        assert method["delta_mtl"] == pytest.approx(sum(method["changes"].values()) / 4)
        assert -1 <= method["gds"] <= 1
        assert 0 <= method["gms"] <= 1
        assert method["step_time"] > 0
    assert content["methods"][0]["step_time"] == 1.0


def test_changes_follow_from_the_measures(quick_demo):
    content = json.loads((quick_demo[0] / "results.json").read_text())
    single = {task: run["epochs"][-1]["measures"][task] for task, run in content["single_task"].items()}
    for method in content["methods"]:
        measures = method["epochs"][-1]["measures"]
        for task, metric, sign in (("left", "acc %", 1), ("pixels", "mIoU %", 1), ("coverage", "abs err", -1)):
            change = sign * (measures[task][metric] / single[task][metric] - 1)
            assert method["changes"][task] == pytest.approx(change)


def test_the_csv_has_a_row_per_method_and_task(quick_demo):
    with (quick_demo[0] / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["task"]) for row in rows] == [(m, t) for m in ["single task", *LABELS] for t in TASKS]
    assert all(math.isfinite(float(row["value"])) for row in rows)


def test_the_figure_is_a_png(quick_demo):
    figure = (quick_demo[0] / "results.png").read_bytes()
    assert figure[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(figure) > 50_000
