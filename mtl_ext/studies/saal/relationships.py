"""What the claims on task relationships, Figure 3 and Table 5 of the SAAL paper, rest on."""

import math
import statistics
from collections.abc import Mapping, Sequence

from mtl_ext.studies.claims import Finding, NotTestableError
from mtl_ext.studies.saal.measures import ANGLE, COEFFICIENTS, LOOK_AHEAD_TRAIN, LOOK_AHEAD_VAL, SIMILARITY
from mtl_ext.studies.saal.outcomes import Outcomes, PartOutcomes
from mtl_ext.studies.saal.stand_ins import CELEBA, CITYSCAPES, NYUV2, celeba
from mtl_ext.task_names import self_auxiliary_name, split_name

# Chance of what passes for a pattern of signs.
LEVEL = 0.05
# Rank correlations below this count as poor.
POOR = 0.5


# ---- Figure 3 ----


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
    chance = chance_of_at_least(len(found), tail_of)
    text = "; ".join(found) or "none"
    return Finding(
        bool(found) and chance < LEVEL,
        f"{len(found)} of {total} pairs with all of {seeds} seeds: {text}. Independent signs at random "
        f"give as many in {chance:.0%} of cases",
    )


def segmentation_helps_depth(outcomes: Outcomes) -> Finding:
    """Segmentation to depth, and back."""
    changes, holds = [], True
    for part in outcomes.parts:
        roles = part.part.recipe.groups
        depth = roles.get("depth") or roles.get("disparity")
        if not depth or "segmentation" not in roles:
            continue
        seg, values = part.role("segmentation"), part.enumeration().values
        there, back = values[self_auxiliary_name(seg, depth[0])], values[self_auxiliary_name(depth[0], seg)]
        holds = holds and there > 0 >= back
        changes.append(f"{part.part.name}: {seg}->{depth[0]} {100 * there:+.1f}%, back {100 * back:+.1f}%")
    if not changes:
        raise NotTestableError("no data set with segmentation and depth or disparity was run")
    return Finding(holds, "; ".join(changes))


def attractive_and_nose(outcomes: Outcomes) -> Finding:
    """Towards Attractive and Big_Nose, and between the two."""
    values = celeba(outcomes).enumeration().values
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


def chance_of_at_least(count: int, groups: Sequence[tuple[int, float]]) -> float:
    """Chance that independent events happen at least so often; groups of a number of events of a chance each."""
    chances = [1.0]
    for number, single in groups:
        for _ in range(number):
            chances = [
                (chances[k] if k < len(chances) else 0.0) * (1 - single) + (chances[k - 1] * single if k else 0.0)
                for k in range(len(chances) + 1)
            ]
    return min(1.0, sum(chances[count:]))


def _agreements(parts: Sequence[PartOutcomes], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Data set -> measure -> mean rank correlation with the enumeration."""
    return {part.part.name: {name: part.agreement(name).mean for name in names} for part in parts}


def _listed(found: Mapping[str, Mapping[str, float]]) -> str:
    return "; ".join(
        f"{part}: " + ", ".join(f"{name} {value:+.2f}" for name, value in values.items())
        for part, values in found.items()
    )


# Beginning of the paper's claim -> its test, and the criterion where the paper leaves it open.
