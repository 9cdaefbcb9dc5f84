"""The claims of the SAAL paper as tests."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from mtl_ext.data.celeba import PRESETS
from mtl_ext.studies.claims import Claim, Finding, NotTestableError
from mtl_ext.studies.published import published_claims
from mtl_ext.studies.saal.measures import ANGLE, COEFFICIENTS, LOOK_AHEAD_TRAIN, LOOK_AHEAD_VAL, SIMILARITY
from mtl_ext.studies.saal.outcomes import Outcomes, PartOutcomes
from mtl_ext.studies.saal.protocol import ASYMMETRIC, EQUAL, HALF, SAAL, TYPICAL
from mtl_ext.task_names import self_auxiliary_name, split_name

# Chance of what passes for a pattern of signs.
LEVEL = 0.05
# Rank correlations below this count as poor.
POOR = 0.5
NYUV2, CITYSCAPES, CELEBA = "table_1", "table_2", "table_3"
NYUV2_MISSING = "neither NYUv2 nor data in place of it were run"
CITYSCAPES_MISSING = "Cityscapes was not run: --preset full --data cityscapes"
CELEBA_MISSING = "neither CelebA nor data in place of it were run"

Test = Callable[[Outcomes], Finding]


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


# ---- in short ----


def saal_e_against_equal(outcomes: Outcomes) -> Finding:
    """Mean difference in Delta_MTL, data set by data set."""
    gains = {part.part.name: part.difference("SAAL_e", EQUAL) for part in outcomes.parts}
    return Finding(
        all(gain.mean >= 0 for gain in gains.values()),
        "SAAL_e minus equal: " + ", ".join(f"{name} {gain.percent()}" for name, gain in gains.items()),
    )


def asymmetric_relationships(outcomes: Outcomes) -> Finding:
    """Pairs with opposite signs that all seeds share, against what independent signs at random would give."""
    found, tail_of, total, seeds = [], [], 0, 0
    for part in outcomes.parts:
        each = list(part.pair_seeds().values())
        if not each:
            raise NotTestableError(f"{part.part.name}: no seed with which all pairs ran to the end")
        if len(each) == 1:
            raise NotTestableError(f"{part.part.name}: one seed does not tell signs from chance")
        seeds = len(each)
        for pair in each[0]:
            source, target = split_name(pair)
            back = self_auxiliary_name(target, source)
            if part.part.tasks.index(source) > part.part.tasks.index(target):
                continue
            total += 1
            for gains, loses in ((pair, back), (back, pair)):
                if all(values[gains] > 0 > values[loses] for values in each):
                    mean = [100 * statistics.fmean(values[way] for values in each) for way in (gains, loses)]
                    found.append(f"{gains} {mean[0]:+.1f}%, {loses} {mean[1]:+.1f}%")
        tail_of.append((len(each[0]) // 2, 2 * 0.25 ** len(each)))
    chance = _chance_of_at_least(len(found), tail_of)
    text = "; ".join(found) or "none"
    return Finding(
        bool(found) and chance < LEVEL,
        f"{len(found)} of {total} pairs with all of {seeds} seeds: {text}. Independent signs at random "
        f"give as many in {chance:.0%} of cases",
    )


def weights_against_angles(outcomes: Outcomes) -> Finding:
    """Rank correlations, averaged over data sets."""
    means = {}
    for name in (COEFFICIENTS, ANGLE):
        values = [part.agreement(name).mean for part in outcomes.parts]
        if not all(map(math.isfinite, values)):
            raise NotTestableError(f"{name} does not tell sources apart")
        means[name] = statistics.fmean(values)
    return Finding(
        means[COEFFICIENTS] > means[ANGLE],
        f"weights {means[COEFFICIENTS]:+.2f}, angles {means[ANGLE]:+.2f}",
    )


# ---- Figure 1 ----


def asymmetry_keeps_benefits(outcomes: Outcomes) -> Finding:
    """Both curves' Delta_MTL, the mean over 0 to 3 shared blocks."""
    part = _with_figure_1(outcomes)
    means = {}
    for kind in (TYPICAL, ASYMMETRIC):
        points = part.sharing_points(kind)
        if not set(range(HALF + 1)) <= set(points):
            raise NotTestableError(f"{part.part.name}: points of the {kind} curve are missing")
        means[kind] = statistics.fmean(part.delta(points[n]).mean for n in range(HALF + 1))
    return Finding(
        means[ASYMMETRIC] > means[TYPICAL] and means[ASYMMETRIC] > 0,
        f"mean Δ_MTL: asymmetric {100 * means[ASYMMETRIC]:+.1f}%, typical {100 * means[TYPICAL]:+.1f}%",
    )


def sharing_helps_and_harms(outcomes: Outcomes) -> Finding:
    """Slope of each task's change over the number of shared blocks."""
    part = _with_figure_1(outcomes)
    points = part.sharing_points(TYPICAL)
    if len(points) < 3:
        raise NotTestableError(f"{part.part.name}: points of the typical curve are missing")
    slopes = {}
    for role in ("segmentation", "depth", "normals"):
        task = _role(part, role)
        slopes[role] = statistics.linear_regression(
            list(points), [part.change(row, task).mean for row in points.values()]
        ).slope
    text = ", ".join(f"{role} {100 * slope:+.2f}%" for role, slope in slopes.items())
    holds = slopes["segmentation"] > 0 and slopes["depth"] > 0 and slopes["normals"] < 0
    return Finding(holds, f"change per shared block: {text}")


# ---- Tables 1 to 3 ----


def signs_of_nyuv2(outcomes: Outcomes) -> Finding:
    """Which tasks gain against single tasks with which methods."""
    part = _nyuv2(outcomes)
    part.need(EQUAL)
    gain = {
        role: [name for name in part.methods if part.change(name, _role(part, role)).mean > 0]
        for role in ("segmentation", "depth", "normals")
    }
    count = len(part.methods)
    holds = len(gain["depth"]) == count and 2 * len(gain["segmentation"]) > count and not gain["normals"]
    return Finding(holds, _gain_counts(gain, count))


def signs_of_cityscapes(outcomes: Outcomes) -> Finding:
    """The same, where disparity gains."""
    part = _cityscapes(outcomes)
    part.need(EQUAL)
    gain = {
        role: [name for name in part.methods if part.change(name, _role(part, role)).mean > 0]
        for role in ("segmentation", "parts", "disparity")
    }
    count = len(part.methods)
    return Finding(
        len(gain["disparity"]) == count and not gain["segmentation"] and not gain["parts"], _gain_counts(gain, count)
    )


def signs_of_celeba(outcomes: Outcomes) -> Finding:
    """Which attributes gain with most methods."""
    part = _celeba(outcomes)
    part.need(EQUAL)
    up, down = ("Attractive", "Big_Lips", "Black_Hair"), ("Arched_Eyebrows", "Bags_Under_Eyes", "Big_Nose")
    counts = {task: sum(part.change(name, task).mean > 0 for name in part.methods) for task in (*up, *down)}
    most = {task: 2 * count > len(part.methods) for task, count in counts.items()}
    holds = all(most[task] for task in up) and not any(most[task] for task in down)
    return Finding(holds, "methods that gain: " + ", ".join(f"{task} {count}" for task, count in counts.items()))


def places(table: str, order: Mapping[str, int], among: str) -> Test:
    """A test of whether SAAL's variants take the paper's places by Delta_MTL.

    Args:
        table: of the paper.
        order: variant -> its place.
        among: why it cannot be tested without that table's data.
    """

    def test(outcomes: Outcomes) -> Finding:
        part = outcomes.of_table(table, among)
        part.need(*order)
        if len(part.methods) < 6:
            raise NotTestableError(f"{part.part.name}: {len(part.methods)} methods are too few for places")
        ranked = sorted(part.methods, key=lambda name: -part.delta(name).mean)
        found = {name: ranked.index(name) + 1 for name in order}
        text = ", ".join(f"{name} {place}" for name, place in found.items())
        return Finding(found == dict(order), f"places among {len(ranked)}: {text}; first {ranked[0]}")

    return test


def saal_w_on_nyuv2(outcomes: Outcomes) -> Finding:
    """SAAL_w's depth against the best of the others, its normals against equal weighting's."""
    part = _nyuv2(outcomes)
    part.need("SAAL_w", EQUAL)
    depth, normals = _role(part, "depth"), _role(part, "normals")
    best = max(_existing(part), key=lambda name: part.change(name, depth).mean)
    ours, theirs = part.change("SAAL_w", depth), part.change(best, depth)
    of_normals = [part.change(name, normals) for name in ("SAAL_w", EQUAL)]
    return Finding(
        ours.mean > theirs.mean and of_normals[0].mean < of_normals[1].mean,
        f"depth: SAAL_w {ours.percent()}, {best} {theirs.percent()}; normals: SAAL_w {of_normals[0].percent()}, equal "
        f"{of_normals[1].percent()}",
    )


def equal_best_for_normals(outcomes: Outcomes) -> Finding:
    """Who has the best normals."""
    part = _nyuv2(outcomes)
    part.need(EQUAL)
    normals = _role(part, "normals")
    best = max(part.methods, key=lambda name: part.change(name, normals).mean)
    changes = ", ".join(f"{name} {part.change(name, normals).percent()}" for name in dict.fromkeys((EQUAL, best)))
    return Finding(best == EQUAL, changes)


def saal_e_on_cityscapes(outcomes: Outcomes) -> Finding:
    """Who has the best segmentation, and who the best parts."""
    part = _cityscapes(outcomes)
    part.need("SAAL_e", "Uncertainty")
    best = {
        role: max(names, key=lambda name: part.change(name, _role(part, role)).mean)
        for role, names in (("segmentation", part.half_shared), ("parts", part.methods))
    }
    return Finding(
        best == {"segmentation": "SAAL_e", "parts": "Uncertainty"},
        ", ".join(f"{role}: {name}" for role, name in best.items()),
    )


# ---- Table 4 ----


def slowest(outcomes: Outcomes) -> Finding:
    """The two slowest methods, data set by data set."""
    timed = _timed(outcomes)
    found = {name: sorted(times, key=lambda method: -times[method])[:2] for name, times in timed.items()}
    numbers = ", ".join(
        f"{name}: " + ", ".join(f"{method} {timed[name][method]:.2f}" for method in methods)
        for name, methods in found.items()
    )
    return Finding(all(methods == ["SAAL_w", "SAAL_ew"] for methods in found.values()), numbers)


def slower_with_more_tasks(outcomes: Outcomes) -> Finding:
    """SAAL's relative times with the fewest and with the most tasks."""
    _timed(outcomes)
    counts = {part.part.name: len(part.part.runtime_tasks) for part in outcomes.parts}
    few, many = min(counts.values()), max(counts.values())
    if few == many:
        raise NotTestableError("all data sets have the same number of tasks: runs on two are compared")
    times = {
        number: next(part.step_times for part in outcomes.parts if counts[part.part.name] == number)
        for number in (few, many)
    }
    numbers = ", ".join(f"{name} {times[few][name]:.2f} and {times[many][name]:.2f}" for name in SAAL)
    return Finding(all(times[many][n] > times[few][n] for n in SAAL), f"with {few} and {many} tasks: {numbers}")


# ---- Figure 3 ----


def segmentation_helps_depth(outcomes: Outcomes) -> Finding:
    """Segmentation to depth, and back."""
    changes, holds = [], True
    for part in outcomes.parts:
        roles = part.part.recipe.groups
        depth = roles.get("depth") or roles.get("disparity")
        if not depth or "segmentation" not in roles:
            continue
        seg, values = _role(part, "segmentation"), part.enumeration().values
        there, back = values[self_auxiliary_name(seg, depth[0])], values[self_auxiliary_name(depth[0], seg)]
        holds = holds and there > 0 >= back
        changes.append(f"{part.part.name}: {seg}->{depth[0]} {100 * there:+.1f}%, back {100 * back:+.1f}%")
    if not changes:
        raise NotTestableError("no data set with segmentation and depth or disparity was run")
    return Finding(holds, "; ".join(changes))


def attractive_and_nose(outcomes: Outcomes) -> Finding:
    """Towards Attractive and Big_Nose, and between the two."""
    values = _celeba(outcomes).enumeration().values
    towards = {
        task: [change > 0 for pair, change in values.items() if split_name(pair)[1] == task]
        for task in ("Attractive", "Big_Nose")
    }
    there = values[self_auxiliary_name("Big_Nose", "Attractive")]
    back = values[self_auxiliary_name("Attractive", "Big_Nose")]
    up, down = sum(towards["Attractive"]), len(towards["Big_Nose"]) - sum(towards["Big_Nose"])
    half = len(towards["Attractive"]) / 2
    return Finding(
        up > half and down > half and there > 0 >= back,
        f"{up} of {2 * half:.0f} help Attractive, {down} harm Big_Nose; Big_Nose->Attractive {100 * there:+.1f}%, back "
        f"{100 * back:+.1f}%",
    )


def targets_matter_more(outcomes: Outcomes) -> Finding:
    """Variance of the enumeration between targets and between sources, relative to that of the whole matrix."""
    numbers, holds = [], True
    for part in outcomes.parts:
        values = part.enumeration().values
        between = {}
        for side, name in ((1, "targets"), (0, "sources")):
            means = [
                statistics.fmean(change for pair, change in values.items() if split_name(pair)[side] == task)
                for task in part.part.tasks
            ]
            between[name] = statistics.pstdev(means)
        holds = holds and between["targets"] > between["sources"]
        deviations = ", ".join(f"between {name} {100 * value:.1f}%" for name, value in between.items())
        numbers.append(f"{part.part.name}: {deviations}")
    return Finding(holds, "; ".join(numbers))


# ---- Table 5 ----


def cheap_measures_are_poor(outcomes: Outcomes) -> Finding:
    """Rank correlations of look-ahead losses and angles."""
    found = _agreements(outcomes.parts, (LOOK_AHEAD_TRAIN, LOOK_AHEAD_VAL, ANGLE))
    return Finding(all(not value >= POOR for values in found.values() for value in values.values()), _listed(found))


def perfect_with_three_tasks(outcomes: Outcomes) -> Finding:
    """Rank correlations of SAAL_w's weights and of feature similarity, by the number of tasks."""
    three = [part for part in outcomes.parts if part.part.table in (NYUV2, CITYSCAPES)]
    more = [part for part in outcomes.parts if part.part.table == CELEBA]
    if not three:
        raise NotTestableError("neither NYUv2 or Cityscapes nor data in place of them were run")
    found = _agreements(three + more, (COEFFICIENTS, SIMILARITY))
    perfect = [value > 0.995 for part in three for value in found[part.part.name].values()]
    poorer = [value < 0.995 for part in more for value in found[part.part.name].values()]
    return Finding(all(perfect + poorer), _listed(found))


# ---- helpers ----


def _chance_of_at_least(count: int, groups: Sequence[tuple[int, float]]) -> float:
    """Chance that independent events happen at least so often; groups of a number of events of a chance each."""
    chances = [1.0]
    for number, single in groups:
        for _ in range(number):
            chances = [
                (chances[k] if k < len(chances) else 0.0) * (1 - single) + (chances[k - 1] * single if k else 0.0)
                for k in range(len(chances) + 1)
            ]
    return min(1.0, sum(chances[count:]))


def _with_figure_1(outcomes: Outcomes) -> PartOutcomes:
    for part in outcomes.parts:
        if part.part.recipe.options.get("sharing"):
            return part
    raise NotTestableError("numbers of shared blocks were not compared here")


def _nyuv2(outcomes: Outcomes) -> PartOutcomes:
    return outcomes.of_table(NYUV2, NYUV2_MISSING)


def _cityscapes(outcomes: Outcomes) -> PartOutcomes:
    return outcomes.of_table(CITYSCAPES, CITYSCAPES_MISSING)


def _celeba(outcomes: Outcomes) -> PartOutcomes:
    """CelebA itself: what drawn faces say about their attributes says nothing about photographs."""
    part = outcomes.of_table(CELEBA, "CelebA was not run: --preset full --data celeba")
    if part.part.recipe.train.get("data") != "celeba":
        raise NotTestableError("about CelebA's photographs: --preset full --data celeba")
    if not set(PRESETS["saal"]) <= set(part.part.tasks):
        raise NotTestableError("about nine attributes, not all of which were run")
    return part


def _role(part: PartOutcomes, role: str) -> str:
    """The task that has a role in the paper's claims."""
    tasks = part.part.recipe.groups.get(role, [])
    if not tasks:
        raise NotTestableError(f"{part.part.name} has no task in the role of {role}")
    return tasks[0]


def _existing(part: PartOutcomes) -> list[str]:
    """The half-shared methods that are not SAAL's."""
    return [name for name in part.half_shared if name not in SAAL]


def _timed(outcomes: Outcomes) -> dict[str, Mapping[str, float]]:
    timed = {part.part.name: part.step_times for part in outcomes.parts if set(SAAL) <= set(part.step_times)}
    if not timed or len(timed) < len(outcomes.parts):
        raise NotTestableError("steps were not timed")
    return timed


def _gain_counts(gain: Mapping[str, Sequence[str]], count: int) -> str:
    return f"of {count} methods gain: " + ", ".join(f"{role} {len(names)}" for role, names in gain.items())


def _agreements(parts: Sequence[PartOutcomes], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Data set -> measure -> mean rank correlation with the enumeration."""
    return {part.part.name: {name: part.agreement(name).mean for name in names} for part in parts}


def _listed(found: Mapping[str, Mapping[str, float]]) -> str:
    return "; ".join(
        f"{part}: " + ", ".join(f"{name} {value:+.2f}" for name, value in values.items())
        for part, values in found.items()
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
