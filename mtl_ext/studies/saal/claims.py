"""The claims of the SAAL paper as tests."""

from collections.abc import Mapping

from mtl_ext.studies.claims import Claim
from mtl_ext.studies.published import published_claims
from mtl_ext.studies.saal.findings import (
    Test,
    asymmetry_keeps_benefits,
    equal_best_for_normals,
    places,
    saal_e_against_equal,
    saal_e_on_cityscapes,
    saal_w_on_nyuv2,
    sharing_helps_and_harms,
    signs_of_celeba,
    signs_of_cityscapes,
    signs_of_nyuv2,
    slower_with_more_tasks,
    slowest,
)
from mtl_ext.studies.saal.outcomes import Outcomes
from mtl_ext.studies.saal.relationships import (
    LEVEL,
    POOR,
    asymmetric_relationships,
    attractive_and_nose,
    cheap_measures_are_poor,
    perfect_with_three_tasks,
    segmentation_helps_depth,
    targets_matter_more,
    weights_against_angles,
)
from mtl_ext.studies.saal.stand_ins import (
    CELEBA,
    CELEBA_MISSING,
    CITYSCAPES,
    CITYSCAPES_MISSING,
    NYUV2,
    NYUV2_MISSING,
)

# Beginning of the paper's claim -> its test, and the criterion where the paper leaves it open.
TESTS: Mapping[str, tuple[Test, str]] = {
    "The asymmetric MTL learning scheme": (
        asymmetry_keeps_benefits,
        "(Criterion: mean Δ_MTL over 0 to 3 shared blocks above the typical curve's and above 0.)",
    ),
    "as more layers are shared": (sharing_helps_and_harms, "(Criterion: slopes over the number of shared blocks.)"),
    "all methods improved performance for depth": (signs_of_nyuv2, ""),
    "SAAL_ew substantially outperformed": (places(NYUV2, {"SAAL_ew": 1, "SAAL_e": 2}, NYUV2_MISSING), ""),
    "SAAL_w outperforms all existing": (saal_w_on_nyuv2, "(Criterion for poorly: worse than equal weighting.)"),
    "The learning strategy that best minimised": (equal_best_for_normals, ""),
    "all approaches outperforming": (signs_of_cityscapes, ""),
    "SAAL_e, SAAL_ew and SAAL_w achieved": (
        places(CITYSCAPES, {"SAAL_e": 1, "SAAL_ew": 2, "SAAL_w": 4}, CITYSCAPES_MISSING),
        "",
    ),
    "SAAL_e was the most effective": (saal_e_on_cityscapes, ""),
    "most methods achieve higher accuracy": (signs_of_celeba, ""),
    "SAAL_w, SAAL_ew and SAAL_e achieved": (
        places(CELEBA, {"SAAL_w": 1, "SAAL_ew": 2, "SAAL_e": 4}, CELEBA_MISSING),
        "",
    ),
    "SAAL_w was the slowest method": (slowest, ""),
    "All SAAL strategies were slower": (slower_with_more_tasks, ""),
    "both datasets exhibiting": (segmentation_helps_depth, ""),
    "Many tasks exhibit": (attractive_and_nose, ""),
    "task relationships appear": (
        targets_matter_more,
        "(Criterion: means by target differ more than means by source.)",
    ),
    "look-ahead loss and gradient angle": (cheap_measures_are_poor, f"(Criterion: all below {POOR:+.2f}.)"),
    "SAAL_w coefficients and feature similarity": (perfect_with_three_tasks, ""),
}
NOT_TESTABLE = {
    "nullifying duplicate": "self-auxiliaries without their gradients in the shared part, or with a shared part of "
    "their own, are not among the networks here",
    "the NYUv2 and Cityscape datasets contain": "compares NYUv2 with Cityscapes, one of which is in a study; whether "
    "relationships are asymmetric is tested above",
}


def claims() -> list[Claim[Outcomes]]:
    """What this study is about in short, then what the paper says, in its order."""
    own = [
        Claim(
            "In short: SAAL_e does at least as well as equal weighting on the same network (criterion: mean Δ_MTL, on "
            "every data set).",
            "Tables 1 to 3",
            saal_e_against_equal,
        ),
        Claim(
            "In short: task relationships are asymmetric (criterion: more pairs in which one task gains and the other "
            f"loses with every seed than chance gives in {LEVEL:.0%} of cases).",
            "Section 4.3, Figure 3",
            asymmetric_relationships,
        ),
        Claim(
            "In short: the weights that SAAL_w learns tell the relationships better than gradient angles do "
            "(criterion: rank correlation with the enumeration, mean over data sets).",
            "Section 4.4, Table 5",
            weights_against_angles,
        ),
    ]
    return own + [_of_paper(claim.text, claim.reference) for claim in published_claims("saal")]


def _of_paper(text: str, reference: str) -> Claim[Outcomes]:
    for beginning, (test, criterion) in TESTS.items():
        if text.startswith(beginning):
            return Claim(f"{text} {criterion}".strip(), reference, test)
    for beginning, reason in NOT_TESTABLE.items():
        if text.startswith(beginning):
            return Claim(text, reference, reason=reason)
    raise LookupError(f"no test for the claim {text!r}, and no reason why there is none")
