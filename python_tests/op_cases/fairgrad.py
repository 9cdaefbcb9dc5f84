"""fairgrad's row."""

from op_cases.common import GRAM_ERRORS, SQUARE, OpCase
from op_cases.nash import check_alpha_fair, fair_grams


def fairgrad_inputs(seed, device):
    cases = {}
    for alpha in (0.5, 1.0, 2.0, 10.0):
        suffix = "" if alpha == 2.0 else f"-alpha{alpha}"
        cases |= {f"{name}{suffix}": (gram, alpha) for name, gram in fair_grams(seed, device).items()}
    return cases


def check_fairgrad(arguments, result):
    check_alpha_fair(*arguments, result)


CASES = [
    OpCase(
        "fairgrad",
        inputs=fairgrad_inputs,
        check=check_fairgrad,
        errors={
            **{name: ((bad, 1.0), message) for name, (bad, message) in GRAM_ERRORS.items()},
            "alpha-zero": ((SQUARE, 0.0), "alpha is 0, expected a finite number above 0"),
            "alpha-nan": ((SQUARE, float("nan")), "alpha is nan, expected"),
        },
        differentiable_solver=((0.5,), (1.0,), (2.0,)),
    )
]
