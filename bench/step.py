"""Whole training steps of a ResNet-18: forward, K backward passes, aggregation, optimizer.

    python -m bench.step [--quick] [--tasks 3 8] [--method MGDA ...] [--rounds 5] [--threads 2]

Every method runs next to the K backward passes that it needs: a loop that keeps the K lists of gradients alive until
the optimizer has stepped, and combines nothing. A method's step may cost at most 3% more.
"""

import argparse
import gc
import inspect
from collections.abc import Callable

import torch

from bench import records
from bench.records import Record, verdict
from bench.resnet18 import ResNet18
from bench.timing import Times, interleaved, peak_megabytes, percentiles, wait_until_quiet
from mtl_ext.methods import METHODS

# (batch, size of the images, target)
SHAPES = ((64, 64, "<=1.03"), (16, 32, ""))
BARE = "K backward passes"
# CosReg differentiates twice; CvxWeighting is the user's own layer.
MORE_PASSES = ("CosReg", "CvxWeighting")
# Where the default would leave out what the method is about.
OPTIONS = {"TrimmedMean": {"trim_number": 1}}
TABLE = {"method": 18, "K": 2, "batch": 5, "size": 4, "ms": 8, "p80/min": 7, "peak MB": 7, "x bare step": 11}
TABLE |= {"target": 7, "verdict": 8}
Step = Callable[[], object]


def bare_step(model: ResNet18, images: torch.Tensor, labels: torch.Tensor, optimizer: torch.optim.Optimizer) -> Step:
    """The K backward passes alone; the last task's gradients are stepped with."""
    shared = list(model.trunk.parameters())

    def step() -> None:
        optimizer.zero_grad()
        losses = model.losses(images, labels)
        lists = []
        for k, loss in enumerate(losses):
            for param in shared:
                param.grad = None
            loss.backward(retain_graph=k + 1 < len(losses))
            lists.append([param.grad for param in shared])
        optimizer.step()
        del lists

    return step


def method_step(
    name: str, model: ResNet18, images: torch.Tensor, labels: torch.Tensor, optimizer: torch.optim.Optimizer
) -> Step:
    """A step with a method, as a user writes it."""
    factory = METHODS[name]
    options = {"num_tasks": len(labels)} if "num_tasks" in inspect.signature(factory).parameters else {}
    method, shared = factory(**options, **OPTIONS.get(name, {})), list(model.trunk.parameters())

    def step() -> None:
        optimizer.zero_grad()
        method.backward(model.losses(images, labels), shared=shared)
        optimizer.step()

    return step


def make_steps(num_tasks: int, batch: int, size: int, methods: list[str]) -> dict[str, Step]:
    """The bare step and those of the methods, on one model."""
    torch.manual_seed(0)
    model = ResNet18(num_tasks)
    images, labels = torch.randn(batch, 3, size, size), torch.randint(0, 10, (num_tasks, batch))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    world = (model, images, labels, optimizer)
    return {BARE: bare_step(*world), **{name: method_step(name, *world) for name in methods}}


def measure(num_tasks: int, shape: tuple[int, int, str], methods: list[str], rounds: int) -> list[Record]:
    """One line per method and one for the bare step."""
    batch, size, target = shape
    steps = make_steps(num_tasks, batch, size, methods)
    gc.disable()  # a collection of cycles would land in some step by chance
    times: Times = interleaved(steps, rounds)
    peaks = {name: peak_megabytes(step) for name, step in steps.items()}
    gc.enable()
    found = []
    for name in steps:
        ratio = min(times[name]) / min(times[BARE])
        wanted = target if name != BARE else ""
        found.append(
            Record(
                "step",
                f"{name} batch {batch} at {size}x{size}",
                impl="method" if name != BARE else "bare",
                threads=torch.get_num_threads(),
                K=num_tasks,
                **percentiles(times[name]),
                peak_mb=peaks[name],
                quantity="x bare step",
                value=ratio,
                target=wanted,
                verdict=verdict(ratio, wanted) if wanted else "",
            )
        )
        spread = found[-1].p80_ms / found[-1].min_ms
        cells = (name, num_tasks, batch, size, min(times[name]), spread, peaks[name], ratio, wanted, found[-1].verdict)
        print(records.format_line(TABLE, cells), flush=True)
    return found


def main() -> None:
    """Times, prints and records."""
    # Those that take one batch and K backward passes, so that the bare step is what they need.
    gradient_methods = [
        name
        for name, method in METHODS.items()
        if method.level == "gradient" and method.batches == 1 and name not in MORE_PASSES
    ]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the small batch alone, few rounds")
    parser.add_argument("--tasks", nargs="*", type=int, default=[3, 8])
    parser.add_argument("--method", nargs="*", default=gradient_methods, choices=gradient_methods)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for a quiet machine")
    options = parser.parse_args()
    shapes = SHAPES
    if options.quick:
        shapes, options.tasks, options.rounds = SHAPES[1:], [3], 2
    torch.set_num_threads(options.threads)
    busy = wait_until_quiet(options.wait)
    print(f"ResNet-18, {options.threads} threads, minima of {options.rounds} interleaved rounds")
    records.print_table(TABLE, ())
    found: list[Record] = []
    for num_tasks in options.tasks:
        for shape in shapes:
            found.extend(measure(num_tasks, shape, options.method, options.rounds))
    for line in found:
        line.busy_cores = busy
    print(f"written to {records.write('step', found)}")
    records.finish(found)


if __name__ == "__main__":
    main()
