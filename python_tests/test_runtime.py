"""The runtime table, for people and as a file."""

import csv

import pytest
from rich.console import Console

from mtl_ext.cli.report import write_csv
from mtl_ext.cli.runtime import runtime_rows, runtime_table

TIMES = {"EW": 1.0, "PCGrad (parameter)": 2.5, "AutoLambda": 4.0}
PUBLISHED = {"EW": 1.0, "AutoLambda": 4.24}


def test_rows_go_to_a_file_with_what_the_paper_says(tmp_path):
    write_csv(tmp_path / "runtime.csv", runtime_rows(TIMES, PUBLISHED, "SAAL, Table 4"))
    with (tmp_path / "runtime.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == list(TIMES)
    assert [float(row["step_time"]) for row in rows] == list(TIMES.values())
    assert [row["SAAL, Table 4"] for row in rows] == ["1.0", "", "4.24"]


@pytest.mark.parametrize("published", [None, PUBLISHED])
def test_the_table_fits_a_narrow_terminal(published):
    console = Console(width=80, record=True)
    console.print(runtime_table(runtime_rows(TIMES, published)))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    (line,) = [line for line in lines if "PCGrad" in line]
    assert line.split()[:3] == ["PCGrad", "(parameter)", "2.50"]
    assert line.count("█") == 15  # of 24, for 2.5 of 4
    (line,) = [line for line in lines if "AutoLambda" in line]
    assert ("4.24" in line) == (published is not None)


def test_a_time_that_was_not_measured_is_refused():
    with pytest.raises(ValueError, match="the step time of 'EW' is nan"):
        runtime_rows({"EW": float("nan")})
