"""Methods that weigh losses: equality with TorchJD, what their state does over steps and epochs, their hooks."""

import copy
import itertools

import numpy as np
import pytest
import torch

from mtl_ext import methods
from mtl_ext.methods.go4align import group_means
from mtl_ext.methods.state import Adam, RunningMean, keep_finite


def draw_losses(count, seed, low=0.05):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, dtype=torch.float64, generator=generator) * 3 + low


def weights_of(method, values):
    """The method's weights for K loss values."""
    losses = torch.as_tensor(values, dtype=torch.float64).clone().requires_grad_()
    weights = method.backward(losses * 1.0)
    torch.testing.assert_close(losses.grad, weights)
    return weights


def peer_step(scalarizer, values):
    """Value and gradient of a TorchJD scalarizer."""
    losses = values.clone().requires_grad_()
    combined = scalarizer(losses)
    combined.backward()
    return combined.detach(), losses.grad


PREFERENCE = torch.tensor([0.2, 1.1, 0.4], dtype=torch.float64)
REFERENCE = torch.tensor([0.01, 0.02, 0.03], dtype=torch.float64)
PEERS = {
    "COSMOS": (lambda m: m.COSMOS(3, preference=PREFERENCE, lambda_=1.7), lambda p: p.COSMOS(1.7, PREFERENCE)),
    "DWA": (lambda m: m.DWA(3, temperature=0.7), lambda p: p.DWA(0.7)),
    "FAMO": (
        lambda m: m.FAMO(3, lower_bounds=REFERENCE, lr=0.3, weight_decay=0.1),
        lambda p: p.FAMO(3, REFERENCE, lr=0.3, weight_decay=0.1),
    ),
    "FixedWeights": (lambda m: m.FixedWeights(3, weights=PREFERENCE), lambda p: p.Constant(PREFERENCE)),
    "GLS": (lambda m: m.GLS(), lambda p: p.GeometricMean()),
    "IMTLL": (lambda m: m.IMTLL(3), lambda p: p.IMTLL(3)),
    "PBI": (
        lambda m: m.PBI(3, preference=PREFERENCE, theta=5.0, reference=REFERENCE),
        lambda p: p.PBI(5.0, PREFERENCE, REFERENCE),
    ),
    "STCH": (
        lambda m: m.STCH(3, mu=0.3, form="linear", preference=PREFERENCE, reference=REFERENCE, reduction="mean"),
        lambda p: p.STCH(0.3, PREFERENCE, REFERENCE),
    ),
    "UW": (lambda m: m.UW(3), lambda p: p.UW(3)),
}


@pytest.mark.parametrize("name", PEERS)
def test_equals_torchjd_over_steps_and_epochs(name):
    ours, theirs = PEERS[name][0](methods), PEERS[name][1](pytest.importorskip("torchjd.scalarization"))
    own = [(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=False)]
    optimizers = [torch.optim.SGD(list(m.parameters()), lr=0.1) for m in (ours, theirs) if own]
    for step in range(12):
        values = draw_losses(3, step)
        value, grad = peer_step(theirs, values)
        own_value = copy.deepcopy(ours).combined_loss(values).detach()
        torch.testing.assert_close(own_value, value, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(weights_of(ours, values), grad, rtol=1e-6, atol=1e-7)
        for p, q in own:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=1e-7)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if name == "FAMO":
            ours.look_again(values * draw_losses(3, step + 50))
            theirs.update(values * draw_losses(3, step + 50))
        if name == "DWA" and step % 3 == 2:
            ours.end_epoch()
            theirs.step()


def test_random_weights_equal_torchjd_for_the_same_draws():
    scalarization = pytest.importorskip("torchjd.scalarization")
    method = methods.RLW(seed=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        for step in range(5):
            values = draw_losses(3, step).float()
            _, grad = peer_step(scalarization.Random(), values)
            torch.testing.assert_close(weights_of(method, values).float(), grad)


@pytest.mark.parametrize("distribution", ["normal", "uniform", "dirichlet", "bernoulli", "constrained_bernoulli"])
def test_random_weights_are_on_the_simplex_with_the_moments_of_their_distribution(distribution):
    method = methods.RLW(distribution=distribution, seed=1)
    weights = torch.stack([method.combined_loss(torch.eye(3, dtype=torch.float64)) for _ in range(3000)])
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(3000, dtype=torch.float64))
    torch.testing.assert_close(weights.mean(0), torch.full((3,), 1 / 3, dtype=torch.float64), atol=0.03, rtol=0)
    subsets = np.array([w for w in itertools.product((0, 1), repeat=3) if any(w)])
    variance = {
        "dirichlet": 1 / 3 * (1 - 1 / 3) / 4,  # Dirichlet(1, 1, 1)
        "bernoulli": np.var(subsets[:, 0] / subsets.sum(1)),
        "constrained_bernoulli": 1 / 3 * (1 - 1 / 3),
    }
    if distribution in variance:
        assert weights.var(0).mean().item() == pytest.approx(variance[distribution], rel=0.06)
    if "bernoulli" in distribution:
        assert set((1 / weights.max(1).values).round().tolist()) == ({1, 2, 3} if distribution == "bernoulli" else {1})


def test_the_grid_holds_every_choice_once():
    choices = list(methods.FixedWeights.grid(3, primary=1))
    assert len(set(choices)) == 16
    assert all(choice[1] == 1 and {choice[0], choice[2]} <= {0.1, 0.2, 0.3, 0.4} for choice in choices)
    assert weights_of(methods.FixedWeights(3, weights=choices[0]), torch.ones(3)).tolist() == list(choices[0])
    with pytest.raises(ValueError, match="primary is 3"):
        next(methods.FixedWeights.grid(3, primary=3))


def test_dwa_without_steps_or_with_losses_of_zero():
    method = methods.DWA(2)
    for values in ([0.0, 2.0], [0.0, 1.0]):
        weights_of(method, values)
        method.end_epoch()
        method.end_epoch()  # nothing new
    expected = 2 * torch.tensor([1.0, 0.5], dtype=torch.float64).div(2).softmax(0)
    torch.testing.assert_close(weights_of(method, [1.0, 1.0]), expected)


def test_dwa_by_a_window_of_steps():
    method = methods.DWA(3, window=2, temperature=0.5)
    history = [draw_losses(3, seed) for seed in range(7)]
    for step, values in enumerate(history):
        weights = weights_of(method, values)
        method.end_epoch()
        if step < 3:
            assert weights.tolist() == [1.0, 1.0, 1.0]
        else:
            newer, older = sum(history[step - 1 : step + 1]), sum(history[step - 3 : step - 1])
            torch.testing.assert_close(weights, 3 * (newer / older / 0.5).softmax(0))


@pytest.mark.parametrize("name", ["GLS", "SI", "STCH"])
def test_a_loss_of_zero_is_left_out_and_one_below_named(name):
    method = methods.STCH(3) if name == "STCH" else methods.METHODS[name]()
    weights = weights_of(method, [2.0, 0.0, 3.0])
    assert weights.isfinite().all()
    assert weights[1] == 0
    assert (weights[[0, 2]] > 0).all()
    with pytest.raises(ValueError, match=r"losses\[1\] is -1.0, expected at least 0"):
        weights_of(method, [2.0, -1.0, 3.0])


def test_famo_moves_away_from_tasks_that_fall_faster_once_per_step():
    method = methods.FAMO(2)
    weights_of(method, [1.0, 1.0])
    method.look_again({"a": torch.tensor(0.5), "b": torch.tensor(0.9)})
    torch.testing.assert_close(method.logits, torch.tensor([-0.025, 0.025], dtype=torch.float64), rtol=1e-4, atol=0)
    before = method.logits.clone()
    method.look_again(torch.tensor([0.1, 0.9]))
    assert torch.equal(method.logits, before)
    weights_of(method, [1.0, 1.0])
    method.look_again(torch.tensor([torch.nan, 0.9]))
    assert torch.equal(method.logits, before)
    with pytest.raises(ValueError, match="losses has 3 tasks, expected num_tasks = 2"):
        method.look_again(torch.ones(3))


def test_famo_resumes_bit_for_bit():
    used, fresh = methods.FAMO(3), methods.FAMO(3)
    for step in range(6):
        if step == 3:
            fresh.load_state_dict(used.state_dict())
        for method in (used, fresh) if step >= 3 else (used,):
            weights_of(method, draw_losses(3, step))
            method.look_again(draw_losses(3, step + 10))
    assert used.logits.abs().min() > 0
    assert torch.equal(used.logits, fresh.logits)


def test_stch_finds_its_nadir_in_the_last_warm_up_epoch():
    method = methods.STCH(3, mu=0.5, warmup_epochs=2)
    epochs = [[draw_losses(3, 10 * epoch + step) for step in range(4)] for epoch in range(2)]
    for epoch in epochs:
        for values in epoch:
            torch.testing.assert_close(weights_of(method, values), 1 / values)
        method.end_epoch()
    nadir = torch.stack(epochs[1]).mean(0)
    fresh = methods.STCH(3, mu=0.5, warmup_epochs=2, reduction="mean")
    fresh.load_state_dict(method.state_dict())
    for step in range(3):
        values = draw_losses(3, 50 + step)
        shares = ((values / nadir).log() / 0.5).softmax(0)
        torch.testing.assert_close(weights_of(method, values), 3 * shares / values)
        torch.testing.assert_close(weights_of(fresh, values), shares / values)
        method.end_epoch()
        torch.testing.assert_close(method.nadir, nadir)


def test_dtp_gives_difficult_tasks_focal_weights():
    method = methods.DTP(3, gamma=1.5, momentum=0.25)
    first, second = np.array([0.9, 0.2, 1.0]), np.array([0.5, 0.4, 1.0])
    for performance, expected in ((first, first), (second, 0.25 * first + 0.75 * second)):
        method.update_performance(performance.tolist())
        weights = weights_of(method, torch.ones(3)).numpy()
        np.testing.assert_allclose(weights, -((1 - expected) ** 1.5) * np.log(expected))
    for values, message in (
        ([0.5, 0.0, 0.5], r"values\[1\] is 0.0, expected a number above 0 and at most 1"),
        ([0.5], r"values has shape \[1\]"),
        ([0.5, float("nan"), 0.5], r"values\[1\] is nan"),
    ):
        with pytest.raises(ValueError, match=message):
            method.update_performance(values)


def test_atw_weighs_the_slower_task_more_and_trains_variances_as_uncertainty_weighting_does():
    method, plain = methods.ATW(2, decay=0.5), methods.UW(2)
    for values, averages in (([2.0, 4.0], [2.0, 4.0]), ([1.0, 4.0], [1.5, 4.0]), ([0.5, 4.0], [1.0, 4.0])):
        rates = np.array(averages) / np.array([2.0, 4.0])
        np.testing.assert_allclose(weights_of(method, values), rates / rates.mean() / 2)
        weights_of(plain, values)
        assert torch.equal(method.log_variances.grad, plain.log_variances.grad)


def test_objectives_of_a_task_share_its_variance():
    method = methods.TaskObjectiveWeights(3, groups=[0, 1, 0])
    values = torch.tensor([0.5, 2.0, 3.0])
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    weights_of(method, values)
    expected = (1 - values) / 2
    torch.testing.assert_close(method.log_objective_variances.grad, expected)
    torch.testing.assert_close(method.log_task_variances.grad, torch.stack([expected[0] + expected[2], expected[1]]))
    optimizer.step()
    logs = -0.1 * torch.stack([2 * expected[0] + expected[2], 2 * expected[1], expected[0] + 2 * expected[2]])
    torch.testing.assert_close(weights_of(method, values).float(), torch.exp(-logs) / 2)


def test_particles_take_turns_and_the_better_ones_multiply():
    method = methods.PUW(3, num_particles=4, warmup=2, spread=0.0, temperature=0.1, seed=3)
    start = method.particles.clone()
    torch.testing.assert_close(start.sum(1), torch.full((4,), 3.0, dtype=torch.float64))
    performance = 0.5
    for turn in range(-2, 4):
        expected = torch.ones(3, dtype=torch.float64) if turn < 0 else start[turn]
        torch.testing.assert_close(weights_of(method, torch.ones(3)), expected)
        performance += 0.1 if turn == 2 else 0.0
        method.update_performance([performance] * 3)
    torch.testing.assert_close(method.scores, torch.tensor([0, 0, 0.1, 0], dtype=torch.float64))
    torch.testing.assert_close(method.particles, start[2].expand(4, 3))


def test_particles_resume_and_equal_scores_keep_all_of_them():
    method = methods.PUW(3, num_particles=4, spread=0.0, seed=3)
    start = method.particles.clone()
    for _ in range(5):
        method.update_performance([0.5] * 3)
    torch.testing.assert_close(method.particles, start)
    noisy = methods.PUW(3, num_particles=4, seed=9)
    fresh = methods.PUW(3, num_particles=4)
    fresh.load_state_dict(noisy.state_dict())
    for _ in range(9):
        noisy.update_performance([0.5] * 3)
        fresh.update_performance([0.5] * 3)
    assert torch.equal(noisy.particles, fresh.particles)
    assert not torch.equal(noisy.particles, methods.PUW(3, num_particles=4, seed=9).particles)
    torch.testing.assert_close(noisy.particles.sum(1), torch.full((4,), 3.0, dtype=torch.float64))


@pytest.mark.parametrize("num_groups", [1, 2, 3, 6])
def test_groups_are_those_of_least_squares(num_groups):
    for seed in range(20):
        values = draw_losses(6, seed).log()
        best = min(
            (
                sum(((part - part.mean()) ** 2).sum().item() for part in parts)
                for cuts in itertools.combinations(range(1, 6), num_groups - 1)
                for parts in [np.split(np.sort(values.numpy()), cuts)]
            ),
        )
        means = group_means(values, num_groups)
        assert len(set(means.tolist())) == num_groups
        assert (values - means).square().sum().item() == pytest.approx(best, abs=1e-12)


def test_go4align_weighs_groups_over_steps():
    method = methods.GO4Align(4, num_groups=2, eta=0.3)
    probabilities = np.full(4, 0.25)
    for values in ([1.0, 1.1, 7.0, 6.0], [0.5, 0.6, 6.0, 5.0]):
        losses = np.array(values)
        probabilities = probabilities * np.exp(-0.3 * losses)
        probabilities /= probabilities.sum()
        indicators = probabilities * losses.sum() / losses
        weights = weights_of(method, values).numpy()
        np.testing.assert_allclose(weights, np.repeat([indicators[:2].mean(), indicators[2:].mean()], 2))
    weights = weights_of(method, [1.0, 0.0, 7.0, 6.0])
    assert weights[1] == 0
    assert weights.isfinite().all()
    assert weights_of(method, [0.0] * 4).tolist() == [0.0] * 4


def test_a_method_names_the_number_of_tasks_it_was_built_for():
    for build in (methods.DWA, methods.GradNorm):
        x = torch.ones(2, requires_grad=True)
        with pytest.raises(ValueError, match="losses has 2 tasks, expected num_tasks = 3"):
            build(3).backward([x.sum(), x.sum()], shared=[x])


def test_adam_is_torchs():
    ours, theirs = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam, optimizer = Adam(3, lr=0.1, weight_decay=0.2), torch.optim.Adam([theirs], lr=0.1, weight_decay=0.2)
    for seed in range(6):
        theirs.grad = draw_losses(3, seed) - 1.5
        optimizer.step()
        adam.step(ours, theirs.grad)
        adam.step(ours, torch.full((3,), torch.inf))  # changes nothing
        torch.testing.assert_close(ours, theirs.detach())


def test_what_is_not_finite_never_enters_a_state():
    state, mean = torch.ones(2, dtype=torch.float64), RunningMean(2)
    keep_finite(state, torch.tensor([torch.nan, 3.0]).double())
    assert state.tolist() == [1.0, 1.0]
    mean.add(torch.tensor([1.0, torch.inf]))
    assert mean.take().isnan().all()
    mean.add(torch.tensor([1.0, 2.0]))
    mean.add(torch.tensor([torch.nan, 2.0]))
    assert mean.take().tolist() == [1.0, 2.0]
    for name in ("ATW", "DWA", "FAMO", "GO4Align", "STCH"):
        hurt, well = (methods.METHODS[name](2, nonfinite="propagate") for _ in range(2))
        for method in (hurt, well):
            weights_of(method, [1.0, 2.0])
        hurt.backward([torch.tensor(value, requires_grad=True) * 1.0 for value in (torch.nan, 2.0)])
        for method in (hurt, well):
            method.end_epoch()
        assert torch.equal(weights_of(hurt, [1.0, 2.0]), weights_of(well, [1.0, 2.0])), name


def test_methods_say_that_they_want_performances():
    wanting = [name for name, method in methods.METHODS.items() if method.wants_performance]
    assert wanting == ["DTP", "PUW"]
    for name, method in methods.METHODS.items():
        overridden = method.update_performance is not methods.Method.update_performance
        assert overridden == (method.wants_performance or name == "IAL"), name  # which wants what its decoders want
    methods.EW().update_performance([0.5, 0.5])
