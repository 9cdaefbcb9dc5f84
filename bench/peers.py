"""TorchJD next to this package: aggregation alone, and weights alone.

    python -m bench.peers [--quick] [--tasks 3 8] [--method MGDA ...] [--rounds 5] [--threads 1]

Aggregation goes from the K * P gradient tensors, as autograd delivers them, to the P combined ones; TorchJD has to
concatenate them first. Weights alone go from the Gram matrix to the weights, another matrix in every round: NashMTL
starts from its last solution there.
"""

import argparse
import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchjd.aggregation as peer
from torch import Tensor

from bench import records
from bench.records import Record, verdict
from bench.rows import COLUMNS, Lists, make_lists, resnet_sizes
from bench.timing import interleaved, percentiles, wait_until_quiet
from mtl_ext import ops
from mtl_ext.methods.pcgrad import draw_order

EPS = torch.finfo(torch.float32).eps
SPEEDUP = "x faster than TorchJD"
TABLE = {"method": 10, "what": 11, "K": 2, "ours ms": 8, "TorchJD ms": 10, "x faster": 8, "target": 7, "verdict": 8}


def first(answer: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The weights of a solver's answer; `check_solved` looks at the rest, outside of what is timed."""
    return answer[0]


def check_solved(answer: object) -> None:
    """Looks at a solver's certificate and status.

    Raises:
        AssertionError: it is not a solution: there is nothing to compare.
    """
    if isinstance(answer, tuple) and len(answer) == 3:
        _, certificate, status = answer
        assert (status == 0).all(), f"status {status.tolist()}"
        assert (certificate < 1e-6).all(), f"certificate {certificate.tolist()}"


@dataclass(frozen=True)
class Peer:
    """One method on both sides.

    Attributes:
        op: the operator that finds the weights, or the gradient itself.
        aggregator: K -> TorchJD's aggregator.
        arguments: gram -> the operator's arguments; None where the method needs no Gram matrix.
        weights: the operator's result -> weights [K].
        target: of the whole aggregation.
        weights_target: K -> target of the weights alone; a K without one is not timed.
    """

    op: str
    aggregator: Callable[[int], Any]
    arguments: Callable[[Tensor], tuple[Any, ...]] | None = None
    weights: Callable[[Any], Tensor] = first
    target: str = ">=3"
    weights_target: tuple[tuple[int, str], ...] = ()

    def available(self) -> bool:
        """Whether the kernel is there."""
        return self.op in ops.OPERATORS and ops.has_kernel(self.op, "cpu")

    def find_weights(self, gram: Tensor) -> Tensor:
        """The weights, arguments such as random orders drawn on the way."""
        return self.weights(self.answer(gram))

    def answer(self, gram: Tensor) -> Any:
        """What the operator returns."""
        assert self.arguments is not None, "this method needs no Gram matrix"
        return getattr(torch.ops.mtl_ext, self.op)(*self.arguments(gram))

    def weighting(self, num_tasks: int) -> Callable[[Tensor], Tensor]:
        """TorchJD's way from a Jacobian's factor, or its Gram matrix, to the weights: see `takes_jacobian`."""
        aggregator = self.aggregator(num_tasks)
        return aggregator.weighting if self.takes_jacobian else aggregator.gramian_weighting

    @property
    def takes_jacobian(self) -> bool:
        """Whether TorchJD's weighting forms the Gram matrix itself."""
        return self.op == "nash"


def upgrad_bounds(gram: Tensor) -> Tensor:
    """A problem for each task: its preference, 1 / K, as the bound on its weight."""
    return torch.eye(len(gram), dtype=torch.float64) / len(gram)


def dualproj_bounds(gram: Tensor) -> Tensor:
    """One problem with all preferences as bounds."""
    return torch.full((1, len(gram)), 1 / len(gram), dtype=torch.float64)


HUNDRED = ((64, ">=100"),)
PEERS = {
    "MGDA": Peer("min_norm", lambda k: peer.MGDA(), lambda g: (g,)),
    "PCGrad": Peer(
        "pcgrad", lambda k: peer.PCGrad(), lambda g: (g, draw_order(len(g))), lambda w: w, weights_target=HUNDRED
    ),
    "GradVac": Peer(
        "gradvac",
        lambda k: peer.GradVac(),
        lambda g: (g, draw_order(len(g)), torch.zeros_like(g), 0.5),
        lambda answer: answer[0],
        weights_target=HUNDRED,
    ),
    "CAGrad": Peer("cagrad", lambda k: peer.CAGrad(0.4), lambda g: (g, 0.4, EPS)),
    "NashMTL": Peer(
        "nash",
        lambda k: peer.NashMTL(k),
        lambda g: (g,),
        weights_target=((3, ">=300"), (8, ">=300"), (20, ">=300")),
    ),
    "FairGrad": Peer("fairgrad", lambda k: peer.FairGrad(1.0), lambda g: (g, 1.0)),
    "AlignedMTL": Peer("aligned", lambda k: peer.AlignedMTL(), lambda g: (g, "min", EPS)),
    "IMTLG": Peer("imtl_g", lambda k: peer.IMTLG(), lambda g: (g, EPS)),
    "UPGrad": Peer(
        "dual_cone", lambda k: peer.UPGrad(), lambda g: (g, upgrad_bounds(g)), lambda answer: first(answer).sum(0)
    ),
    "DualProj": Peer(
        "dual_cone", lambda k: peer.DualProj(), lambda g: (g, dualproj_bounds(g)), lambda answer: first(answer)[0]
    ),
    "Mean": Peer("combine_", lambda k: peer.Mean(), target=">=1"),
    "GradDrop": Peer("graddrop_", lambda k: peer.GradDrop(), target=">=25"),
}


def by_torchjd(name: str, lists: Lists) -> Callable[[], object]:
    """Concatenates, aggregates, splits."""
    aggregator = PEERS[name].aggregator(lists.num_tasks)

    def aggregate() -> object:
        jacobian = torch.cat(lists.grads).view(lists.num_tasks, -1)
        return aggregator(jacobian).split(lists.sizes)

    return aggregate


def by_us(name: str, lists: Lists) -> Callable[[], object]:
    """Gram matrix, weights, combination into existing tensors; no Gram matrix where the method needs none."""
    if name == "GradDrop":
        return lambda: ops.graddrop_(lists.out, lists.grads, lists.num_tasks, seed=lists.seed)
    if name == "Mean":
        equal = torch.full((lists.num_tasks,), 1 / lists.num_tasks, dtype=torch.float64)
        return lambda: ops.combine_(lists.out, lists.grads, equal)
    find_weights = PEERS[name].find_weights
    check_solved(PEERS[name].answer(ops.gram(lists.grads, lists.num_tasks)))
    return lambda: ops.combine_(lists.out, lists.grads, find_weights(ops.gram(lists.grads, lists.num_tasks)))


def compare(name: str, what: str, num_tasks: int, functions: dict[str, Any], target: str, rounds: int) -> Record:
    """One line: both sides in alternation."""
    times = interleaved(functions, rounds, least_ms=2.0)
    ratio = min(times["theirs"]) / min(times["ours"])
    return Record(
        "peers",
        f"{name} {what}",
        threads=torch.get_num_threads(),
        K=num_tasks,
        **percentiles(times["ours"]),
        quantity=SPEEDUP,
        value=ratio,
        target=target,
        verdict=verdict(ratio, target),
    )


def compare_weights(name: str, num_tasks: int, target: str, rounds: int) -> Record:
    """Weights alone, from one random Jacobian with conflicts after the other."""
    draw = torch.Generator().manual_seed(0)
    shape = (16, num_tasks, 2 * num_tasks + 1)
    matrices = torch.randn(shape, generator=draw, dtype=torch.float64)
    grams = list(matrices @ matrices.mT)
    method = PEERS[name]
    for gram in grams:
        check_solved(method.answer(gram))
    weighting = method.weighting(num_tasks)
    theirs, ours = itertools.cycle(matrices if method.takes_jacobian else grams), itertools.cycle(grams)
    functions = {"ours": lambda: method.find_weights(next(ours)), "theirs": lambda: weighting(next(theirs))}
    return compare(name, "weights", num_tasks, functions, target, rounds)


def shown(line: Record) -> tuple[object, ...]:
    """The cells of a printed line."""
    method, _, what = line.op.partition(" ")
    theirs = line.min_ms * line.value if line.min_ms and line.value else None
    return method, what, line.K, line.min_ms, theirs, line.value, line.target, line.verdict


def measure(name: str, lists: list[Lists], rounds: int) -> list[Record]:
    """All lines of a method."""
    found = []
    for each in lists:
        functions = {"ours": by_us(name, each), "theirs": by_torchjd(name, each)}
        found.append(compare(name, "aggregation", each.num_tasks, functions, PEERS[name].target, rounds))
        found[-1].P, found[-1].N = len(each.sizes), each.columns
    for num_tasks, target in PEERS[name].weights_target:
        found.append(compare_weights(name, num_tasks, target, rounds))
    return found


def main() -> None:
    """Compares, prints and records.

    Raises:
        SystemExit: a kernel is missing.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="K = 3 alone, few rounds")
    parser.add_argument("--method", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--tasks", nargs="*", type=int, default=[3, 8], choices=list(COLUMNS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for a quiet machine")
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.rounds = [3], 2
    warnings.filterwarnings("ignore", module="cvxpy")
    torch.set_num_threads(options.threads)
    busy = wait_until_quiet(options.wait)
    print(f"TorchJD {records.versions()['torchjd']}, {options.threads} threads, minima of {options.rounds} rounds")
    records.print_table(TABLE, ())
    lists = [make_lists(k, resnet_sizes(60, COLUMNS[k])) for k in options.tasks]
    found: list[Record] = []
    for name in options.method:
        there = PEERS[name].available()
        lines = measure(name, lists, options.rounds) if there else [records.missing("peers", f"{name} aggregation")]
        for line in lines:
            line.busy_cores = busy
            print(records.format_line(TABLE, shown(line)), flush=True)
        found.extend(lines)
    print(f"written to {records.write('peers', found)}")
    records.finish(found)


if __name__ == "__main__":
    main()
