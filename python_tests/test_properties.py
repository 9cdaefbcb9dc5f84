"""Properties of the operators on inputs that nobody thought of, and under concurrency."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from op_cases.combine import check_combined, param_weights
from op_cases.common import DTYPES, list_grads
from op_cases.graddrop import check_result, variant
from op_cases.graddrop_features import check_features, features_like
from op_cases.gram import check_gram

from mtl_ext import ops

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@st.composite
def gradient_lists(draw):
    """Task-major lists: any shapes, dtypes, layouts, absences and alignments."""
    num_tasks = draw(st.integers(1, 12) | st.just(64))
    columns = []
    for param in range(draw(st.integers(1, 4))):
        shape = draw(
            st.lists(st.integers(0, 9) | st.just(257), max_size=3).filter(lambda s: torch.Size(s).numel() < 20000)
        )
        dtype = draw(st.sampled_from(DTYPES))
        scale = 10.0 ** draw(st.integers(-4, 4))
        column = [(grad * scale).to(dtype) for grad in list_grads([shape], num_tasks, torch.float64, seed=param)]
        columns.append([rearranged(grad, draw(st.integers(0, 5))) for grad in column])
    return [column[k] for k in range(num_tasks) for column in columns], num_tasks


def rearranged(grad, way):
    """The same values in another place or order, or no gradient at all."""
    if way == 1:
        return grad.new_empty(0)
    if way == 2:
        return torch.cat([grad.new_zeros(1), grad.flatten()])[1:].reshape(grad.shape)
    if way == 3 and grad.dim() > 1:
        return grad.transpose(0, -1).contiguous().transpose(0, -1)
    if way == 4:
        return torch.stack([grad, grad], -1)[..., 1]
    return grad


@SETTINGS
@given(gradient_lists())
def test_gram_of_any_list(case):
    grads, num_tasks = case
    result = ops.gram(grads, num_tasks)
    check_gram((*case, None), result)
    assert torch.equal(ops.gram(grads, num_tasks), result)


@SETTINGS
@given(gradient_lists(), st.data())
def test_gram_of_any_groups(case, data):
    grads, num_tasks = case
    num_params = len(grads) // num_tasks
    groups = data.draw(st.lists(st.integers(0, num_params - 1), min_size=num_params, max_size=num_params))
    result = ops.gram(grads, num_tasks, groups)
    check_gram((*case, groups), result)
    whole = ops.gram(grads, num_tasks)
    scale = whole.diagonal().sqrt()
    assert ((result.sum(0) - whole).abs() <= 1e-5 * scale[:, None] * scale).all()


@SETTINGS
@given(gradient_lists(), st.integers(0, 2**31))
def test_combination_with_weights_of_each_parameter(case, seed):
    grads, num_tasks = case
    num_params = len(grads) // num_tasks
    weights = param_weights(num_params, num_tasks, "cpu", seed)
    result = ops.combine(grads, weights)
    check_combined(grads, weights, result)
    same = ops.combine(grads, weights[:1].expand(num_params, num_tasks))
    assert all(torch.equal(a, b) for a, b in zip(same, ops.combine(grads, weights[0]), strict=True))


@SETTINGS
@given(gradient_lists(), st.integers(0, 2**31))
def test_combination_of_any_list(case, seed):
    grads, num_tasks = case
    weights = torch.randn(num_tasks, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    weights[seed % num_tasks] = 0.0
    result = ops.combine(grads, weights)
    check_combined(grads, weights, result)
    before = [tensor.clone() for tensor in result]
    ops.combine_(result, grads, weights, accumulate=True)
    check_combined(grads, weights, result, before)


@SETTINGS
@given(gradient_lists(), st.integers(0, 2**20))
def test_graddrop_of_any_list(case, number):
    grads, num_tasks = case
    assume(stays_finite(grads, num_tasks))
    draw = variant(number, grads, num_tasks, "cpu")
    result = run_graddrop(ops.graddrop, grads, num_tasks, draw)
    check_result(grads, num_tasks, *draw, result)
    before = [tensor.clone() for tensor in result]
    run_graddrop(ops.graddrop_, result, grads, num_tasks, draw, accumulate=True)
    check_result(grads, num_tasks, *draw, result, before)


@SETTINGS
@given(gradient_lists(), st.integers(0, 2**20))
def test_graddrop_of_any_features(case, number):
    grads, num_tasks = case
    assume(stays_finite(grads, num_tasks))
    grads = [grad[None] if grad.dim() == 0 else grad for grad in grads]
    features = features_like(grads, num_tasks, number)
    seed, uniform, *rest = variant(number, grads, num_tasks, "cpu")
    draw = (seed, [u[0] if u.numel() else u for u in uniform], *rest)
    result = run_graddrop(ops.graddrop_features, grads, num_tasks, draw, features=features)
    check_features((grads, num_tasks, features, *draw), result)


def stays_finite(grads, num_tasks):
    """Whether twice the sum of the tasks fits into every float16 parameter."""
    num_params = len(grads) // num_tasks
    columns = [[g for g in grads[p::num_params] if g.numel() and g.dtype == torch.float16] for p in range(num_params)]
    return all(sum(g.double().abs() for g in column).max() < 30000 for column in columns if column)


def run_graddrop(function, *arguments, **options):
    """Calls a public function with the draw that comes last among the positional arguments."""
    *arguments, draw = arguments
    return function(
        *arguments, **options, **dict(zip(("seed", "uniform", "leak", "sigmoid", "kappa"), draw, strict=True))
    )


@SETTINGS
@given(st.integers(1, 64), st.integers(1, 70), st.integers(0, 2**31), st.integers(-12, 12))
def test_minimum_norm_of_any_gradients(num_tasks, rank, seed, exponent):
    draw = torch.Generator().manual_seed(seed)
    jacobian = torch.randn(num_tasks, rank, dtype=torch.float64, generator=draw) * 10.0**exponent
    gram = jacobian @ jacobian.T
    weights, certificate, status = ops.min_norm((gram + gram.T) / 2)
    assert status == 0
    assert certificate <= 1e-8
    assert (weights >= 0).all()
    assert abs(weights.sum() - 1) <= 1e-12


def one_step(seed):
    """Gram matrix, weights and combination of one random list."""
    grads = list_grads([(300, 7), (11,), (70000,)], 5, seed=seed)
    gram = ops.gram(grads, 5)
    weights, _, _ = ops.min_norm(gram)
    return [gram, weights, *ops.combine(grads, weights)]


def test_sixteen_threads_give_the_same_bits():
    expected = one_step(3)
    with ThreadPoolExecutor(16) as pool:
        for result in pool.map(lambda _: one_step(3), range(48)):
            assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


def checksum(queue):
    """What a process of its own computes."""
    queue.put([tensor.numpy().tobytes() for tensor in one_step(3)])


def test_two_processes_give_the_same_bits():
    context = multiprocessing.get_context("spawn")  # a fork after a multi-threaded call would hang
    queue = context.SimpleQueue()
    processes = [context.Process(target=checksum, args=(queue,)) for _ in range(2)]
    for process in processes:
        process.start()
    results = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    assert results[0] == results[1] == [tensor.numpy().tobytes() for tensor in one_step(3)]
