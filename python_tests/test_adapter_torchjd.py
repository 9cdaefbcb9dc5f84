"""TorchJD's classes on this package's operators, held against TorchJD itself."""

import copy
import inspect
import pickle
import subprocess
import sys

import pytest
import torch
import torchjd
import torchjd.aggregation as peer
from torch import nn
from torchjd.autojac import _jac_to_grad, backward, jac_to_grad
from torchjd.linalg import QuadprogProjector

from mtl_ext.adapters import torchjd as ours
from mtl_ext.adapters.torchjd.version import check_version

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

# name -> its arguments for m tasks
ARGUMENTS = {
    "AlignedMTL": lambda m: {},
    "CAGrad": lambda m: {"c": 0.4},
    "ConFIG": lambda m: {},
    "DualProj": lambda m: {},
    "FairGrad": lambda m: {"alpha": 1.0},
    "GradDrop": lambda m: {},
    "GradVac": lambda m: {},
    "IMTLG": lambda m: {},
    "MGDA": lambda m: {},
    "NashMTL": lambda m: {"n_tasks": m},
    "PCGrad": lambda m: {},
    "UPGrad": lambda m: {},
}
# Where TorchJD's own solver is approximate, how well it is expected to agree, relative to the answer's length.
TOLERANCE = {"CAGrad": 1e-3, "FairGrad": 1e-3, "NashMTL": 2e-2}
FAILS_IN_BF16 = {"AlignedMTL", "CAGrad", "ConFIG", "DualProj", "FairGrad", "IMTLG", "NashMTL", "UPGrad"}
CONFLICT = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
WITH_MATRIX = {"Krum", "PCD", "ExcessMTL", "TrimmedMean"}


@pytest.fixture(autouse=True)
def _restored():
    yield
    ours.restore()


@pytest.fixture(params=sorted(ARGUMENTS))
def name(request):
    return request.param


def pair(name, m, **arguments):
    arguments = {**ARGUMENTS[name](m), **arguments}
    return getattr(ours, name)(**arguments), getattr(peer, name)(**arguments)


def jacobian(m, n, dtype=torch.float32, seed=0):
    """Rows with conflicts, but with a common descent direction."""
    draw = torch.Generator().manual_seed(seed)
    return (torch.randn(m, n, generator=draw, dtype=torch.float64) + 0.4 * torch.randn(n, generator=draw)).to(dtype)


def assert_near(found, expected, tolerance):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    error = (found.double() - expected.double()).norm()
    assert error <= tolerance * expected.double().norm().clamp_min(1e-30), f"{error / expected.double().norm():.2e}"


def tolerance_of(name, dtype):
    rounding = 1e-8 if dtype == torch.float64 else 2e-4
    return max(rounding, TOLERANCE.get(name, 0.0))


def run(aggregator, matrix):
    torch.manual_seed(3)
    result = aggregator(matrix)
    return result, torch.get_rng_state()


def weightings():
    return sorted(each for each in ours.__all__ if each.endswith("Weighting"))


# Form


@pytest.mark.parametrize("name", [*sorted(ARGUMENTS), *weightings()])
def test_signature_is_torchjds(name):
    mine, theirs = getattr(ours, name), getattr(peer, name)
    assert issubclass(mine, theirs)
    assert mine.__name__ == name
    found, expected = inspect.signature(mine).parameters, inspect.signature(theirs).parameters
    assert [(p.name, p.kind) for p in found.values()] == [(p.name, p.kind) for p in expected.values()]
    defaults = {p.name: (p.default, expected[p.name].default) for p in found.values()}
    assert defaults.pop("norm_eps", None) in (None, (0.0, 1e-4))
    assert all(mine == theirs for mine, theirs in defaults.values())


def test_representation_is_torchjds(name):
    mine, theirs = pair(name, 3)
    expected = repr(theirs)
    if name in ("UPGrad", "DualProj"):
        expected = expected.replace("QuadprogProjector(norm_eps=0.0001", "ConeProjector(norm_eps=0.0")
    if name == "CAGrad":
        expected = expected.replace("norm_eps=0.0001", "norm_eps=0.0")
    assert repr(mine) == expected
    assert str(mine) == str(theirs)


@pytest.mark.parametrize(
    ("name", "attribute", "value"),
    [
        ("AlignedMTL", "pref_vector", torch.ones(2, 2)),
        ("CAGrad", "c", -1.0),
        ("CAGrad", "norm_eps", -1.0),
        ("ConFIG", "pref_vector", torch.ones(2, 2)),
        ("GradDrop", "leak", torch.ones(2, 2)),
        ("GradVac", "beta", 2.0),
        ("GradVac", "eps", -1.0),
        ("MGDA", "epsilon", 0.0),
        ("MGDA", "max_iters", 0),
        ("NashMTL", "n_tasks", 0),
        ("NashMTL", "max_norm", -1.0),
        ("UPGrad", "pref_vector", torch.ones(2, 2)),
    ],
)
def test_setters_refuse_what_torchjds_refuse(name, attribute, value):
    messages = []
    for aggregator in pair(name, 3):
        with pytest.raises(ValueError) as error:
            setattr(aggregator, attribute, value)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_refuses_what_is_not_a_matrix(name):
    messages = []
    for aggregator in pair(name, 3):
        with pytest.raises(ValueError, match="dimension 2") as error:
            aggregator(torch.ones(3))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("AlignedMTL", {"pref_vector": torch.ones(2)}),
        ("AlignedMTL", {"scale_mode": "max"}),
        ("ConFIG", {"pref_vector": torch.ones(2)}),
        ("GradDrop", {"leak": torch.ones(2)}),
        ("UPGrad", {"pref_vector": torch.ones(2)}),
    ],
)
def test_calls_refuse_what_torchjds_refuse(name, arguments):
    messages = []
    for aggregator in pair(name, 3, **arguments):
        with pytest.raises(ValueError) as error:
            aggregator(jacobian(3, 5))
        messages.append(str(error.value).replace("matrix` with", "gramian` with"))
    assert messages[0] == messages[1]


def test_nash_refuses_another_number_of_rows():
    with pytest.raises(ValueError, match="2 rows, but n_tasks = 3"):
        ours.NashMTL(3)(jacobian(2, 5))


def test_projector_refuses_negative_parameters():
    for parameter in ("norm_eps", "reg_eps"):
        with pytest.raises(ValueError, match=f"{parameter} must be non-negative, but got -1"):
            ours.ConeProjector(**{parameter: -1})


def test_pickle_and_copy(name):
    mine, _ = pair(name, 3)
    matrix = jacobian(3, 6)
    for again in (pickle.loads(pickle.dumps(mine)), copy.deepcopy(mine)):
        assert type(again) is type(mine)
        assert torch.equal(run(again, matrix)[0], run(copy.deepcopy(mine), matrix)[0])


# Values


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("m", [1, 2, 3, 8, 20])
def test_values_and_draws_are_torchjds(name, m, dtype):
    if name == "MGDA":
        pytest.skip("TorchJD stops early: test_mgda_is_shorter")
    if name == "NashMTL" and m == 1:
        pytest.skip("TorchJD raises")
    for n in (m + 7, 300):
        matrix = jacobian(m, n, dtype, seed=n)
        mine, theirs = pair(name, m)
        (found, my_state), (expected, their_state) = run(mine, matrix), run(theirs, matrix)
        assert torch.equal(my_state, their_state)
        assert_near(found, expected, tolerance_of(name, dtype))


@pytest.mark.parametrize("name", sorted(set(ARGUMENTS) - {"FairGrad", "MGDA", "NashMTL"}))
def test_values_of_dependent_gradients(name):
    """Without the methods that have no answer at Pareto-stationary points, where TorchJD returns its last iterate."""
    matrix = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mine, theirs = pair(name, 8)
    assert_near(run(mine, matrix)[0], run(theirs, matrix)[0], tolerance_of(name, torch.float64))


@pytest.mark.parametrize("name", ["FairGrad", "MGDA", "NashMTL"])
def test_of_opposite_gradients_nothing_remains(name):
    matrix = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert pair(name, 2)[0](matrix).norm() < 1e-6


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("AlignedMTL", {"scale_mode": "median"}),
        ("AlignedMTL", {"scale_mode": "rmse", "pref_vector": torch.tensor([0.5, 2.0, 1.0])}),
        ("CAGrad", {"c": 0.0}),
        ("CAGrad", {"c": 2.0, "norm_eps": 1e-4}),
        ("ConFIG", {"pref_vector": torch.tensor([0.5, 2.0, 1.0])}),
        ("DualProj", {"pref_vector": torch.tensor([0.5, 2.0, 1.0])}),
        ("FairGrad", {"alpha": 0.0}),
        ("FairGrad", {"alpha": 2.0}),
        ("GradDrop", {"leak": torch.tensor([0.0, 0.5, 1.0])}),
        ("GradDrop", {"f": torch.sigmoid}),
        ("NashMTL", {"max_norm": 0.0}),
        ("UPGrad", {"pref_vector": torch.tensor([0.5, 2.0, 1.0])}),
    ],
)
def test_values_with_other_arguments(name, arguments):
    matrix = jacobian(3, 40)
    mine, theirs = pair(name, 3, **arguments)
    assert_near(run(mine, matrix)[0], run(theirs, matrix)[0], tolerance_of(name, torch.float32))


def test_graddrop_at_its_purity():
    """A mask may differ only where the draw is within rounding of the purity."""
    matrix = jacobian(3, 100_000)
    mine, theirs = pair("GradDrop", 3)
    found, expected = run(mine, matrix)[0], run(theirs, matrix)[0]
    assert ((found - expected).abs() > 1e-5).sum() <= 2


def test_states_move_alike():
    for name, arguments in (("GradVac", {}), ("NashMTL", {"update_weights_every": 2})):
        mine, theirs = pair(name, 3, **arguments)
        for seed in range(5):
            matrix = jacobian(3, 20, seed=seed)
            assert_near(run(mine, matrix)[0], run(theirs, matrix)[0], tolerance_of(name, torch.float32))
        mine.reset()
        fresh = getattr(ours, name)(**ARGUMENTS[name](3))
        assert torch.equal(run(mine, matrix)[0], run(fresh, matrix)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(name, dtype):
    """Where TorchJD works it is as near as half precision allows; where it raises, the float32 answer counts."""
    matrix = jacobian(3, 300, dtype)
    mine, theirs = pair(name, 3)
    found = run(mine, matrix)[0]
    if name in FAILS_IN_BF16 and dtype == torch.bfloat16:
        with pytest.raises((RuntimeError, TypeError)):
            run(theirs, matrix)
    if name not in FAILS_IN_BF16 | {"MGDA"}:
        assert_near(found, run(copy.deepcopy(theirs), matrix)[0], 0.1)
    if name != "GradDrop":  # which draws in the matrix's dtype
        expected = run(getattr(ours, name)(**ARGUMENTS[name](3)), matrix.float())[0]
        assert_near(found, expected.to(dtype), 4 * torch.finfo(dtype).eps)


def test_without_columns_and_without_rows(name):
    mine, theirs = pair(name, 3)
    assert mine(torch.ones(3, 0)).shape == (0,)
    if name == "NashMTL":
        return
    try:
        expected = theirs(torch.ones(0, 4))
    except Exception:  # TorchJD has no answer there: nothing to equal
        return
    found = mine(torch.ones(0, 4))
    assert torch.equal(found, expected)


def test_of_zero_gradients_nothing_remains(name):
    mine, _ = pair(name, 3)
    assert torch.equal(mine(torch.zeros(3, 5)), torch.zeros(5))


def test_non_finite_gradients_do_not_stay_hidden(name):
    matrix = jacobian(3, 5)
    matrix[0, 0] = torch.nan
    assert not run(pair(name, 3)[0], matrix)[0].isfinite().all()


def test_derivatives_where_torchjd_has_them(name):
    matrix = jacobian(3, 30, torch.float64)
    for mine, theirs in [pair(name, 3)]:
        leaves = [matrix.clone().requires_grad_(), matrix.clone().requires_grad_()]
        found, expected = mine(leaves[0]), theirs(leaves[1])
        assert found.requires_grad == expected.requires_grad
        if name == "AlignedMTL":
            for each in (found, expected):
                each.square().sum().backward()
            assert_near(leaves[0].grad, leaves[1].grad, 1e-6)


# Where TorchJD is wrong


def test_mgda_is_shorter():
    for m in (2, 3, 8, 20):
        matrix = jacobian(m, 50, torch.float64, seed=m)
        mine, theirs = pair("MGDA", m)
        found = mine(matrix)
        assert (matrix @ found).min() >= (found @ found) * (1 - 1e-6)
        assert found.norm() <= theirs(matrix).norm() * (1 + 1e-9)
    stopped = peer.MGDA()(matrix)
    assert (matrix @ stopped).min() < (stopped @ stopped) * (1 - 1e-3)


@pytest.mark.parametrize("name", ["UPGrad", "DualProj"])
def test_projections_of_small_gradients(name):
    matrix = CONFLICT
    mine, theirs = pair(name, 2)
    assert_near(mine(1e-4 * matrix), 1e-4 * mine(matrix), 1e-9)
    assert_near(theirs(matrix), mine(matrix), 1e-9)
    small = theirs(1e-4 * matrix)
    assert_near(small, 1e-4 * matrix.mean(0), 1e-9)
    assert (matrix @ small).min() < 0
    parity = getattr(ours, name)(projector=ours.ConeProjector(norm_eps=1e-4, reg_eps=1e-4))
    assert_near(parity(1e-4 * matrix), small, 1e-9)


def test_cagrad_of_small_gradients():
    matrix = jacobian(3, 30, torch.float64)
    mine, theirs = pair("CAGrad", 3)
    assert_near(mine(1e-4 * matrix), 1e-4 * mine(matrix), 1e-9)
    assert torch.equal(theirs(1e-4 * matrix), torch.zeros(30, dtype=torch.float64))
    parity = ours.CAGrad(0.4, norm_eps=1e-4)
    assert torch.equal(parity(1e-4 * matrix), torch.zeros(30, dtype=torch.float64))
    assert_near(parity(matrix), mine(matrix), 1e-12)
    # g_w is relative to the root of the trace: two nearly opposite gradients
    opposite = torch.tensor([[1.0, 5e-5], [-1.0, 5e-5]], dtype=torch.float64)
    assert torch.equal(theirs(opposite), torch.zeros(2, dtype=torch.float64))
    assert torch.equal(parity(opposite), torch.zeros(2, dtype=torch.float64))
    assert ours.CAGrad(0.4)(opposite)[1] > 0


def test_ridge_changes_the_projection():
    matrix = torch.tensor([[1.0, 0.01], [-4.0, 0.01]], dtype=torch.float64)
    exact, ridge = ours.UPGrad(projector=ours.ConeProjector()), ours.UPGrad()
    assert_near(ridge(matrix), peer.UPGrad()(matrix), 1e-7)
    assert (matrix @ exact(matrix)).min() > -1e-12
    assert (matrix @ ridge(matrix)).min() < -1e-7
    assert (exact(matrix) - ridge(matrix)).norm() > 1e-3 * exact(matrix).norm()


def test_nash_solves_what_torchjd_does_not():
    wrong = 0
    for seed in range(4):
        matrix = 1e-3 * jacobian(3, 20, torch.float64, seed=seed)
        mine, theirs = pair("NashMTL", 3, max_norm=0.0)
        gram = matrix @ matrix.T
        for aggregator in (mine, theirs):
            weights = []
            handle = aggregator.weighting.register_forward_hook(lambda _, __, w, out=weights: out.append(w))
            aggregator(matrix)
            handle.remove()
            residual = (weights[0] * (gram @ weights[0]) - 1).abs().max()
            if aggregator is mine:
                assert residual < 1e-6
            else:
                wrong += residual > 1e-2
    assert wrong == 4


def test_config_of_many_parameters():
    """TorchJD's cut-off on singular values grows with the number of columns."""
    draw = torch.Generator().manual_seed(0)
    common = torch.randn(200_000, generator=draw)
    matrix = common + torch.tensor([[0.04], [0.02], [0.01]]) * torch.randn(3, 200_000, generator=draw)
    mine, theirs = pair("ConFIG", 3)

    def cosines(vector):
        return nn.functional.cosine_similarity(matrix.double(), vector.double()[None])

    assert cosines(mine(matrix)).std() < 1e-6  # the method's definition: equal cosines
    assert cosines(theirs(matrix)).std() > 10 * cosines(mine(matrix)).std()


def test_gradvac_does_not_depend_on_the_scale():
    matrix = CONFLICT
    (mine, theirs), (mine_small, theirs_small) = pair("GradVac", 2), pair("GradVac", 2)
    assert_near(run(mine_small, 1e-6 * matrix)[0], 1e-6 * run(mine, matrix)[0], 1e-9)
    expected = 1e-6 * run(theirs, matrix)[0]
    assert (run(theirs_small, 1e-6 * matrix)[0] - expected).norm() > 0.1 * expected.norm()
    assert mine.eps == 1e-8


# Hooks, jac_to_grad, accelerate


def net_with_jacs(dtype=torch.float32, tasks=3):
    """Three losses' Jacobians in the .jac of five parameters, one of them a scalar."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, tasks)).to(dtype)
    model.scale = nn.Parameter(torch.tensor(1.5, dtype=dtype))
    losses = (model(torch.randn(6, 1, 4, 4, dtype=dtype)) * model.scale).square().mean(0)
    params = list(model.parameters())
    backward(list(losses), inputs=params)
    return params


def grads_of(aggregator, dtype=torch.float32, **options):
    params = net_with_jacs(dtype)
    torch.manual_seed(3)
    weights = jac_to_grad(params, aggregator, **options)
    return torch.cat([param.grad.flatten() for param in params]), weights


def others():
    """The aggregators whose own code stays, for three tasks."""
    return {
        "Constant": peer.Constant(torch.tensor([1.0, 2.0, 0.5])),
        "CRMOGM": peer.GramianWeightedAggregator(peer.CRMOGMWeighting(peer.PCGradWeighting())),
        "ExcessMTL": peer.ExcessMTL(),
        "Krum": peer.Krum(0),
        "Mean": peer.Mean(),
        "PCD": peer.PCD(),
        "Random": peer.Random(),
        "Sum": peer.Sum(),
        "TrimmedMean": peer.TrimmedMean(1),
    }


def test_hooks_fire(name):
    mine, theirs = pair(name, 3)
    matrix, seen = jacobian(3, 20), {}
    for side, aggregator in (("mine", mine), ("theirs", theirs)):
        calls = seen.setdefault(side, [])

        def note(module, inputs, output, calls=calls):
            calls.append((type(module).__name__, inputs[0].shape, inputs[0].dtype, output.shape, output.dtype))

        aggregator.register_forward_hook(note)
        for attribute in ("weighting", "gramian_weighting"):
            if name != "ConFIG" and hasattr(aggregator, attribute):
                getattr(aggregator, attribute).register_forward_hook(note)
        run(aggregator, matrix)
    seen["theirs"] = [(kind.replace("_NashMTL", "NashMTL"), *rest) for kind, *rest in seen["theirs"]]
    assert seen["mine"] == seen["theirs"]


@pytest.mark.parametrize("optimized", [False, True])
def test_subclasses_in_jac_to_grad(name, optimized):
    mine, theirs = pair(name, 3)
    options = {"optimize_gramian_computation": True} if optimized else {}
    if optimized and not isinstance(theirs, peer.GramianWeightedAggregator):
        for aggregator in (mine, theirs):
            with pytest.raises(ValueError, match="computes weights based on the Gramian"):
                grads_of(aggregator, **options)
        return
    if name == "MGDA":
        theirs = mine
    (found, weights), (expected, their_weights) = grads_of(mine, **options), grads_of(theirs, **options)
    assert_near(found, expected, tolerance_of(name, torch.float32))
    assert (weights is None) == (their_weights is None)
    assert weights is None or weights.dtype == their_weights.dtype


@pytest.mark.parametrize("optimized", [False, True])
@pytest.mark.parametrize("name", [*sorted(ARGUMENTS), *sorted(others())])
def test_jac_to_grad_accelerated(name, optimized):
    def make():
        return others()[name] if name in others() else getattr(peer, name)(**ARGUMENTS[name](3))

    if optimized and not isinstance(make(), peer.GramianWeightedAggregator):
        return
    if name == "MGDA":
        expected, weights = grads_of(ours.MGDA())
    else:
        expected, weights = grads_of(make(), optimize_gramian_computation=optimized)
    state = torch.get_rng_state()
    with ours.accelerated() as report:
        found, my_weights = grads_of(make(), optimize_gramian_computation=optimized)
    assert_near(found, expected, tolerance_of(name, torch.float32))
    assert torch.equal(torch.get_rng_state(), state)
    assert (weights is None) == (my_weights is None)
    if weights is not None:
        assert_near(my_weights, weights, max(2e-4, TOLERANCE.get(name, 0)))
        assert my_weights.requires_grad == weights.requires_grad
    assert report.calls["jac_to_grad"] == 1


@pytest.mark.parametrize("name", [*sorted(ARGUMENTS), *sorted(others())])
def test_matrices_are_built_only_where_needed(name, monkeypatch):
    built = []
    unite = _jac_to_grad._unite_jacobians
    monkeypatch.setattr(_jac_to_grad, "_unite_jacobians", lambda jacs: built.append(1) or unite(jacs))
    aggregator = others()[name] if name in others() else getattr(peer, name)(**ARGUMENTS[name](3))
    with ours.accelerated():
        grads_of(aggregator)
        assert len(built) == (name in {"ExcessMTL", "TrimmedMean"})
        aggregator.register_forward_hook(lambda *_: None)
        grads_of(aggregator)
    assert len(built) == 1 + (name in {"ExcessMTL", "TrimmedMean"})


def test_a_subclass_with_its_own_code_sees_the_matrix():
    class Doubled(peer.PCGrad):
        def forward(self, matrix, /):
            assert matrix.ndim == 2
            return 2 * super().forward(matrix)

    expected = grads_of(Doubled())[0]
    with ours.accelerated():
        assert_near(grads_of(Doubled())[0], expected, 1e-4)


def test_jac_to_grad_keeps_its_rules():
    with ours.accelerated():
        params = net_with_jacs()
        jacs = [param.jac.clone() for param in params]
        jac_to_grad(params, peer.UPGrad(), retain_jac=True)
        once = [param.grad.clone() for param in params]
        assert all(torch.equal(param.jac, jac) for param, jac in zip(params, jacs, strict=True))
        jac_to_grad(params, peer.UPGrad())
        assert all(torch.allclose(param.grad, 2 * grad) for param, grad in zip(params, once, strict=True))
        assert not any(hasattr(param, "jac") for param in params)
        with pytest.raises(ValueError, match="not populated"):
            jac_to_grad(params, peer.UPGrad())
        with pytest.raises(ValueError, match="cannot be empty"):
            jac_to_grad([], peer.UPGrad())
        params = net_with_jacs()
        with pytest.raises(ValueError, match="exactly 2 rows"):
            jac_to_grad(params, peer.GradDrop(leak=torch.ones(2)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_jac_to_grad_in_other_dtypes(name, dtype):
    with ours.accelerated():
        found = grads_of(getattr(peer, name)(**ARGUMENTS[name](3)), dtype)[0]
    assert found.dtype == dtype
    assert found.isfinite().all()


@pytest.mark.parametrize("name", ["Mean", "MGDA", "AlignedMTL"])
def test_graphs_pass_through_jac_to_grad(name):
    for each in ("plain", "accelerated"):
        param = nn.Parameter(torch.ones(4))
        param.jac = (jacobian(3, 4).requires_grad_() * 1.0).detach().requires_grad_()
        with ours.accelerated() if each == "accelerated" else torch.enable_grad():
            jac_to_grad([param], getattr(peer, name)())
        assert param.grad.requires_grad


def snapshot():
    return [vars(each.owner)[each.attribute] for each in ours.patch.replacements(False)]


def test_accelerate_and_restore():
    before = snapshot()
    instance = peer.PCGrad()
    report = ours.accelerate()
    assert ours.accelerate() is report
    assert not any(now is then for now, then in zip(snapshot(), before, strict=True))
    assert isinstance(instance, peer.PCGrad)
    assert type(pickle.loads(pickle.dumps(instance))) is peer.PCGrad
    run(instance, jacobian(3, 10))
    run(peer.UPGrad(), jacobian(3, 10))
    assert report.calls == {"PCGrad": 1, "QuadprogProjector": 1, "WeightedAggregator": 4}
    assert "PCGrad                          1 calls" in str(report)
    assert "left alone" in str(report)
    with ours.accelerated():
        pass
    assert snapshot()[0] is not before[0]
    ours.restore()
    ours.restore()
    assert all(now is then for now, then in zip(snapshot(), before, strict=True))
    run(instance, jacobian(3, 10))
    assert report.calls["PCGrad"] == 1


def test_accelerate_skips():
    matrix = jacobian(3, 50)
    expected = peer.MGDA()(matrix)
    with ours.accelerated(skip=["MGDA"]) as report:
        assert_near(peer.MGDA()(matrix), expected, 1e-4)
        assert "MGDA" not in report.replaced
        assert report.left_alone["MGDA"] == "skipped"
    with pytest.raises(ValueError, match=r"skip has \['Mean'\], expected some of \['AlignedMTL'"):
        ours.accelerate(skip=["Mean"])


def test_accelerate_cutoffs():
    for name in ("UPGrad", "CAGrad"):
        expected = pair(name, 2)[1](1e-4 * CONFLICT)
        with ours.accelerated(cutoffs=True):
            assert_near(pair(name, 2)[1](1e-4 * CONFLICT), expected, 1e-9)
        with ours.accelerated():
            assert (CONFLICT @ pair(name, 2)[1](1e-4 * CONFLICT)).min() > -1e-7


def test_every_public_name_is_replaced_or_left_alone():
    covered = set(ours.accelerate().replaced) | {"UPGrad", "DualProj"} | set(ours.LEFT_ALONE)
    bases = {"Aggregator", "GramianWeightedAggregator", "WeightedAggregator", "Weighting", "Scalarizer"}
    for module in ("aggregation", "scalarization", "autojac"):
        for name in set(getattr(torchjd, module).__all__) - bases:
            known = {name, name.removesuffix("Weighting")}
            assert known & covered or {f"{module}.{each}" for each in known} & covered, f"{module}.{name}"


def test_weightings_of_gramians(name):
    mine = getattr(ours, f"{name}Weighting", None)
    if mine is None:
        return
    matrix = jacobian(4, 30, torch.float64)
    arguments = ARGUMENTS[name](4)
    torch.manual_seed(1)
    found = mine(**arguments)(matrix @ matrix.T)
    torch.manual_seed(1)
    weights = getattr(peer, f"{name}Weighting")(**arguments)(matrix @ matrix.T)
    assert found.shape == weights.shape
    if name != "MGDA":
        assert_near(found, weights, tolerance_of(name, torch.float64))


def test_projector_of_several_vectors():
    gram = jacobian(4, 3, torch.float64)
    gram = gram @ gram.T
    vectors = torch.rand(2, 5, 4, dtype=torch.float64)
    parity = ours.ConeProjector(norm_eps=1e-4, reg_eps=1e-4)
    assert_near(parity(vectors, gram), QuadprogProjector()(vectors, gram), 1e-6)
    assert_near(peer.UPGrad(projector=parity)(jacobian(4, 3)), peer.UPGrad()(jacobian(4, 3)), 1e-4)


def test_torchjd_is_not_needed_before():
    """Nothing imports it until the adapter is imported, which says how to get it."""
    program = """
import importlib.metadata, sys
import mtl_ext, mtl_ext.adapters
assert "torchjd" not in sys.modules

def version(name):
    raise importlib.metadata.PackageNotFoundError(name)

importlib.metadata.version = version
try:
    import mtl_ext.adapters.torchjd
except ImportError as error:
    assert "is not installed" in str(error) and "mtl_ext[torchjd]" in str(error)
else:
    raise SystemExit("imported")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("found", [None, "0.17.2", "1.0"])
def test_other_versions_are_refused(found):
    with pytest.raises(ImportError, match=r"mtl_ext\[torchjd\]"):
        check_version(found)
