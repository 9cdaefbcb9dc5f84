"""Every operator's row on every implementation: values, errors, repeatability, threads, opcheck, memory guards."""

import pytest
import torch
from implementations import IMPLEMENTATIONS, find, load_emulation
from op_cases import CASES
from op_cases.combine import param_weights, task_weights
from op_cases.common import list_grads
from torch.utils._pytree import tree_leaves, tree_map

from mtl_ext import ops

OPS = sorted(CASES)
CPU = torch.device("cpu")
# opcheck runs a row dozens of times and looks at schemas and shapes, not at values: a few rows are enough.
OPCHECK_ROWS = ("scalar-K1", "primes-K3", "empty-parameter-K2", "mixed-dtypes-K3", "float64-absent-K2")
OPCHECK_ROWS += (
    "primes-K3-grouped",
    "primes-K3-rows",
    "bfloat16-expanded-K3",
    "K1",
    "K3",
    "conflict",
    "zero",
    "batch",
    "empty-batch",
)


def copied(arguments):
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, arguments)


def run(case, function, arguments):
    """Calls on copies of what is written; returns what the operator computed."""
    written = copied(arguments[: case.mutates])
    returned = function(*written, *arguments[case.mutates :])
    if not case.mutates:
        return returned
    results = written if returned is None else (*written, returned)
    return results[0] if len(results) == 1 else results


def same_bits(a, b):
    pairs = zip(tree_leaves(a), tree_leaves(b), strict=True)
    return all(
        torch.equal(x.nan_to_num(7.0), y.nan_to_num(7.0)) and torch.equal(x.isnan(), y.isnan()) for x, y in pairs
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("op", OPS)
def test_values_match_the_oracle(op, implementation, device):
    case, function = CASES[op], find(op, implementation, device)
    for name, arguments in case.inputs(0, device).items():
        try:
            case.check(arguments, run(case, function, arguments))
        except AssertionError as error:
            raise AssertionError(f"{op} on {implementation}, row {name}") from error


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("op", OPS)
def test_second_run_gives_the_same_bits(op, implementation, device):
    case, function = CASES[op], find(op, implementation, device)
    for name, arguments in case.inputs(1, device).items():
        assert same_bits(run(case, function, arguments), run(case, function, arguments)), name


@pytest.mark.parametrize("op", OPS)
def test_kernel_bits_do_not_depend_on_threads(op):
    case, function = CASES[op], find(op, "kernel", CPU)
    for name, arguments in case.inputs(2, CPU).items():
        single = run(case, function, arguments)
        for threads in (2, 5):
            torch.set_num_threads(threads)
            assert same_bits(run(case, function, arguments), single), (name, threads)
        torch.set_num_threads(1)


@pytest.mark.parametrize("op", OPS)
def test_emulation_bits_do_not_depend_on_the_schedule(op):
    """What a missing barrier or an order of blocks could change."""
    case, function = CASES[op], find(op, "emulation", CPU)
    emulation = load_emulation()
    before = emulation.get_controls()
    rows = case.inputs(4, CPU)
    expected = {name: run(case, function, arguments) for name, arguments in rows.items()}
    try:
        for order, threads in (("rev", 1), ("rand", 2)):
            emulation.set_controls(order=order, seed=17, threads=threads)
            for name, arguments in rows.items():
                assert same_bits(run(case, function, arguments), expected[name]), (name, order)
    finally:
        emulation.set_controls(**before)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("op", OPS)
def test_wrong_input_is_named(op, implementation):
    function = find(op, implementation, CPU)
    for name, (arguments, message) in CASES[op].errors.items():
        with pytest.raises(RuntimeError) as raised:
            function(*arguments)
        text = str(raised.value)
        assert text.startswith(f"mtl_ext::{op}: "), (name, text)
        assert message in text, (name, text)


@pytest.mark.parametrize("op", OPS)
def test_all_implementations_use_the_same_words(op):
    for name, (arguments, _) in CASES[op].errors.items():
        texts = set()
        for implementation in IMPLEMENTATIONS:
            with pytest.raises(RuntimeError) as raised:
                find(op, implementation, CPU)(*arguments)
            texts.add(str(raised.value))
        assert len(texts) == 1, (name, texts)


@pytest.mark.parametrize("implementation", ("reference", "kernel"))
@pytest.mark.parametrize("op", OPS)
def test_opcheck(op, implementation, device):
    """The dispatcher's contract; the reference is what runs where a device has no kernel."""
    find(op, implementation, device)
    namespace = "mtl_ext" if implementation == "kernel" else reference_namespace()
    overload = getattr(getattr(torch.ops, namespace), op).default
    for name, arguments in CASES[op].inputs(3, device).items():
        if name.removesuffix("-accumulate") in OPCHECK_ROWS:
            torch.library.opcheck(overload, copied(arguments))


def reference_namespace():
    """The operators with nothing but their references, as they are when no library is built."""
    namespace = "mtl_ext_reference"
    if not hasattr(getattr(torch.ops, namespace), OPS[0]):
        for operator in ops.OPERATORS.values():
            operator.define(namespace)
            torch.library.register_kernel(f"{namespace}::{operator.name}", "default", operator.reference)
    return namespace


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_combine_writes_nothing_outside_its_outputs(implementation, device):
    function = find("combine_", implementation, device)
    shapes = [(5, 7), (64,), (1031,), ()]
    grads, weights = list_grads(shapes, 3, device=device), task_weights(3, device)
    guard = 64
    buffers = [torch.full((2 * guard + grad.numel(),), 12345.0, device=device) for grad in grads[:4]]
    out = [b[guard : guard + g.numel()].view(g.shape) for b, g in zip(buffers, grads, strict=False)]
    function(out, grads, weights, False)
    for buffer in buffers:
        assert (buffer[:guard] == 12345.0).all()
        assert (buffer[-guard:] == 12345.0).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_combine_over_the_first_task(implementation, dtype, device):
    function = find("combine_", implementation, device)
    grads, weights = list_grads([(5, 7), (64,), (1031,)], 3, dtype, device), task_weights(3, device)
    expected = find("combine", implementation, device)(grads, weights)
    function(grads[:3], grads, weights, False)
    assert same_bits(grads[:3], expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_graddrop_over_the_first_task(implementation, dtype, device):
    function = find("graddrop_", implementation, device)
    grads, seed = list_grads([(5, 7), (64,), (1031,)], 11, dtype, device), torch.tensor([5, 1], device=device)
    expected = find("graddrop", implementation, device)(grads, 11, seed, [], None, False, 1.0)
    function(grads[:3], grads, 11, seed, [], None, False, 1.0, False)
    assert same_bits(grads[:3], expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_finite_difference_over_what_it_reads(implementation, dtype, device):
    """The lower parameters over the direction, the difference over either list of gradients."""
    move, subtract = (find(op, implementation, device) for op in ("perturb_", "finite_difference_"))
    shapes = [(5, 7), (64,), (1031,)]
    params, direction = (list_grads(shapes, 1, dtype, device, seed) for seed in (0, 1))
    plus, minus, eps = find("perturb", implementation, device)(params, direction, 0.1, True)
    up = [torch.empty_like(param) for param in params]
    assert same_bits((plus, minus, eps), (up, direction, move(up, direction, params, direction, 0.1, True)))
    expected = find("finite_difference", implementation, device)(plus, minus, eps)
    over_plus, over_minus = copied(plus), copied(minus)
    subtract(over_plus, over_plus, minus, eps, False)
    subtract(over_minus, plus, over_minus, eps, False)
    assert same_bits(over_plus, expected)
    assert same_bits(over_minus, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_large_results_are_the_same_past_the_caches(dtype):
    """Above kStreamBytes the CPU kernels store past the caches, from the first aligned element of the outputs on."""
    size = 2**24 // dtype.itemsize + 1000
    draw = torch.Generator().manual_seed(0)
    params, direction = (torch.randn(size, generator=draw).to(dtype) for _ in range(2))
    both_shifted, one_shifted = (
        [torch.empty(size + shift, dtype=dtype)[shift:] for shift in pair] for pair in ((1, 1), (0, 1))
    )
    expected = ops.OPERATORS["perturb"].reference([params], [direction], 0.1, True)
    for plus, minus in (both_shifted, one_shifted):
        eps = ops.perturb_([plus], [minus], [params], [direction], 0.1, relative=True)
        for found, exact in zip((plus, minus, eps), (expected[0][0], expected[1][0], expected[2]), strict=True):
            torch.testing.assert_close(found, exact, rtol=2 * torch.finfo(found.dtype).eps, atol=1e-12)
        small = [
            ops.finite_difference([a], [b], eps)[0]
            for a, b in zip(plus.split(10_000), minus.split(10_000), strict=True)
        ]
        ops.finite_difference_([minus], [plus], [minus], eps)
        assert torch.equal(minus, torch.cat(small))


def test_finite_difference_of_a_quadratic_is_its_hessian_vector_product(device):
    hessian = torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device)
    params, direction = [torch.ones(7, dtype=torch.float64, device=device)], [hessian[0].clone()]
    plus, minus, eps = ops.perturb(params, direction, 1e-3, relative=True)
    product = ops.finite_difference([hessian @ plus[0]], [hessian @ minus[0]], eps)
    torch.testing.assert_close(product[0], hessian @ direction[0], rtol=1e-10, atol=1e-10)


def test_graddrop_has_the_same_bits_on_every_implementation():
    """Without leaks every product is exact, so that nothing but the mask and the order of the sums decides."""
    seed = torch.tensor([2**40 + 1, 2])
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        grads = list_grads([(5, 7), (64,), (20011,)], 5, dtype)
        results = [find("graddrop", name, CPU)(grads, 5, seed, [], None, False, 1.0) for name in IMPLEMENTATIONS]
        assert same_bits(results[0], results[1])
        assert same_bits(results[0], results[2])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_gradvac_equals_torchjd_without_its_eps(implementation):
    """Its rules are right for gradients that are neither zero nor parallel; its eps makes it depend on the scale."""
    peer = pytest.importorskip("torchjd.aggregation").GradVacWeighting(beta=0.3, eps=0.0)
    function, draw = find("gradvac", implementation, CPU), torch.Generator().manual_seed(5)
    others = torch.tensor([[j for j in range(6) if j != i] for i in range(6)])
    target = torch.zeros(6, 6, dtype=torch.float64)
    for step in range(8):
        jacobian = torch.randn(6, 15, dtype=torch.float64, generator=draw)
        gram = jacobian @ jacobian.T
        torch.manual_seed(step)
        expected = peer(gram)
        torch.manual_seed(step)
        order = torch.stack([row[torch.randperm(5)] for row in others])
        weights, target = function(gram, order, target, 0.3)
        torch.testing.assert_close(weights, expected, rtol=1e-12, atol=1e-12)


def test_graddrop_features_has_the_same_bits_on_every_implementation():
    seed = torch.tensor([2**40 + 1, 2])
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        grads = list_grads([(20, 5, 7), (64, 1031)], 5, dtype)
        features = list_grads([(20, 5, 7), (64, 1031)], 1, dtype, seed=1)
        arguments = (grads, 5, features, seed, [], None, False, 1.0)
        results = [find("graddrop_features", name, CPU)(*arguments) for name in IMPLEMENTATIONS]
        assert same_bits(results[0], results[1])
        assert same_bits(results[0], results[2])


def test_graddrop_keeps_the_norm_of_the_sum(device):
    grads = list_grads([(5, 7), (64,), (0,)], 3, torch.float64, device)
    seed = torch.tensor([3, 1], device=device)
    norm = sum((sum(grads[p::3])).square().sum() for p in range(3)).sqrt()
    plain = ops.graddrop(grads, 3, seed=seed)
    kept = ops.graddrop(grads, 3, seed=seed, keep_grad_norm=True)
    scale = norm / sum(tensor.square().sum() for tensor in plain).sqrt()
    torch.testing.assert_close(kept, [scale * tensor for tensor in plain])
    start = [torch.ones_like(tensor) for tensor in plain]
    ops.graddrop_(start, grads, 3, seed=seed, keep_grad_norm=True, accumulate=True)
    torch.testing.assert_close(start, [1 + tensor for tensor in kept])
    features = list_grads([(5, 7), (64,), (0,)], 1, torch.float64, device, seed=1)
    by_batch = ops.graddrop_features(grads, 3, features, seed=seed, keep_grad_norm=True)
    torch.testing.assert_close(sum(tensor.square().sum() for tensor in by_batch).sqrt(), norm)
    ops.graddrop_(grads[:3], grads, 3, seed=seed, keep_grad_norm=True)
    torch.testing.assert_close(grads[:3], kept)


def test_graddrop_with_kept_norm_leaves_zeros_and_absent_parameters_alone(device):
    zeros = [torch.zeros(4, device=device), torch.empty(0, device=device)] * 2
    seed = torch.tensor([3, 1], device=device)
    assert not ops.graddrop(zeros, 2, seed=seed, keep_grad_norm=True)[0].any()
    for accumulate in (False, True):
        out = [torch.ones(4, device=device), torch.full((2,), 5.0, device=device)]
        ops.graddrop_(out, zeros, 2, seed=seed, keep_grad_norm=True, accumulate=accumulate)
        assert (out[0] == accumulate).all()
        assert (out[1] == 5).all()


def test_combine_leaves_a_parameter_without_gradients_alone(device):
    out = [torch.ones(3, device=device), torch.ones(2, device=device)]
    grads = [torch.empty(0, device=device), torch.ones(2, device=device)] * 2
    ops.combine_(out, grads, torch.ones(2, dtype=torch.float64, device=device))
    assert out[0].tolist() == [1.0, 1.0, 1.0]
    assert out[1].tolist() == [2.0, 2.0]


def test_empty_lists_are_named():
    weights = torch.ones(2, dtype=torch.float64)
    for call in (lambda: ops.gram([], 2), lambda: ops.combine([], weights), lambda: ops.combine_([], [], weights)):
        with pytest.raises(RuntimeError, match=r"len\(grads\) is 0, expected a positive multiple"):
            call()
    for call in (lambda: ops.perturb([], [], 0.1), lambda: ops.perturb_([], [], [], [], 0.1)):
        with pytest.raises(RuntimeError, match=r"len\((params|plus)\) is 0, expected at least 1"):
            call()
    with pytest.raises(RuntimeError, match=r"len\(plus\) is 0, expected at least 1"):
        ops.finite_difference([], [], torch.tensor(0.1, dtype=torch.float64))
    with pytest.raises(RuntimeError, match=r"len\(out\) is 0, expected 1"):
        ops.combine_([], [torch.ones(1)] * 2, weights)


def test_other_devices_and_layouts_are_named():
    with pytest.raises(RuntimeError, match=r"has layout torch\.sparse_coo, expected torch\.strided"):
        ops.gram([torch.ones(3), torch.ones(3).to_sparse()], 2)


@pytest.mark.parametrize("implementation", ("reference", "kernel"))
def test_gram_and_combine_are_differentiable_twice(implementation, device):
    find("gram", implementation, device)
    namespace = getattr(torch.ops, "mtl_ext" if implementation == "kernel" else reference_namespace())
    grads = list_grads([(2, 3), (), (4,)], 3, torch.float64, device)
    grads[4] = grads[4].new_empty(0)  # absent for one task
    for grad in grads:
        grad.requires_grad_()
    weights, rows = task_weights(3, device).requires_grad_(), param_weights(3, 3, device).requires_grad_()
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda *tensors: namespace.gram(tensors, 3, None), grads)
        assert check(lambda *tensors: namespace.gram(tensors, 3, [1, 0, 1]), grads)
        for w in (weights, rows):
            assert check(lambda w, *tensors: tuple(namespace.combine(tensors, w)), (w, *grads))


def spread_grams(device):
    """A batch of well-conditioned Gram matrices with weights inside and on the border of the simplex."""
    jacobians = torch.randn(4, 4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    jacobians[1, 2] = 3 * jacobians[1, 0] + jacobians[1, 1]
    return (jacobians @ jacobians.mT).to(device)


@pytest.mark.parametrize("op", [name for name in OPS if CASES[name].differentiable_solver])
@pytest.mark.parametrize("implementation", ("reference", "kernel"))
def test_solvers_are_differentiable(op, implementation, device):
    find(op, implementation, device)
    function = getattr(getattr(torch.ops, "mtl_ext" if implementation == "kernel" else reference_namespace()), op)
    options = CASES[op].differentiable_solver
    grams = spread_grams(device).requires_grad_()
    for arguments in options:
        assert torch.autograd.gradcheck(lambda g, tail=arguments: function((g + g.mT) / 2, *tail)[0], grams)


@pytest.mark.parametrize("implementation", ("reference", "kernel"))
def test_project_simplex_is_differentiable_twice(implementation, device):
    find("project_simplex", implementation, device)
    namespace = getattr(torch.ops, "mtl_ext" if implementation == "kernel" else reference_namespace())
    draw = torch.Generator().manual_seed(4)
    values = torch.randn(2, 3, 6, dtype=torch.float64, generator=draw).to(device).requires_grad_()
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda v: namespace.project_simplex(v)[0], values)


@pytest.mark.parametrize("implementation", ("reference", "kernel"))
def test_aligned_is_differentiable_in_its_preference(implementation, device):
    find("aligned", implementation, device)
    namespace = getattr(torch.ops, "mtl_ext" if implementation == "kernel" else reference_namespace())
    grams = spread_grams(device)
    for shape in ((4,), (4, 4)):
        preference = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).to(device)
        preference.requires_grad_()
        assert torch.autograd.gradcheck(lambda p: namespace.aligned(grams, "median", 2.0**-23, p)[0], preference)


def test_unsolved_problems_have_no_derivative(device):
    gram = torch.full((2, 3, 3), torch.nan, dtype=torch.float64, device=device)
    gram[1] = 0.0
    gram.requires_grad_()
    ops.min_norm(gram)[0].sum().backward()
    assert (gram.grad == 0).all()


def test_operators_without_a_formula_do_not_record_gradients():
    gram = torch.eye(2, dtype=torch.float64, requires_grad=True)
    assert not ops.pcgrad(gram, torch.tensor([[1], [0]])).requires_grad


def test_whole_path_compiles_into_one_graph(device):
    def path(grads, out, order):
        gram = ops.gram(grads, 3)
        ops.combine_(out, grads, ops.pcgrad(gram, order))
        return ops.min_norm(gram)

    grads = list_grads([(5, 7), (64,)], 3, device=device)
    order = torch.tensor([[1, 2], [0, 2], [0, 1]], device=device)
    eager, compiled = [torch.zeros_like(g) for g in grads[:2]], [torch.zeros_like(g) for g in grads[:2]]
    expected = path(grads, eager, order)
    result = torch.compile(path, fullgraph=True, backend="aot_eager")(grads, compiled, order)
    assert same_bits(result, expected)
    assert same_bits(compiled, eager)
