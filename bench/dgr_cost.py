"""What DGR costs a training step, next to SAM and PTA: `python -m bench.dgr_cost [--quick] [--dummies 1 3 5]`.

Steps of equal weighting (EW) on three tasks: plain, with DGR's norms differentiated exactly and by finite differences,
at the worst parameters nearby (SAM), and with several decoders (PTA, as many as DGR has dummies). Two networks: a
ResNet-18 with heads of two fully connected layers, and a dilated ResNet-50 with DeepLab heads on small images.
"""

import argparse
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench import records
from bench.records import Record, verdict
from bench.timing import interleaved, percentiles, wait_until_quiet
from mtl_ext.comparators import PTA, SAM
from mtl_ext.data import Task
from mtl_ext.methods import EW
from mtl_ext.models import HardSharing, deeplab, resnet_split
from mtl_ext.penalties import DGR

PLAIN = "EW"
NUM_TASKS, NUM_CLASSES = 3, 7
STRENGTH = 1e-3
# D for which the targets are set: the paper's.
DUMMIES = 3
TABLE = {"network": 34, "D": 2, "step": 28, "ms": 8, "p80/min": 7, "x EW step": 9, "target": 7, "verdict": 8}
Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A network and its batch.

    Attributes:
        name: what the table calls it.
        make: (tasks) -> the network.
        kind: of its tasks, "classes" or "pixels".
        batch: images.
        size: their height and width.
        target: for the time of a step with DGR, relative to EW.
    """

    name: str
    make: Callable[[Sequence[Task]], HardSharing]
    kind: str
    batch: int
    size: int
    target: str


CASES = (
    Case("ResNet-18, two-layer heads", partial(resnet_split, depth=18), "classes", 32, 64, "<=1.15"),
    Case("dilated ResNet-50, DeepLab heads", partial(deeplab, rates=(2, 4, 6)), "pixels", 4, 64, "<=2"),
)
QUICK = (
    Case("ResNet-18, two-layer heads", partial(resnet_split, depth=18, width=8), "classes", 8, 32, ""),
    Case("dilated ResNet-50, DeepLab heads", partial(deeplab, width=4, rates=(1, 2)), "pixels", 2, 32, ""),
)


class World:
    """A network with its batch and optimizer, and the steps that can be made of them.

    Args:
        case: what to build.
        decoders: of every task; more than one: PTA.
    """

    def __init__(self, case: Case, decoders: int = 1) -> None:
        torch.manual_seed(0)
        tasks = [Task(f"task {k}", case.kind, NUM_CLASSES, functional.cross_entropy, ()) for k in range(NUM_TASKS)]
        self.model = case.make(tasks)
        if decoders > 1:
            for task in self.model.tasks:
                self.model.heads[task] = PTA(self.model.head(task), decoders=decoders)
        self.decoders = decoders
        self.images = torch.randn(case.batch, 3, case.size, case.size)
        shape = (case.batch, case.size, case.size) if case.kind == "pixels" else (case.batch,)
        self.targets = {task: torch.randint(NUM_CLASSES, shape) for task in self.model.tasks}
        self.shared = self.model.shared_parameters()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9)
        self.method = EW()

    def losses(self) -> tuple[Any, dict[str, Tensor]]:
        """Features and the tasks' losses."""
        z = self.model.features(self.images)
        return z, {task: self._loss(self.model.head(task), z, self.targets[task]) for task in self.model.tasks}

    def plain(self) -> Step:
        """EW, with several decoders if the network has them."""

        def step() -> None:
            self.optimizer.zero_grad()
            self.method.backward(self.losses()[1], shared=self.shared)
            self.optimizer.step()

        return step

    def dgr(self, dummies: int, mode: str) -> Step:
        """EW + DGR."""
        heads = {task: self.model.head(task) for task in self.model.tasks}
        dgr = DGR(heads, dict.fromkeys(heads, functional.cross_entropy), strength=STRENGTH, dummies=dummies, mode=mode)

        def step() -> None:
            self.optimizer.zero_grad()
            z, losses = self.losses()
            self.method.backward(losses, shared=self.shared, penalties=[dgr(z, self.targets)])
            self.optimizer.step()

        return step

    def sam(self) -> Step:
        """EW at the worst parameters nearby."""
        sam = SAM(self.optimizer, self.model)

        def losses() -> dict[str, Tensor]:
            return self.losses()[1]

        return lambda: sam.step(losses, lambda: self.method.backward(losses(), shared=self.shared))

    def _loss(self, head: nn.Module, z: Any, target: Tensor) -> Tensor:
        if isinstance(head, PTA):
            return head.loss(z, lambda out: functional.cross_entropy(out, target))
        return functional.cross_entropy(head(z), target)


def measure(case: Case, dummies: int, rounds: int) -> list[Record]:
    """One line per kind of step."""
    world = World(case)
    steps = {
        PLAIN: world.plain(),
        "EW + DGR, exact": world.dgr(dummies, "exact"),
        "EW + DGR, finite difference": world.dgr(dummies, "finite_difference"),
        "EW + SAM": world.sam(),
        "EW + PTA": World(case, dummies).plain(),
    }
    gc.disable()  # a collection of cycles would land in some step by chance
    times = interleaved(steps, rounds)
    gc.enable()
    found = []
    for name in steps:
        ratio = min(times[name]) / min(times[PLAIN])
        target = case.target if "DGR" in name and dummies == DUMMIES else ""
        line = Record(
            "dgr_cost",
            f"{name}, D = {dummies}: {case.name}, batch {case.batch} at {case.size}x{case.size}",
            impl="method",
            threads=torch.get_num_threads(),
            K=NUM_TASKS,
            **percentiles(times[name]),
            quantity="x EW step",
            value=ratio,
            target=target,
            verdict=verdict(ratio, target) if target else "",
        )
        found.append(line)
        spread = line.p80_ms / line.min_ms
        cells = (case.name, dummies, name, line.min_ms, spread, ratio, target, line.verdict)
        print(records.format_line(TABLE, cells), flush=True)
    return found


def main() -> None:
    """Times, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="narrow networks, few rounds")
    parser.add_argument("--dummies", nargs="*", type=int, default=[1, 3, 5])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for a quiet machine")
    options = parser.parse_args()
    cases = CASES
    if options.quick:
        cases, options.dummies, options.rounds = QUICK, [1, 3], 2
    torch.set_num_threads(options.threads)
    busy = wait_until_quiet(options.wait)
    print(f"{NUM_TASKS} tasks, {options.threads} threads, minima of {options.rounds} interleaved rounds")
    records.print_table(TABLE, ())
    found: list[Record] = []
    for case in cases:
        for dummies in options.dummies:
            found.extend(measure(case, dummies, options.rounds))
    for line in found:
        line.busy_cores = busy
    print(f"written to {records.write('dgr_cost', found)}")
    records.finish(found)


if __name__ == "__main__":
    main()
