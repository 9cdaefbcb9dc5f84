"""Thousands of random matrices per solver, certificates and oracles: `python -m bench.stress`.

    python -m bench.stress [--count 10000] [--sample 200] [--solver nash ...]

Matrices have K = 1 to 64 tasks whose gradients are scaled by 1e-12 to 1e12; among them are rank-deficient ones,
duplicates and near-duplicates, gradients that nearly cancel, tasks of very different lengths and zero gradients. Every
answer must carry a certificate below 1e-8, which is also recomputed in extended precision; a sample, with as many
Pareto-stationary answers as others where there are some, is solved by an independent method. Exits with 1 on any
violation, each of which is printed with what reproduces it.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bench import certificates, oracles
from bench.certificates import Answer
from bench.oracles import Array
from bench.records import format_line, print_table
from mtl_ext import ops

TASKS = 64
BOUND = 1e-8
STATIONARY = 1e-10  # of w^T G w / tr G, for an oracle to agree that 0 lies in the convex hull
EPS, EPS64 = float(np.finfo(np.float32).eps), float(np.finfo(np.float64).eps)
KINDS = ("full", "deficient", "near-duplicate", "duplicate", "cancelling", "unequal", "zero-task")


def random_jacobian(kind: str, num_tasks: int, draw: np.random.Generator) -> Array:
    """K gradients of about unit length in 2 K + 1 dimensions, of one kind."""
    jacobian = draw.standard_normal((num_tasks, 2 * num_tasks + 1)) / np.sqrt(2 * num_tasks + 1)
    if kind == "deficient":
        rank = int(draw.integers(1, num_tasks + 1))
        jacobian = draw.standard_normal((num_tasks, rank)) @ jacobian[:rank]
    elif kind in ("near-duplicate", "duplicate"):
        originals = draw.integers(0, (num_tasks + 1) // 2, num_tasks)
        distance = 10.0 ** draw.uniform(-10, -2) if kind == "near-duplicate" else 0.0
        jacobian = jacobian[originals] + distance * jacobian
    elif kind == "cancelling":
        jacobian = jacobian - (1 - 10.0 ** draw.uniform(-9, 0)) * jacobian.mean(0)
    elif kind == "unequal":
        jacobian = jacobian * 10.0 ** draw.uniform(-3, 3, (num_tasks, 1))
    elif kind == "zero-task":
        jacobian[int(draw.integers(0, num_tasks))] = 0.0
    return jacobian


@dataclass(frozen=True)
class Batch:
    """The matrices of one K.

    Attributes:
        number: K.
        grams: [B, K, K].
        draw: for what else a problem needs.
    """

    number: int
    grams: Array
    draw: np.random.Generator


def batches(count: int) -> Iterator[Batch]:
    """`count` matrices, spread evenly over K = 1 .. 64 and the kinds."""
    for index in range(TASKS):
        num_tasks = index + 1
        draw = np.random.default_rng(num_tasks)
        grams = []
        for problem in range(index, count, TASKS):
            kind = KINDS[problem // TASKS % len(KINDS)]
            jacobian = random_jacobian(kind, num_tasks, draw) * 10.0 ** draw.uniform(-12, 12)
            gram = jacobian @ jacobian.T
            grams.append((gram + gram.T) / 2)
        if grams:
            yield Batch(num_tasks, np.stack(grams), draw)


@dataclass(frozen=True)
class Solver:
    """How one solver is called and judged; problems hold the present tasks alone where an oracle sees them.

    Attributes:
        arguments: batch -> the operator's arguments.
        residual: the certificate of a solved problem in extended precision.
        oracle: arguments of one problem -> weights, or None where it has no answer.
        disagreement: relative, 0 for an equally good answer.
        tolerance: of the disagreement.
        stationary: gram -> what must be below 1 for an answer of status 1 to be right.
    """

    op: str
    arguments: Callable[[Batch], tuple[Any, ...]]
    residual: Callable[[Answer], float]
    oracle: Callable[[tuple[Any, ...]], Array | None]
    disagreement: Callable[[Answer, Array], float]
    tolerance: float
    stationary: Callable[[Array], float] = lambda gram: np.inf

    def available(self) -> bool:
        """Whether the kernel is there."""
        return self.op in ops.OPERATORS and ops.has_kernel(self.op, "cpu")


def lower_bounds(batch: Batch) -> Array:
    """[B, 2, K]: a bound on one task alone, as UPGrad has, and on all, as DualProj has, of any scale."""
    count, num_tasks = batch.grams.shape[:2]
    scale = 10.0 ** batch.draw.uniform(-6, 6, (count, 1))
    lower = np.zeros((count, 2, num_tasks))
    lower[np.arange(count), 0, batch.draw.integers(0, num_tasks, count)] = 1.0
    lower[:, 1] = batch.draw.uniform(0, 1, (count, num_tasks)) * scale
    return lower


def simplex_values(batch: Batch) -> Array:
    """[B, K]: points of any size near and far from the simplex."""
    count, num_tasks = batch.grams.shape[:2]
    return batch.draw.standard_normal((count, num_tasks)) * 10.0 ** batch.draw.uniform(-12, 12, (count, 1))


def choice(batch: Batch, *values: Any) -> Any:
    """A parameter that changes with K."""
    return values[batch.number % len(values)]


SOLVERS = {
    solver.op: solver
    for solver in (
        Solver(
            "min_norm",
            lambda b: (b.grams,),
            certificates.min_norm_gap,
            lambda a: oracles.min_norm(a[0] / np.trace(a[0])),
            certificates.min_norm_excess,
            1e-10,
        ),
        Solver(
            "nash",
            lambda b: (b.grams,),
            certificates.alpha_fair_residual,
            lambda a: oracles.alpha_fair(a[0], 1.0),
            certificates.relative_difference,
            1e-5,
            lambda gram: oracles.smallest_square(oracles.unit_gram(gram)[0]) / STATIONARY,
        ),
        Solver(
            "fairgrad",
            lambda b: (b.grams, choice(b, 0.5, 1.0, 2.0)),
            certificates.alpha_fair_residual,
            lambda a: oracles.alpha_fair(*a),
            certificates.relative_difference,
            1e-5,
            lambda gram: oracles.smallest_square(oracles.unit_gram(gram)[0]) / STATIONARY,
        ),
        Solver(
            "cagrad",
            lambda b: (b.grams, choice(b, 0.2, 0.4, 0.9), EPS64),
            certificates.cagrad_gap,
            lambda a: oracles.cagrad(*a[:2]),
            certificates.cagrad_excess,
            1e-8,
            lambda gram: oracles.smallest_square(gram) / STATIONARY,
        ),
        Solver(
            "dual_cone",
            lambda b: (b.grams, lower_bounds(b)),
            certificates.dual_cone_residual,
            lambda a: oracles.dual_cone(*a),
            certificates.dual_cone_excess,
            1e-9,
        ),
        Solver(
            "imtl_g",
            lambda b: (b.grams, EPS),
            certificates.own_answer,
            lambda a: oracles.imtl_g(*a),
            certificates.relative_difference,
            1e-6,
            lambda gram: oracles.imtl_g_sum(gram, EPS) / 4,
        ),
        Solver(
            "aligned",
            lambda b: (b.grams, choice(b, "min", "median", "rmse"), EPS),
            certificates.own_answer,
            lambda a: oracles.aligned(*a),
            certificates.largest_difference,
            1e-6,
        ),
        Solver(
            "project_simplex",
            lambda b: (simplex_values(b),),
            certificates.simplex_residual,
            lambda a: oracles.project_simplex(a[0]),
            certificates.largest_difference,
            1e-12,
        ),
    )
}


@dataclass
class Tally:
    """What a run over one solver's matrices found."""

    counts: list[int] = field(default_factory=lambda: [0, 0, 0])
    certificate: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    residual: float = 0.0
    compared: int = 0
    disagreement: float = 0.0
    stationary: int = 0
    confirmed: int = 0
    violations: list[str] = field(default_factory=list)

    def add(self, solver: Solver, answer: Answer) -> None:
        """Judges an answer without an oracle."""
        self.counts[answer.status] += 1
        self.certificate[answer.status] = max(self.certificate[answer.status], answer.certificate)
        self.expect(answer, "certificate", answer.certificate, BOUND)
        if answer.status == 0:
            residual = solver.residual(answer)
            self.residual = max(self.residual, residual)
            self.expect(answer, "recomputed certificate", residual, 2 * BOUND)

    def compare(self, solver: Solver, answer: Answer) -> None:
        """Judges an answer by an oracle, if that has one."""
        if answer.status == 1:
            excess = solver.stationary(answer.arguments[0])
            self.stationary += 1
            self.confirmed += excess <= 1
            self.expect(answer, "what an independent solver finds, over what is stationary,", excess, 1.0)
            return
        expected = solver.oracle(answer.arguments)
        if expected is not None:
            difference = solver.disagreement(answer, expected)
            self.compared += 1
            self.disagreement = max(self.disagreement, difference)
            self.expect(answer, "disagreement", difference, solver.tolerance)

    def expect(self, answer: Answer, what: str, value: float, bound: float) -> None:
        """Notes a violation; NaN is one."""
        if not value <= bound:
            self.violations.append(f"{answer.name}, status {answer.status}: {what} {value:.2e}, bound {bound:.0e}")


def answers(solver: Solver, batch: Batch) -> list[Answer]:
    """Solves a batch in one call and lists its problems, those without any gradient left out."""
    arguments = solver.arguments(batch)
    tensors = [torch.from_numpy(value) if isinstance(value, np.ndarray) else value for value in arguments]
    weights, certificates, statuses = (tensor.numpy() for tensor in getattr(torch.ops.mtl_ext, solver.op)(*tensors))
    found = []
    for index in np.ndindex(certificates.shape):
        rest = [value[index] if isinstance(value, np.ndarray) else value for value in arguments[1:]]
        problem = [arguments[0][index[0]], *rest]
        present = np.diag(problem[0]) > 0 if problem[0].ndim == 2 else np.ones(len(problem[0]), bool)
        if not present.any():
            continue
        reduced = tuple(present_part(value, present) for value in problem)
        name = f"{solver.op} K={batch.number} problem {index}"
        said = (weights[index][present], float(certificates[index]), int(statuses[index]))
        found.append(Answer(name, batch.number, reduced, *said))
    return found


def present_part(value: Any, present: Array) -> Any:
    """An argument without the tasks whose gradient is zero."""
    if not isinstance(value, np.ndarray):
        return value
    return value[np.ix_(present, present)] if value.ndim == 2 else value[present]


def stress(solver: Solver, count: int, sample: int) -> Tally:
    """Runs one solver over all matrices; per K, a few answers of either status go to the oracle."""
    tally = Tally()
    share = -(-sample // TASKS)
    for batch in batches(count):
        found = answers(solver, batch)
        for answer in found:
            tally.add(solver, answer)
        mixed = [found[index] for index in batch.draw.permutation(len(found))]
        for status in (0, 1):
            for answer in [answer for answer in mixed if answer.status == status][:share]:
                tally.compare(solver, answer)
    return tally


COLUMNS = {"solver": 15, "problems": 8, "status 0": 8, "1": 5, "2": 3, "worst certificate 0": 19, "1 ": 8}
COLUMNS |= {"recomputed": 10, "compared": 8, "disagreement": 12, "status 1 confirmed": 18, "violations": 10}
COLUMNS |= {"seconds": 7}


def main() -> None:
    """Runs every solver and prints a line for each.

    Raises:
        SystemExit: a solver is missing, or violates what it promises.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--solver", nargs="*", default=list(SOLVERS), choices=list(SOLVERS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print_table(COLUMNS, ())
    violations = []
    for op in options.solver:
        solver = SOLVERS[op]
        if not solver.available():
            violations.append(f"{op}: no kernel")
            print(f"{op:>15}  MISSING")
            continue
        start = time.monotonic()
        tally = stress(solver, options.count, options.sample)
        violations += tally.violations
        confirmed = f"{tally.confirmed} of {tally.stationary}"
        cells = [op, sum(tally.counts), *tally.counts, *tally.certificate[:2], tally.residual, tally.compared]
        cells += [tally.disagreement, confirmed, len(tally.violations), time.monotonic() - start]
        print(format_line(COLUMNS, cells), flush=True)
    for violation in violations[:50]:
        print(violation)
    if violations:
        sys.exit(f"{len(violations)} violations")


if __name__ == "__main__":
    main()
