"""What the claims on Figure 1 and Tables 1 to 4 of the SAAL paper rest on."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from mtl_ext.studies.claims import Finding, NotTestableError
from mtl_ext.studies.saal.outcomes import Outcomes, PartOutcomes
from mtl_ext.studies.saal.protocol import ASYMMETRIC, EQUAL, HALF, SAAL, TYPICAL
from mtl_ext.studies.saal.stand_ins import celeba, cityscapes, nyuv2

Test = Callable[[Outcomes], Finding]


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
        task = part.role(role)
        slopes[role] = statistics.linear_regression(
            list(points), [part.change(row, task).mean for row in points.values()]
        ).slope
    text = ", ".join(f"{role} {100 * slope:+.2f}%" for role, slope in slopes.items())
    holds = slopes["segmentation"] > 0 and slopes["depth"] > 0 and slopes["normals"] < 0
    return Finding(holds, f"change per shared block: {text}")


# ---- Tables 1 to 3 ----


def saal_e_against_equal(outcomes: Outcomes) -> Finding:
    """Mean difference in Delta_MTL, data set by data set."""
    gains = {part.part.name: part.difference("SAAL_e", EQUAL) for part in outcomes.parts}
    return Finding(
        all(gain.mean >= 0 for gain in gains.values()),
        "SAAL_e minus equal: " + ", ".join(f"{name} {gain.percent()}" for name, gain in gains.items()),
    )


def signs_of_nyuv2(outcomes: Outcomes) -> Finding:
    """Which tasks gain against single tasks with which methods."""
    part = nyuv2(outcomes)
    part.need(EQUAL)
    gain = {
        role: [name for name in part.methods if part.change(name, part.role(role)).mean > 0]
        for role in ("segmentation", "depth", "normals")
    }
    count = len(part.methods)
    holds = len(gain["depth"]) == count and 2 * len(gain["segmentation"]) > count and not gain["normals"]
    return Finding(holds, _gain_counts(gain, count))


def signs_of_cityscapes(outcomes: Outcomes) -> Finding:
    """The same, where disparity gains."""
    part = cityscapes(outcomes)
    part.need(EQUAL)
    gain = {
        role: [name for name in part.methods if part.change(name, part.role(role)).mean > 0]
        for role in ("segmentation", "parts", "disparity")
    }
    count = len(part.methods)
    return Finding(
        len(gain["disparity"]) == count and not gain["segmentation"] and not gain["parts"], _gain_counts(gain, count)
    )


def signs_of_celeba(outcomes: Outcomes) -> Finding:
    """Which attributes gain with most methods."""
    part = celeba(outcomes)
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
    part = nyuv2(outcomes)
    part.need("SAAL_w", EQUAL)
    depth, normals = part.role("depth"), part.role("normals")
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
    part = nyuv2(outcomes)
    part.need(EQUAL)
    normals = part.role("normals")
    best = max(part.methods, key=lambda name: part.change(name, normals).mean)
    changes = ", ".join(f"{name} {part.change(name, normals).percent()}" for name in dict.fromkeys((EQUAL, best)))
    return Finding(best == EQUAL, changes)


def saal_e_on_cityscapes(outcomes: Outcomes) -> Finding:
    """Who has the best segmentation, and who the best parts."""
    part = cityscapes(outcomes)
    part.need("SAAL_e", "Uncertainty")
    best = {
        role: max(names, key=lambda name: part.change(name, part.role(role)).mean)
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


# ---- helpers ----


def _with_figure_1(outcomes: Outcomes) -> PartOutcomes:
    for part in outcomes.parts:
        if part.part.recipe.options.get("sharing"):
            return part
    raise NotTestableError("numbers of shared blocks were not compared here")


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
