"""What the paper claims, each as a test that the study can fail.

Texts are the paper's own, in its order; where they leave a criterion open, the one behind "Here:" is ours.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from mtl_ext.studies.claims import Claim, Finding, NotTestableError
from mtl_ext.studies.dgr.outcomes import Outcomes, PartOutcomes
from mtl_ext.studies.dgr.protocol import ADDED, COMPARED, VANILLA, added, single
from mtl_ext.studies.dgr.representation import Representation
from mtl_ext.studies.published import published_claims
from mtl_ext.studies.spread import Spread

WITH_DGR = added(VANILLA)
NYUV2, CITYSCAPES = ("table_2_split", "table_2_mtan"), ("table_3_split", "table_3_mtan")
SWIN = {"table_4b_nyuv2": "table_2_split", "table_4b_cityscapes": "table_3_split"}
# Delta_MTL that counts as similar.
SIMILAR = 0.005

Test = Callable[[Outcomes], Finding]


def claims() -> list[Claim[Outcomes]]:
    """Those that hold the paper together, then all others in the paper's order."""
    return [*_central(), *_of_the_text()]


def _central() -> list[Claim[Outcomes]]:
    return [
        Claim(
            "DGR boosts the baseline performances in most combinations. Here: + DGR has the higher Δ_MTL in more than "
            "half of all pairs of rows.",
            "Section 1, Tables 1 to 3",
            _most_rows,
        ),
        Claim(
            "DGR improves the universality of the shared encoder (Definition 2). Here: an untrained head's loss is "
            "closer to that of the optimal one than with Vanilla, for most tasks with classes.",
            "Sections 1 and 3.2",
            _universal,
        ),
        Claim(
            "Three dummies are best. Here: of the numbers tried, d = 3 has the best mean Δ_MTL over all numbers of "
            "tasks, in every experiment that varies them.",
            "Section 3.3, Table 4(a)",
            _three_dummies,
        ),
        Claim(
            "DGR takes little time. Here: a step of Vanilla + DGR takes less than one of Vanilla + SAM.",
            "Abstract, Appendix",
            _cheap,
        ),
    ]


def _of_the_text() -> list[Claim[Outcomes]]:
    found = []
    for said, (criterion, test) in zip(published_claims("dgr"), _tests(), strict=True):
        against = f" (The paper's own numbers: {said.against}.)" if said.against else ""
        found.append(Claim(f"“{said.text}” Here: {criterion}{against}", said.reference, test))
    return found


def _tests() -> tuple[tuple[str, Test], ...]:
    """The criterion and the test of each of published/dgr.yaml's claims, in their order."""
    return (
        ("the mean of every method, with and without DGR, on every task.", _all_above_single),
        ("age and ethnicity, for every method.", _two_of_three),
        ("for all methods but at most one.", _almost_all("table_1")),
        ("each has a positive mean gain over the compared methods, and DGR's is the largest.", _figure_2),
        (
            "the mean over classifiers of Vanilla + DGR is above that of every method without DGR, on every task.",
            _best_representation,
        ),
        ("the gain over Vanilla, mean over classifiers, is the largest on the task with most classes.", _age_most),
        (
            "a smaller distance between best and worst classifier than with Vanilla, in the mean over tasks.",
            _less_sensitive,
        ),
        ("a larger mean silhouette of ethnicity's classes.", _clustered),
        (
            "a larger mean silhouette of age's classes, and a larger correlation of the distance of ages in the "
            "features with their difference.",
            _age_in_order,
        ),
        (f"Δ_MTL of Vanilla + DGR at most {100 * SIMILAR:.1f} points below each of theirs.", _as_good),
        ("every method gains, and IMTL + DGR is best, in every architecture.", _all_gain("IMTL", NYUV2)),
        (
            "all methods but at most DWA gain, and CAGrad + DGR is best, in every architecture.",
            _all_gain("CAGrad", CITYSCAPES, spared="DWA"),
        ),
        ("the gain with three dummies grows from one to two to three tasks, in every experiment.", _more_tasks),
        ("accuracy with three dummies above that without.", _single_task),
        (
            "Swin above the ResNet on every metric, alone and with Vanilla, and a gain from DGR.",
            _swin,
        ),
        ("Δ_MTL of Vanilla and MTAN below 0, and both gain.", _pascal),
    )


def _points(value: Spread) -> str:
    """A difference of Delta_MTL in points."""
    return f"{value.text(2, 100, sign=True)} {value.detail(2, 100)}".strip()


def _listed(values: Mapping[str, Spread]) -> str:
    return ", ".join(f"{name} {_points(value)}" for name, value in values.items())


def _one(o: Outcomes, table: str) -> PartOutcomes:
    return o.published(table)[0]


def _pooled(parts: Sequence[PartOutcomes]) -> dict[str, Spread]:
    return {f"{part.part.title}, {method}": gain for part in parts for method, gain in part.gains().items()}


def _most_rows(o: Outcomes) -> Finding:
    gains = _pooled(list(o.parts.values()))
    if not gains:
        raise NotTestableError("No method ran with and without DGR.")
    better = sum(gain.mean > 0 for gain in gains.values())
    settled = sum(gain.mean > 0 and gain.agree for gain in gains.values())
    against = sum(gain.mean < 0 and gain.agree for gain in gains.values())
    middle = statistics.median(gain.mean for gain in gains.values())
    numbers = f"{better} of {len(gains)} pairs (half by chance), median gain {100 * middle:+.2f} points"
    numbers += f"; with every seed better {settled}, worse {against}"
    return Finding(2 * better > len(gains), numbers)


def _measured(o: Outcomes) -> PartOutcomes:
    """The experiment whose representations were measured; the paper's first."""
    parts = [part for part in o.parts.values() if part.representations]
    if not parts:
        raise NotTestableError("No representation was measured.")
    return parts[0]


def _per_task(
    part: PartOutcomes, what: Callable[[Representation, str], float], tasks: Sequence[str]
) -> dict[str, tuple[Spread, Spread]]:
    """Task -> a number about the representation with and without DGR."""
    return {
        task: (part.of_representation(WITH_DGR, what, task), part.of_representation(VANILLA, what, task))
        for task in tasks
    }


def _pairs(found: Mapping[str, tuple[Spread, Spread]], digits: int) -> str:
    return ", ".join(f"{task} {new.text(digits)} against {old.text(digits)}" for task, (new, old) in found.items())


def _universal(o: Outcomes) -> Finding:
    part = _measured(o)
    found = _per_task(part, lambda r, task: r.excess[task], part.part.tasks)
    norms = _per_task(part, lambda r, task: r.norm[task], part.part.tasks)
    closer = sum(new.mean < old.mean for new, old in found.values())
    numbers = f"closer for {closer} of {len(found)} tasks; excess loss {_pairs(found, 3)}; gradient norm "
    return Finding(2 * closer > len(found), numbers + _pairs(norms, 3))


def _three_dummies(o: Outcomes) -> Finding:
    best, listed = [], []
    for part in o.with_dummies():
        sizes = range(1, len(part.part.tasks) + 1)
        means = {
            count: statistics.fmean(part.subset_delta(size, count).mean for size in sizes)
            for count in (0, *part.part.dummies)
        }
        best.append(max(means, key=lambda count: means[count]))
        numbers = ", ".join(f"d = {count} {100 * mean:+.2f}" for count, mean in means.items())
        listed.append(f"{part.part.title}: {numbers}")
    return Finding(all(count == 3 for count in best), "; ".join(listed))


def _cheap(o: Outcomes) -> Finding:
    sam = added(VANILLA, "SAM")
    for part in o.parts.values():
        if sam in part.step_times and WITH_DGR in part.step_times:
            dgr, other = part.step_times[WITH_DGR], part.step_times[sam]
            return Finding(dgr < other, f"DGR {dgr:.2f}, SAM {other:.2f} of Vanilla's step ({part.part.title})")
    raise NotTestableError("No step of both was timed.")


def _all_above_single(o: Outcomes) -> Finding:
    part = _one(o, "table_1")
    rows = [row for method in part.part.methods for row in (method, added(method)) if part.has(row)]
    if not rows:
        raise NotTestableError("No method has finished.")
    below = [
        f"{row}: {column.task}"
        for row in rows
        for column in part.columns
        if not part.single_change(row, column).mean > 0
    ]
    total = len(rows) * len(part.columns)
    return Finding(not below, f"{total - len(below)} of {total} values above; not: {', '.join(below[:6]) or 'none'}")


def _two_of_three(o: Outcomes) -> Finding:
    part = _one(o, "table_1")
    hard = [column for column in part.columns if column.task in ("age", "ethnicity")]
    if not hard or not part.pairs:
        raise NotTestableError("The tasks age and ethnicity are not among the experiments.")
    better = {
        column.task: sum(part.change(added(method), method, column).mean > 0 for method in part.pairs)
        for column in part.columns
    }
    total = len(part.pairs)
    listed = ", ".join(f"{task} {count} of {total}" for task, count in better.items())
    return Finding(all(better[column.task] == total for column in hard), f"methods that gain: {listed}")


def _almost_all(table: str) -> Test:
    def test(o: Outcomes) -> Finding:
        part = _one(o, table)
        gains = part.gains()
        if len(gains) < 2:
            raise NotTestableError("Fewer than two methods ran with and without DGR.")
        better = sum(gain.mean > 0 for gain in gains.values())
        return Finding(better >= len(gains) - 1, f"{better} of {len(gains)} gain: {_listed(gains)}")

    return test


def _figure_2(o: Outcomes) -> Finding:
    parts = [part for part in o.parts.values() if part.part.added]
    if not parts:
        raise NotTestableError("SAM and PTA did not run.")
    part = parts[0]
    methods = [method for method in COMPARED if method in part.part.methods]
    part.seeds(*methods, *(added(method, what) for method in methods for what in ADDED))
    gains = {what: [part.gain(added(method, what), method) for method in methods] for what in ADDED}
    means = {what: statistics.fmean(gain.mean for gain in values) for what, values in gains.items()}
    wins = sum(all(gains["DGR"][i].mean > gains[what][i].mean for what in ("SAM", "PTA")) for i in range(len(methods)))
    listed = ", ".join(f"{what} {100 * mean:+.2f}" for what, mean in means.items())
    holds = all(mean > 0 for mean in means.values()) and means["DGR"] == max(means.values())
    return Finding(holds, f"mean gain in points: {listed}; DGR is best for {wins} of {len(methods)} methods")


def _best_representation(o: Outcomes) -> Finding:
    part = _measured(o)
    ahead, listed = [], []
    for task in part.part.tasks:
        rows = (WITH_DGR, *part.pairs)
        means = {row: part.of_representation(row, Representation.mean_accuracy, task).mean for row in rows}
        ours = means.pop(WITH_DGR)
        best = max(means, key=lambda row: means[row])
        ahead.append(ours > means[best])
        listed.append(f"{task} {ours:.1f}%, Vanilla {means[VANILLA]:.1f}%, best without DGR: {best} {means[best]:.1f}%")
    return Finding(all(ahead), "; ".join(listed))


def _age_most(o: Outcomes) -> Finding:
    part = _measured(o)
    if "age" not in part.part.tasks:
        raise NotTestableError("The task age is not among the measured ones.")
    found = _per_task(part, Representation.mean_accuracy, part.part.tasks)
    gains = {task: new.mean - old.mean for task, (new, old) in found.items()}
    listed = ", ".join(f"{task} {gain:+.1f}" for task, gain in gains.items())
    return Finding(gains["age"] == max(gains.values()) and gains["age"] > 0, f"gain in points: {listed}")


def _less_sensitive(o: Outcomes) -> Finding:
    part = _measured(o)
    found = _per_task(part, Representation.classifier_spread, part.part.tasks)
    new, old = (statistics.fmean(pair[side].mean for pair in found.values()) for side in (0, 1))
    return Finding(new < old, f"mean distance {new:.1f} against {old:.1f} points; {_pairs(found, 1)}")


def _clustered(o: Outcomes) -> Finding:
    return _silhouettes(o, "ethnicity")


def _silhouettes(o: Outcomes, task: str) -> Finding:
    part = _measured(o)
    if task not in part.part.tasks:
        raise NotTestableError(f"The task {task} is not among the measured ones.")
    found = _per_task(part, lambda r, task: r.silhouette[task], [task])
    new, old = found[task]
    return Finding(new.mean > old.mean, f"silhouette of {_pairs(found, 3)}")


def _age_in_order(o: Outcomes) -> Finding:
    clustered = _silhouettes(o, "age")
    found = _per_task(_measured(o), lambda r, task: r.order[task], ["age"])
    new, old = found["age"]
    return Finding(clustered.holds and new.mean > old.mean, f"{clustered.numbers}; correlation {_pairs(found, 2)}")


def _as_good(o: Outcomes) -> Finding:
    holds, listed = [], []
    for part in o.published(*NYUV2):
        others = [method for method in ("DWA", "Uncertainty", "PCGrad") if part.has(WITH_DGR, method)]
        differences = {method: part.gain(WITH_DGR, method) for method in others}
        holds += [difference.mean >= -SIMILAR for difference in differences.values()]
        if differences:
            listed.append(f"{part.part.title}: DGR against {_listed(differences)}")
    if not holds:
        raise NotTestableError("DWA, Uncertainty and PCGrad did not run.")
    return Finding(all(holds), "; ".join(listed))


def _all_gain(best: str, tables: Sequence[str], spared: str = "") -> Test:
    def test(o: Outcomes) -> Finding:
        holds, listed = [], []
        for part in o.published(*tables):
            gains = part.gains()
            if best not in gains or len(gains) < 2:
                raise NotTestableError(f"{part.part.title}: {best} did not run with and without DGR.")
            deltas = {row: part.delta(row).mean for method in gains for row in (method, added(method))}
            first = max(deltas, key=lambda row: deltas[row])
            gaining = [method for method, gain in gains.items() if gain.mean > 0]
            holds.append(first == added(best) and set(gains) - set(gaining) <= {spared})
            listed.append(f"{part.part.title}: {len(gaining)} of {len(gains)} gain, best {first}")
        return Finding(all(holds), "; ".join(listed))

    return test


def _more_tasks(o: Outcomes) -> Finding:
    holds, listed = [], []
    for part in o.with_dummies():
        gains = [part.subset_gain(size, 3) for size in range(1, len(part.part.tasks) + 1)]
        holds.append(all(b.mean > a.mean for a, b in pairwise(gains)))
        listed.append(f"{part.part.title}: {', '.join(_points(gain) for gain in gains)}")
    return Finding(all(holds), f"gain in points with 1, 2, 3 tasks: {'; '.join(listed)}")


def _single_task(o: Outcomes) -> Finding:
    part = _one(o, "table_4a_imagenet")
    (task,) = part.part.tasks
    (column,) = part.columns
    values = {
        count: part.value(f"d = {count} ({task})" if count else single(task), column)
        for count in (0, *part.part.dummies)
    }
    if any(not value.values for value in values.values()):
        raise NotTestableError(f"{part.part.title}: runs are missing.")
    listed = ", ".join(f"d = {n}: {f'{value.text(2)} {value.detail(2)}'.strip()}" for n, value in values.items())
    return Finding(values[3].mean > values[0].mean, f"{column.metric} with {listed}")


def _swin(o: Outcomes) -> Finding:
    holds, listed = [], []
    for part in o.published(*SWIN):
        (resnet,) = o.published(SWIN[str(part.part.published)])[:1]
        counts = 0
        for row in (None, VANILLA):
            for column in part.columns:
                name = single(column.task) if row is None else row
                new, old = part.value(name, column), resnet.value(name, column)
                counts += new.mean > old.mean if column.higher_is_better else new.mean < old.mean
        total = 2 * len(part.columns)
        gain = part.gain(WITH_DGR, VANILLA)
        holds.append(counts == total and gain.mean > 0)
        listed.append(f"{part.part.title}: Swin better on {counts} of {total}, gain {_points(gain)}")
    return Finding(all(holds), "; ".join(listed))


def _pascal(o: Outcomes) -> Finding:
    holds, listed = [], []
    for part in o.published("table_4c"):
        delta, gain = part.delta(VANILLA), part.gain(WITH_DGR, VANILLA)
        holds.append(delta.mean < 0 < gain.mean)
        listed.append(f"{part.part.title}: Δ_MTL {delta.percent()}, gain {_points(gain)}")
    return Finding(all(holds), "; ".join(listed))
