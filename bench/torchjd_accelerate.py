"""TorchJD's own classes before and after `accelerate()`, on the same matrices and the same `.jac` tensors.

    python -m bench.torchjd_accelerate [--quick] [--tasks 3 8 20] [--method MGDA ...] [--rounds 5] [--threads 1]

Prints speed-ups and differences, then what TorchJD gets wrong, each with the evidence. Fails where a difference exceeds
its tolerance. Three ways in: the aggregator on a matrix, the weighting on a Gram matrix, `jac_to_grad` on parameters.
"""

import argparse
import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torchjd.aggregation as peer
from torch import Tensor
from torchjd.autojac import jac_to_grad

from bench import records
from bench.records import Record
from bench.rows import resnet_sizes
from bench.timing import Times, percentiles, wait_until_quiet
from mtl_ext.adapters import torchjd as adapter

PARAMS, COLUMNS = 20, 200_000
SHORT = 0.3  # seconds of a comparison, at least
Call = Callable[[Any], Any]  # of an aggregator
SPEEDUP = "x faster than TorchJD"
TABLE = {"method": 10, "what": 11, "K": 2, "before ms": 9, "after ms": 8, "x faster": 8, "difference": 10, "allowed": 9}


@dataclass(frozen=True)
class Method:
    """One of TorchJD's aggregators.

    Attributes:
        make: K -> the aggregator.
        allowed: largest difference, relative to the length of TorchJD's result; what TorchJD's solver stops at, or
            rounding. None: TorchJD's result is wrong, see the second table.
    """

    make: Callable[[int], Any]
    allowed: float | None = 1e-4


METHODS = {
    "AlignedMTL": Method(lambda k: peer.AlignedMTL()),
    "CAGrad": Method(lambda k: peer.CAGrad(0.4), 1e-3),
    "ConFIG": Method(lambda k: peer.ConFIG()),
    "Constant": Method(lambda k: peer.Constant(torch.arange(1.0, k + 1))),
    "DualProj": Method(lambda k: peer.DualProj()),
    "FairGrad": Method(lambda k: peer.FairGrad(1.0), 1e-3),
    "GradDrop": Method(lambda k: peer.GradDrop(), 1e-2),  # an element or two whose draw is its purity
    "GradVac": Method(lambda k: peer.GradVac()),
    "IMTLG": Method(lambda k: peer.IMTLG()),
    "Krum": Method(lambda k: peer.Krum(0)),
    "Mean": Method(lambda k: peer.Mean()),
    "MGDA": Method(lambda k: peer.MGDA(), None),
    "NashMTL": Method(lambda k: peer.NashMTL(k), 2e-2),
    "PCD": Method(lambda k: peer.PCD()),
    "PCGrad": Method(lambda k: peer.PCGrad()),
    "Random": Method(lambda k: peer.Random()),
    "Sum": Method(lambda k: peer.Sum()),
    "UPGrad": Method(lambda k: peer.UPGrad()),
}


def jacobian(num_tasks: int, columns: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Rows [K, N] with conflicts and a common descent direction."""
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(num_tasks, columns, generator=draw, dtype=torch.float64)
    return (noise + 0.1 * torch.randn(columns, generator=draw, dtype=torch.float64)).to(dtype)


def parameters(matrix: Tensor, sizes: list[int]) -> list[Tensor]:
    """Parameters whose `.jac` are the blocks of a matrix, each in memory of its own as `backward` leaves them."""
    found = []
    for block in matrix.split(sizes, dim=1):
        param = torch.zeros(block.shape[1], requires_grad=True)
        param.jac = block.contiguous()  # type: ignore[attr-defined]
        found.append(param)
    return found


def ways(name: str, num_tasks: int) -> Iterator[tuple[str, Call, Call]]:
    """What is compared: on a matrix, on a Gram matrix (where there is a weighting of those), on parameters.

    Yields:
        A name, what is timed, and what tells its result: functions of an aggregator.
    """
    matrix = jacobian(num_tasks, COLUMNS)
    yield "aggregator", lambda a: a(matrix), lambda a: a(matrix)
    if hasattr(METHODS[name].make(num_tasks), "gramian_weighting"):
        rows = jacobian(num_tasks, 3 * num_tasks, torch.float64)
        gramian = rows @ rows.T
        yield "weighting", lambda a: a.gramian_weighting(gramian), lambda a: a.gramian_weighting(gramian)
    params = parameters(matrix, resnet_sizes(PARAMS, COLUMNS))

    def fill(aggregator: Any) -> None:
        for param in params:
            param.grad = None
        jac_to_grad(params, aggregator, retain_jac=True)

    def filled(aggregator: Any) -> Tensor:
        fill(aggregator)
        return torch.cat([param.grad.detach() for param in params if param.grad is not None])

    yield "jac_to_grad", fill, filled


def seeded(function: Call, aggregator: Any) -> Tensor:
    """The result with the same draws on both sides."""
    torch.manual_seed(0)
    result: Tensor = function(aggregator)
    return result


def relative(found: Tensor, expected: Tensor) -> float:
    """How far a result is from TorchJD's, relative to the latter's length."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def alternating(function: Call, make: Callable[[], Any], rounds: int) -> Times:
    """Milliseconds of a function under TorchJD and accelerated, in turn; more rounds where they are short."""
    times: Times = {"theirs": [], "ours": []}
    aggregators = {side: make() for side in times}
    start = time.perf_counter()
    while len(times["ours"]) <= rounds or (rounds > 1 and time.perf_counter() - start < SHORT):
        for side, found in times.items():
            with adapter.accelerated() if side == "ours" else contextlib.nullcontext():
                began = time.perf_counter()
                function(aggregators[side])
                found.append(1e3 * (time.perf_counter() - began))
    return {side: found[1:] for side, found in times.items()}


def compare(name: str, rounds: int, num_tasks: int) -> Iterator[tuple[Record, float, bool]]:
    """The lines of a method: times, difference, and whether that is allowed."""
    method = METHODS[name]
    for what, timed, told in ways(name, num_tasks):
        expected = seeded(told, method.make(num_tasks))
        with adapter.accelerated():
            difference = relative(seeded(told, method.make(num_tasks)), expected)
        times = alternating(timed, lambda: method.make(num_tasks), rounds)
        line = Record(
            "torchjd_accelerate",
            f"{name} {what}",
            threads=torch.get_num_threads(),
            K=num_tasks,
            N=COLUMNS,
            **percentiles(times["ours"]),
            quantity=SPEEDUP,
            value=min(times["theirs"]) / min(times["ours"]),
        )
        yield line, difference, method.allowed is None or difference <= method.allowed


def shown(line: Record, difference: float) -> tuple[object, ...]:
    """The cells of a printed line."""
    method, _, what = line.op.partition(" ")
    theirs = (line.min_ms or 0.0) * (line.value or 0.0)
    allowed = METHODS[method].allowed
    return method, what, line.K, theirs, line.min_ms, line.value, difference, allowed or "see below"


def both(make: Callable[[], Any], matrix: Tensor) -> tuple[Tensor | str, Tensor]:
    """TorchJD's result, or the name of the exception it raises, and the accelerated one."""
    try:
        theirs: Tensor | str = seeded(lambda a: a(matrix), make())
    except Exception as error:
        theirs = type(error).__name__
    with adapter.accelerated():
        return theirs, seeded(lambda a: a(matrix), make())


def wrong_results() -> Iterator[str]:
    """What TorchJD gets wrong, each with the numbers that show it."""
    conflict = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
    theirs, ours = both(peer.MGDA, jacobian(20, 60, torch.float64))
    yield f"MGDA stops early: its direction is {theirs.norm() / ours.norm():.4f} times the shortest"
    for name, make in (("UPGrad", peer.UPGrad), ("DualProj", peer.DualProj)):
        theirs, ours = both(make, 1e-4 * conflict)
        found = [float((conflict @ each).min()) for each in (theirs, ours)]
        yield f"{name}, gradients of 1e-4, norm_eps: smallest <g, direction> {found[0]:.1e}, accelerated {found[1]:.1e}"
    theirs, ours = both(lambda: peer.CAGrad(0.4), 1e-4 * jacobian(8, 200, torch.float64))
    yield f"CAGrad, gradients of 1e-4, norm_eps: length {theirs.norm():.1e}, accelerated {ours.norm():.1e}"
    theirs, ours = both(peer.GradVac, 1e-6 * conflict)
    expected = 1e-6 * seeded(lambda a: a(conflict), peer.GradVac())
    off = [relative(each, expected) for each in (theirs, ours)]
    yield f"GradVac, gradients of 1e-6, eps: off by {off[0]:.1e} from a scaled result, accelerated {off[1]:.1e}"
    small = 1e-3 * jacobian(3, 20, torch.float64)
    found = []
    for each in both(lambda: peer.NashMTL(3, max_norm=0.0), small):
        weights = torch.linalg.pinv(small.T) @ each
        found.append(float((weights * (small @ each) - 1).abs().max()))
    yield f"NashMTL, gradients of 1e-3, first call: max |a (G a) - 1| {found[0]:.1e}, accelerated {found[1]:.1e}"
    draw = torch.Generator().manual_seed(0)
    sizes = torch.tensor([[0.04], [0.02], [0.01]])
    near = torch.randn(COLUMNS, generator=draw) + sizes * torch.randn(3, COLUMNS, generator=draw)
    spread = [
        float(torch.nn.functional.cosine_similarity(near.double(), each.double()[None]).std())
        for each in both(peer.ConFIG, near)
    ]
    yield f"ConFIG, {COLUMNS} parameters: its equal cosines vary by {spread[0]:.1e}, accelerated {spread[1]:.1e}"
    half = jacobian(3, 100, torch.bfloat16)
    solvers = (name for name in METHODS if name != "Constant")  # whose weights here are float32 in any case
    raising = [name for name in solvers if isinstance(both(lambda name=name: METHODS[name].make(3), half)[0], str)]
    yield f"bfloat16: {', '.join(raising)} raise, accelerated they do not"


def main() -> None:
    """Compares, prints and records.

    Raises:
        SystemExit: a difference exceeds its tolerance.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="K = 3 alone, few rounds")
    parser.add_argument("--method", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--tasks", nargs="*", type=int, default=[3, 8, 20])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for a quiet machine")
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.rounds = [3], 1
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    busy = wait_until_quiet(options.wait)
    print(f"TorchJD {records.versions()['torchjd']}, {options.threads} threads, minima of {options.rounds} rounds")
    records.print_table(TABLE, ())
    found, too_far = [], []
    for name in options.method:
        for num_tasks in options.tasks:
            for line, difference, fine in compare(name, options.rounds, num_tasks):
                line.busy_cores = busy
                print(records.format_line(TABLE, shown(line, difference)), flush=True)
                found.append(line)
                if not fine:
                    too_far.append(f"{line.op} K={num_tasks}: {difference:.1e}")
    print("\nWhere TorchJD is wrong")
    for text in wrong_results():
        print(f"  {text}", flush=True)
    print(f"\nwritten to {records.write('torchjd_accelerate', found)}")
    if too_far:
        raise SystemExit("differences too large: " + ", ".join(too_far))


if __name__ == "__main__":
    main()
