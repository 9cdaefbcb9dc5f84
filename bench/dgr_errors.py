"""How wrong a finite difference of DGR's gradient is, over its step: `python -m bench.dgr_errors FIGURE.png`.

Against exact differentiation in float64, for four heads and three losses: as it comes, and with the activation pattern
of the unperturbed pass held. The dots are the steps that DGR takes.
"""

import argparse
import sys
from itertools import product

import numpy as np
import torch
from matplotlib.figure import Figure

from bench import records
from mtl_ext.penalties.dummy_heads import DummyHeads
from mtl_ext.penalties.finite_difference import FiniteDifference
from mtl_ext.penalties.norm_gradient import BatchNorms, Evaluation
from mtl_ext.plots import COLOURS

sys.path.append(str(records.ROOT / "python_tests"))
from dgr_cases import HEADS, LOSSES, head_case

RADII = np.logspace(-12, -1, 23)
NAMES = {"linear": "Linear", "mlp": "MLP", "conv": "Convolutions", "deeplab": "DeepLab", "l1": "L1"}
DTYPES = {torch.float32: ("float32", COLOURS[3]), torch.float64: ("float64", COLOURS[0])}


class Case:
    """One head, loss and precision.

    Args:
        head: a name of `dgr_cases`.
        loss: likewise.
        dtype: of the finite difference.
    """

    def __init__(self, head: str, loss: str, dtype: torch.dtype) -> None:
        module, self.loss, z, target = head_case(head, loss, torch.float64)
        self.dummies = DummyHeads(module, 3)
        exact = BatchNorms(self.dummies, self.loss)(Evaluation(z, target, ("cpu", None), None))[1][0]
        assert exact is not None
        self.exact = exact
        self.dummies.to(dtype)
        target = target.to(dtype) if target.is_floating_point() else target
        self.evaluation = Evaluation(z.detach().to(dtype), target, ("cpu", None), None)

    def error(self, radius: float | None, frozen: bool) -> tuple[float, float]:
        """The step, relative to the parameters' norm, and the relative error.

        Args:
            radius: the step; None: DGR's own, of which the dummies' geometric mean is given.
            frozen: hold the activation pattern.
        """
        method = FiniteDifference(self.dummies, self.loss, radius, frozen)
        found = method(self.evaluation)[1][0]
        assert found is not None
        error = float((found.double() - self.exact).norm() / self.exact.norm())
        return float(np.exp(np.mean(np.log(method.radii)))), error


def draw() -> Figure:
    """A panel for each head and loss."""
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    axes = figure.subplots(len(LOSSES), len(HEADS), sharex=True, sharey=True)
    for (row, loss), (column, head) in product(enumerate(LOSSES), enumerate(HEADS)):
        axis = axes[row][column]
        for dtype, (name, colour) in DTYPES.items():
            case = Case(head, loss, dtype)
            for frozen, style, label in ((False, ":", "as it comes"), (True, "-", "pattern held")):
                axis.loglog(
                    *zip(*(case.error(radius, frozen) for radius in RADII), strict=True),
                    style,
                    color=colour,
                    linewidth=1.8,
                    label=f"{name}, {label}",
                )
            axis.plot(*case.error(None, True), "o", color=colour, label=f"{name}, DGR's step")
        axis.set_title(f"{NAMES.get(head, head)}, {NAMES.get(loss, loss.replace('_', ' '))}", fontsize=10, loc="left")
        axis.set_ylim(1e-11, 1e2)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("step, relative to the norm of the head's parameters", fontsize=11)
    figure.supylabel("relative error of the gradient at the features", fontsize=11)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, frameon=False, fontsize=9)
    return figure


def main() -> None:
    """Draws and saves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="where to write the figure, for example dgr_errors.png")
    path = parser.parse_args().file
    torch.manual_seed(0)
    draw().savefig(path, dpi=130)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
