"""What the paper claims, each as a test that the study can fail.

Where the paper leaves a criterion open ("far apart", "comparable"), the numbers below are ours; the claims name them.
"""

from collections.abc import Callable, Sequence

from mtl_ext.studies.claims import Claim, Finding, NotTestableError
from mtl_ext.studies.robust.outcomes import Outcomes, chance_level
from mtl_ext.studies.robust.protocol import BASELINE, TWO_LEVELS, rep

WINNERS = ("GradVac", "GradDrop", "IMTL", "DWA", "(rep) MGDA", "(rep) CAGrad", "(rep) CosReg")
OFTEN_BEST = ("GradVac", "IMTL", "(rep) MGDA")
# Share of the distance between the extreme variants: curves closer than SIMILAR are alike, beyond FAR they are apart.
SIMILAR, FAR = 0.15, 0.40
# Relative changes: within COMPARABLE no difference (the paper's largest is 5.1%), below POOR extremely poor.
COMPARABLE, POOR = 0.05, -0.10


def claims() -> list[Claim[Outcomes]]:
    """All claims, in the paper's order."""
    return [*_benchmark(), *_levels(), *_interference(), *_disentanglement(), *_not_testable()]


def _benchmark() -> list[Claim[Outcomes]]:
    return [
        Claim(f"{', '.join(WINNERS)} gain on every metric.", "Section 3, Table 1", _all_win),
        Claim(
            f"{', '.join(OFTEN_BEST)} are among the three best on at least half of the metrics.", "Section 3", _often
        ),
        Claim("(rep) MGDA (MGDA-UB) is the best of all methods (here: by the mean change).", "Section 3", _best),
        Claim(
            f"GradNorm does extremely poorly (here: a mean change below {POOR:.0%} at both levels).",
            "Section 3",
            lambda o: _poor(o, "GradNorm", "(rep) GradNorm"),
        ),
        Claim(
            f"Nash-MTL does extremely poorly (here: a mean change below {POOR:.0%} at both levels, with an exact "
            "solver of its equation).",
            "Section 3",
            lambda o: _poor(o, "Nash-MTL", "(rep) Nash-MTL"),
        ),
        Claim(
            f"(rep) GradDrop does extremely poorly (here: a mean change below {POOR:.0%}).",
            "Section 3",
            lambda o: _poor(o, "(rep) GradDrop"),
        ),
    ]


def _levels() -> list[Claim[Outcomes]]:
    return [
        Claim(
            "Of eight methods only MGDA and Aligned-MTL gain on every metric from feature-level gradients.",
            "Section 4, Table 2",
            _only_two_gain,
        ),
        Claim(
            f"PCGrad, CAGrad and CosReg do about as well at both levels (here: a mean change within {COMPARABLE:.0%}).",
            "Section 4, Table 2",
            lambda o: _level_changes(o, ("PCGrad", "CAGrad", "CosReg"), lambda change: abs(change) <= COMPARABLE),
        ),
        Claim(
            "GradVac, RGW and IMTL do worse with feature-level gradients (here: a mean change below -1% for each).",
            "Section 4, Table 2",
            lambda o: _level_changes(o, ("GradVac", "RGW", "IMTL"), lambda change: change < -0.01),
        ),
    ]


def _interference() -> list[Claim[Outcomes]]:
    far, similar = f"apart by more than {FAR:.0%} of the variants' range", f"within {SIMILAR:.0%} of the range"
    return [
        Claim(
            "Uncertainty, poor, and GradVac, strong, both end with GDS above the baseline's.",
            "Section 5.1, Figure 2",
            _high_gds,
        ),
        Claim(
            f"PCGrad and Aligned-MTL lie far apart in GDS ({far}) although neither is clearly better.",
            "Section 5.1, Figure 2",
            lambda o: _both(_distance(o, "gds", "PCGrad", "Aligned-MTL", far=True), _tied(o, "PCGrad", "Aligned-MTL")),
        ),
        Claim(
            f"(rep) PCGrad and (rep) GradVac have similar GDS ({similar}), yet (rep) PCGrad is better on every metric.",
            "Section 5.1, Figure 3",
            lambda o: _both(
                _distance(o, "gds", "(rep) PCGrad", "(rep) GradVac", far=False),
                _better(o, "(rep) PCGrad", "(rep) GradVac"),
            ),
        ),
        Claim(
            f"(rep) MGDA and (rep) CosReg, both better than the baseline, lie far apart in GDS ({far}).",
            "Section 5.1, Figure 3",
            lambda o: _both(
                _distance(o, "gds", "(rep) MGDA", "(rep) CosReg", far=True), _gain(o, "(rep) MGDA", "(rep) CosReg")
            ),
        ),
        Claim(
            f"MGDA and FAMO have similar GMS ({similar}; the paper's text says GDS), yet FAMO is better.",
            "Section 5.2, Figure 4",
            lambda o: _both(_distance(o, "gms", "MGDA", "FAMO", far=False), _ahead(o, "FAMO", "MGDA")),
        ),
        Claim(
            f"(rep) MGDA and (rep) Aligned-MTL have similar GMS ({similar}), yet (rep) MGDA is better.",
            "Section 5.2, Figure 5",
            lambda o: _both(
                _distance(o, "gms", "(rep) MGDA", "(rep) Aligned-MTL", far=False),
                _ahead(o, "(rep) MGDA", "(rep) Aligned-MTL"),
            ),
        ),
        Claim(
            "(rep) MGDA and (rep) IMTL end on different sides of the baseline in GMS, and neither does worse than it.",
            "Section 5.2, Figure 5",
            _different_sides,
        ),
    ]


def _disentanglement() -> list[Claim[Outcomes]]:
    exceptions = ("RGW", "PCGrad", "MGDA", "Aligned-MTL")
    return [
        Claim(
            "At parameter level, most methods end more disentangled (lower FD) than the baseline.",
            "Section 6.2, Figure 7",
            _mostly_disentangled,
        ),
        Claim(
            f"At parameter level, those that do not are {', '.join(exceptions)}.",
            "Section 6.2, Figure 7",
            lambda o: _disentangled(o, "parameter", exceptions),
        ),
        Claim(
            "At feature level, all methods but RGW end more disentangled than the baseline.",
            "Section 6.2, Figure 8",
            lambda o: _disentangled(o, "feature", ("(rep) RGW",)),
        ),
        Claim(
            "Feature-level gradients disentangle further: most methods have a lower FD there than at parameter level.",
            "Section 6.2, Figures 7 and 8",
            _disentangled_further,
        ),
        Claim(
            "FD ranks the methods on segmentation better than GDS and GMS, on every metric.",
            "Section 6.3, Table 3",
            _fd_ranks,
        ),
        Claim(
            "The rankings by GDS and GMS do not match those by the test metrics (here: at most a quarter of the "
            "values are above what 95% of unrelated rankings stay below).",
            "Section 6.3, Table 3",
            _gds_gms_fail,
        ),
    ]


def _not_testable() -> list[Claim[Outcomes]]:
    return [
        Claim(
            "FD is still reasonable on bounding boxes.",
            "Section 6.3, Table 3",
            reason="There are no boxes: dense heads.",
        ),
        Claim(
            "The findings hold for amodal instance segmentation of RGB-D images in robotic grasping.",
            "Sections 1 and 7",
            reason="Another data set, and RGB input only: depth and normals are targets here.",
        ),
    ]


def _all_win(o: Outcomes) -> Finding:
    o.seeds(*WINNERS)
    counts = {name: sum(o.change(name, column).mean > 0 for column in o.columns) for name in WINNERS}
    listed = ", ".join(f"{name} {count}/{len(o.columns)}" for name, count in counts.items())
    return Finding(all(count == len(o.columns) for count in counts.values()), f"metrics gained: {listed}")


def _often(o: Outcomes) -> Finding:
    o.seeds(*OFTEN_BEST)
    counts = {name: o.top_three()[name] for name in OFTEN_BEST}
    listed = ", ".join(f"{name} {count}/{len(o.columns)}" for name, count in counts.items())
    return Finding(all(2 * count >= len(o.columns) for count in counts.values()), f"top-three places: {listed}")


def _best(o: Outcomes) -> Finding:
    o.seeds("(rep) MGDA")
    means = {name: o.mean_change(name) for name in o.present}
    order = sorted(means, key=lambda name: -means[name].mean)
    place, first = order.index("(rep) MGDA") + 1, order[0]
    numbers = f"(rep) MGDA {means['(rep) MGDA'].percent()}, place {place} of {len(order)}"
    return Finding(place == 1, numbers if place == 1 else f"{numbers}; best: {first} {means[first].percent()}")


def _poor(o: Outcomes, *names: str) -> Finding:
    o.seeds(*names)
    means = {name: o.mean_change(name) for name in names}
    listed = ", ".join(f"{name} {mean.percent()}" for name, mean in means.items())
    return Finding(all(mean.mean < POOR for mean in means.values()), f"mean change: {listed}")


def _only_two_gain(o: Outcomes) -> Finding:
    o.seeds(*TWO_LEVELS, *map(rep, TWO_LEVELS))
    gaining = [n for n in TWO_LEVELS if all(o.change(rep(n), column, n).mean > 0 for column in o.columns)]
    means = ", ".join(f"{name} {o.mean_change(rep(name), name).percent()}" for name in ("MGDA", "Aligned-MTL"))
    listed = ", ".join(gaining) or "none"
    return Finding(set(gaining) == {"MGDA", "Aligned-MTL"}, f"gain on every metric: {listed}; mean change: {means}")


def _level_changes(o: Outcomes, names: Sequence[str], expected: Callable[[float], bool]) -> Finding:
    o.seeds(*names, *map(rep, names))
    means = {name: o.mean_change(rep(name), name) for name in names}
    listed = ", ".join(f"{name} {mean.percent()}" for name, mean in means.items())
    return Finding(all(expected(mean.mean) for mean in means.values()), f"feature against parameter level: {listed}")


def _high_gds(o: Outcomes) -> Finding:
    names = ("Uncertainty", "GradVac")
    o.seeds(*names)
    base = o.indicator(BASELINE, "parameter", "gds")
    values = {name: o.indicator(name, "parameter", "gds") for name in names}
    changes = {name: o.mean_change(name) for name in names}
    listed = ", ".join(f"{n} GDS {values[n].text()}, mean change {changes[n].percent()}" for n in names)
    holds = all(value.mean > base.mean for value in values.values())
    holds = holds and changes["Uncertainty"].mean < 0 < changes["GradVac"].mean
    return Finding(holds, f"{listed}; baseline GDS {base.text()}")


def _distance(o: Outcomes, measure: str, first: str, second: str, *, far: bool) -> Finding:
    """Whether two variants of one level end far apart, or close, relative to that level's extremes."""
    o.seeds(first, second)
    level = o.variants[first].level
    family = [name for name in o.present if o.variants[name].level == level]
    ends = [o.indicator(name, level, measure).mean for name in family]
    a, b = (o.indicator(name, level, measure) for name in (first, second))
    reach = max(ends) - min(ends)
    share = abs(a.mean - b.mean) / reach if reach else 0.0
    numbers = f"{measure.upper()} {a.text()} and {b.text()}, {share:.0%} of the range"
    return Finding(share > FAR if far else share < SIMILAR, numbers)


def _tied(o: Outcomes, first: str, second: str) -> Finding:
    """Neither is better on more than three quarters of the metrics."""
    wins = sum(o.change(first, column, second).mean > 0 for column in o.columns)
    balanced = 0.25 <= wins / len(o.columns) <= 0.75
    return Finding(balanced, f"{first} is better on {wins} of {len(o.columns)} metrics")


def _better(o: Outcomes, first: str, second: str) -> Finding:
    wins = sum(o.change(first, column, second).mean > 0 for column in o.columns)
    return Finding(wins == len(o.columns), f"{first} is better on {wins} of {len(o.columns)} metrics")


def _ahead(o: Outcomes, first: str, second: str) -> Finding:
    change = o.mean_change(first, second)
    return Finding(change.mean > 0.01, f"{first} against {second}: {change.percent()}")


def _gain(o: Outcomes, *names: str) -> Finding:
    means = {name: o.mean_change(name) for name in names}
    listed = ", ".join(f"{name} {mean.percent()}" for name, mean in means.items())
    return Finding(all(mean.mean > 0 for mean in means.values()), f"mean change: {listed}")


def _different_sides(o: Outcomes) -> Finding:
    names = ("(rep) MGDA", "(rep) IMTL")
    o.seeds(*names)
    base = o.indicator(BASELINE, "feature", "gms")
    offsets = [o.indicator(name, "feature", "gms").mean - base.mean for name in names]
    means = [o.mean_change(name) for name in names]
    holds = offsets[0] * offsets[1] < 0 and all(mean.mean > -0.01 for mean in means)
    parts = zip(names, offsets, means, strict=True)
    return Finding(holds, ", ".join(f"{n} GMS {x:+.3f}, mean change {mean.percent()}" for n, x, mean in parts))


def _entangled(o: Outcomes, level: str) -> tuple[list[str], list[str]]:
    """The variants of a level that the paper reports, and those of them that end with an FD above the baseline's."""
    family = [n for n in o.present if o.variants[n].level == level and o.variants[n].reported]
    base = o.indicator(BASELINE, "own", "fd").mean
    return family, [name for name in family if o.indicator(name, "own", "fd").mean >= base]


def _mostly_disentangled(o: Outcomes) -> Finding:
    family, above = _entangled(o, "parameter")
    if not family:
        raise NotTestableError("no parameter-level variant of the paper's finished")
    below = len(family) - len(above)
    return Finding(2 * below > len(family), f"{below} of {len(family)} below the baseline")


def _disentangled(o: Outcomes, level: str, exceptions: Sequence[str]) -> Finding:
    """Whether at a level exactly the exceptions end with an FD above the baseline's."""
    o.seeds(*exceptions)
    family, above = _entangled(o, level)
    numbers = f"{len(family) - len(above)} of {len(family)} below; above: {', '.join(above) or 'none'}"
    return Finding(set(above) == set(exceptions), numbers)


def _disentangled_further(o: Outcomes) -> Finding:
    o.seeds(*TWO_LEVELS, *map(rep, TWO_LEVELS))
    fd = {name: o.indicator(name, "own", "fd").mean for name in (*TWO_LEVELS, *map(rep, TWO_LEVELS))}
    lower = [name for name in TWO_LEVELS if fd[rep(name)] < fd[name]]
    numbers = f"lower at feature level: {len(lower)} of {len(TWO_LEVELS)} ({', '.join(lower) or 'none'})"
    return Finding(2 * len(lower) > len(TWO_LEVELS), numbers)


def _fd_ranks(o: Outcomes) -> Finding:
    rows = []
    for column in o.segmentation:
        gds, gms, fd = (o.similarity(column, "own", measure) for measure in ("gds", "gms", "fd"))
        rows.append((column, gds, gms, fd))
    wins = sum(fd > max(gds, gms) for _, gds, gms, fd in rows)
    listed = "; ".join(f"{column.task} {gds:.2f} / {gms:.2f} / {fd:.2f}" for column, gds, gms, fd in rows)
    return Finding(wins == len(rows), f"FD ahead on {wins} of {len(rows)}; GDS / GMS / FD: {listed}")


def _gds_gms_fail(o: Outcomes) -> Finding:
    values = {
        (column.name, measure): o.similarity(column, "own", measure)
        for column in o.columns
        for measure in ("gds", "gms")
    }
    limit = chance_level(len(o.present))
    above = sum(value > limit for value in values.values())
    return Finding(
        4 * above <= len(values),
        f"{above} of {len(values)} values above {limit:.3f}; largest {max(values.values()):.3f}",
    )


def _both(first: Finding, second: Finding) -> Finding:
    return Finding(first.holds and second.holds, f"{first.numbers}; {second.numbers}")
