"""The two-loss problem with a known front, what theory says of a few methods there, and `mtl-ext pareto`."""

import json
import math

import numpy as np
import pytest
import torch

from mtl_ext.cli import main
from mtl_ext.methods import METHODS
from mtl_ext.pareto import STARTS, THEORY, Descent, Theory, Toy, descend, judge
from mtl_ext.pareto.theory import ends, stationarity

STEPS = 200
LOWER_LEFT = STARTS[3]


def point(*values):
    return torch.tensor(values, dtype=torch.float64)


def descent_to(toy, *end):
    """A descent of one step that ends there, without an argument about the step."""
    path = point(end, end)
    gradients = toy.gradients(path[:1])
    return Descent(path, torch.ones(1, 2, dtype=torch.float64), gradients @ gradients.mT)


def losses_on_a_grid(toy, points):
    ticks = torch.linspace(-12, 12, points, dtype=torch.float64)
    grid = torch.cartesian_prod(ticks, ticks)
    return grid, toy.losses(grid)


@pytest.mark.parametrize("x, y", [(1.0, 2.0), (-5.0, 7.5), (3.0, -4.0), (0.0, 0.0)])
def test_losses_are_the_papers(x, y):
    first = math.log(max(abs(0.5 * (-x - 7) - math.tanh(-y)), 5e-6)) + 6
    second = math.log(max(abs(0.5 * (-x + 3) + math.tanh(-y) + 2), 5e-6)) + 6
    above, below = max(math.tanh(0.5 * y), 0), max(math.tanh(-0.5 * y), 0)
    bowls = [((-x + centre) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20 for centre in (7, -7)]
    expected = [0.1 * (above * first + below * bowls[0]), above * second + below * bowls[1]]
    np.testing.assert_allclose(Toy().losses(point(x, y)), expected, rtol=1e-13)


def test_no_point_of_a_grid_is_better_than_the_front():
    toy = Toy(1.0)
    front = toy.front(51)
    _, losses = losses_on_a_grid(toy, 121)
    worse = (losses[:, None] - front.losses).amax(2).amin(0)
    assert worse.min() > -1e-9
    assert worse.max() < 0.2


@pytest.mark.parametrize("scale", [0.1, 1.0, 1e3])
def test_the_front_is_stationary_at_every_scale_and_other_points_are_not(scale):
    toy = Toy(scale)
    front = toy.front(201)
    gradients = toy.gradients(front.parameters)
    assert stationarity(gradients @ gradients.mT, front).max() < 1e-7
    gradients = toy.gradients(point([0.0, -7.0], [8.0, -8.4], [3.0, 4.0]))
    assert stationarity(gradients @ gradients.mT, front).min() > 1e-3


def test_the_minimum_of_the_sum_on_the_front_is_that_of_the_plane():
    toy = Toy()
    (end,) = ends(THEORY["EW"], toy, toy.front())
    grid, losses = losses_on_a_grid(toy, 481)
    np.testing.assert_allclose(end, grid[losses.sum(1).argmin()], atol=0.05)


def test_the_product_of_the_losses_has_a_minimum_at_each_end():
    toy = Toy()
    found = ends(THEORY["SI"], toy, toy.front())
    np.testing.assert_allclose(found[:, 0], [7, -7], atol=0.02)


@pytest.mark.parametrize("name", ["EW", "UW", "MGDA", "UPGrad", "NashMTL"])
def test_a_descent_agrees_with_theory(name):
    toy = Toy()
    outcome = judge(toy, toy.front(), descend(toy, name, LOWER_LEFT, STEPS, THEORY[name].options), THEORY[name])
    assert outcome.status == "reached", outcome


@pytest.mark.parametrize("name", [name for name, theory in THEORY.items() if theory.step_residual is not None])
def test_another_methods_steps_are_told_apart(name):
    toy = Toy()
    # Weights that no method which looks at the gradients would choose.
    descent = descent_to(toy, -3.0, -6.0)
    residual = THEORY[name].step_residual(descent.grams, point([0.3, 2.0]))
    assert residual > 1e-3


def test_an_end_elsewhere_is_not_called_reached():
    toy = Toy()
    front = toy.front()
    assert judge(toy, front, descent_to(toy, 3.0, -8.4), THEORY["EW"]).status == "missed"
    assert judge(toy, front, descent_to(toy, 3.0, -5.0), THEORY["FAMO"]).status == "missed"
    on_front = front.parameters[1000].tolist()
    assert judge(toy, front, descent_to(toy, *on_front), THEORY["FAMO"]).status == "reached"
    assert judge(toy, front, descent_to(toy, *on_front), None).status == "no claim"


def test_a_wrong_step_is_seen_although_the_end_is_right():
    toy = Toy()
    theory = Theory("anywhere", "conflict", step_residual=THEORY["PCGrad"].step_residual)
    front = toy.front()
    descent = descent_to(toy, 3.0, -5.0)
    path = torch.stack([descent.path[0], front.parameters[1000]])
    # Against the first gradient.
    wrong = Descent(path, point([-1.0, 0.0]), descent.grams)
    assert judge(toy, front, wrong, theory).status == "step off"


def test_theory_names_methods_that_exist():
    assert set(THEORY) <= set(METHODS)


def test_too_few_steps_are_refused():
    with pytest.raises(ValueError, match="steps is 20, expected at least 200"):
        descend(Toy(), "EW", LOWER_LEFT, 20)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_that_cannot_be_is_refused(scale):
    with pytest.raises(ValueError, match=r"scale is .*, expected a finite number above 0"):
        Toy(scale)


def test_the_command_writes_a_table_and_a_figure(tmp_path, capsys):
    out = tmp_path / "out"
    # Too few steps for the start at (9, 9): the status says so.
    assert main(["pareto", "--methods", "[PBI,EW]", "--steps", "200", "--out", str(out), "--check"]) == 1
    printed = capsys.readouterr().out
    assert "of 5 descents agree with theory" in printed
    assert "no claim" in printed
    content = json.loads((out / "pareto.json").read_text())
    assert list(content["methods"]) == ["PBI", "EW"]
    descents = content["methods"]["EW"]["descents"]
    assert [tuple(descent["start"]) for descent in descents] == list(STARTS)
    assert "missed" in {descent["status"] for descent in descents}
    assert (out / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_names_a_method_that_does_not_exist(tmp_path, capsys):
    assert main(["pareto", "--methods", "[Best]", "--out", str(tmp_path / "out")]) == 1
    assert "there is no method 'Best'; there are AlignedMTL" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
