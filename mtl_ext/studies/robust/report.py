"""The report of the robust study."""

import statistics
from collections.abc import Mapping, Sequence

from mtl_ext.report import Block, Bullets, Facts, Figure, Prose, Report, Section, svg
from mtl_ext.studies.beside import contradictions_table
from mtl_ext.studies.claims import Judged, Verdict, claims_table, judge
from mtl_ext.studies.recipe import Recipe
from mtl_ext.studies.robust import figures, paper, tables
from mtl_ext.studies.robust.claims import claims
from mtl_ext.studies.robust.outcomes import INDICATORS, Outcomes, chance_level, level_correlations
from mtl_ext.studies.robust.protocol import BASELINE
from mtl_ext.studies.study import Results

LEAST_SAMPLES = 50
LEVELS = {
    "own": "Table 3a. Indicators at each method's own level (FD, which is defined on features, always there).",
    "parameter": "Table 3b. Indicators at the shared parameters, for all methods (FD over parameters, not features).",
    "feature": "Table 3c. Indicators at the shared features, for all methods.",
}


def build_report(recipe: Recipe, outcomes: Outcomes, results: Results, versions: Mapping[str, str]) -> Report:
    """The report on what is there.

    Args:
        recipe: how the study is run.
        outcomes: what the runs gave.
        results: what they are part of.
        versions: of what the numbers depend on.
    """
    single, planned, times = outcomes.single_seeds(), results.planned, results.step_times
    judged = [judge(claim, outcomes, single) for claim in claims()]
    sections = [
        Section("Claims of the paper", [claims_table(judged, _claims_caption(outcomes))]),
        _benchmark(outcomes),
        _levels(outcomes),
        _rankings(outcomes),
        _curves(outcomes),
        _correlations(outcomes),
        _lengths(recipe, outcomes),
        *([Section("Runtime", [tables.runtime_report_table(times)])] if times else []),
        _paper(),
        _setup(recipe, outcomes, planned),
    ]
    footer = ", ".join(f"{name} {version}" for name, version in versions.items())
    title = f"Robust analysis of multi-task learning, {recipe.name}"
    return Report(title, _lead(recipe, outcomes, judged, planned), sections, footer)


def _lead(recipe: Recipe, outcomes: Outcomes, judged: list[Judged[Outcomes]], planned: int) -> list[str]:
    verdicts = [entry.verdict for entry in judged]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict.value}" for verdict in Verdict)
    best = max(outcomes.present, key=lambda name: outcomes.mean_change(name).mean)
    worst = min(outcomes.present, key=lambda name: outcomes.mean_change(name).mean)
    lead = [
        "Mao et al. ask which multi-task optimisation methods help, whether feature-level gradients may replace "
        "parameter-level ones, and whether the similarity of the tasks' gradients in training tells which method will "
        f"do well. This is their protocol with {len(outcomes.present)} variants of {_methods(outcomes)} methods.",
        f"Of {len(judged)} claims: {counts}. Best against the baseline, equal weighting: {best}, "
        f"{outcomes.mean_change(best).percent()}; worst: {worst}, {outcomes.mean_change(worst).percent()}.",
    ]
    lead += recipe.notes[:1]
    settled = {sign: [n for n in outcomes.present if _settled(outcomes, n, sign)] for sign in (1, -1)}
    if len(outcomes.seeds()) > 1:
        better, worse = (", ".join(names) or "none" for names in settled.values())
        lead.append(f"Better than the baseline with every seed: {better}. Worse with every seed: {worse}.")
    if len(outcomes.records) < planned:
        lead.append(f"Unfinished: {len(outcomes.records)} of {planned} runs are done, and the numbers are of those.")
    return lead


def _settled(outcomes: Outcomes, name: str, sign: int) -> bool:
    change = outcomes.mean_change(name)
    return change.agree and sign * change.mean > 0


def _methods(outcomes: Outcomes) -> int:
    return len({name.removeprefix("(rep) ") for name in outcomes.present})


def _claims_caption(outcomes: Outcomes) -> str:
    seeds = len(outcomes.seeds())
    return (
        f"The verdict is that of the means over {seeds} seed{'s' if seeds > 1 else ''}; beside it, how many seeds show "
        "the claim alone. A claim that one seed in three contradicts is not settled here, whatever its verdict."
    )


def _benchmark(outcomes: Outcomes) -> Section:
    winners, theirs = ", ".join(outcomes.winners()) or "none", ", ".join(paper.winners(paper.paper()))
    blocks: list[Block] = [
        Figure(
            svg(figures.overview_figure(outcomes)),
            "Mean change of all tasks against the baseline with the same seed. Large: mean over seeds, filled at "
            "parameter level, hollow at feature level; small: single seeds.",
        ),
        tables.benchmark_table(outcomes),
        Prose(f"Better than the baseline in every metric: {winners}. In the paper: {theirs}."),
        tables.places_table(outcomes),
    ]
    return Section("Which methods help", blocks)


def _lengths(recipe: Recipe, outcomes: Outcomes) -> Section:
    table = tables.length_table(outcomes, bool(recipe.train.get("normalise")))
    return Section("How long the steps are", [table])


def _levels(outcomes: Outcomes) -> Section:
    return Section("Feature-level gradients in place of parameter-level ones", [tables.level_table(outcomes)])


def _rankings(outcomes: Outcomes) -> Section:
    title = "Do gradient similarity and disentanglement tell which method does well?"
    count = len(outcomes.present)
    if count < 3:
        return Section(title, [Prose(f"{count} variants finished; a ranking needs three.")])
    text = (
        "Ranking similarity is the share of pairs of methods that two rankings order alike, folded to 0.5 .. 1. "
        f"Folding lifts chance above 0.5: of two unrelated rankings of {count} methods, one in twenty is above "
        f"{chance_level(count):.3f} (of the paper's 21: {chance_level(paper.RANKED):.3f}, which its Table 3 passes in "
        f"{_above_chance()} of 18 values)."
    )
    caption = (
        "Places by the indicator at the end of training (each method's own level) against places by what the method "
        "achieved. An indicator that tells has its points on a diagonal, either way. Filled: parameter level; hollow: "
        "feature level."
    )
    shown = [tables.similarity_table(outcomes, level, heading) for level, heading in LEVELS.items()]
    return Section(title, [Prose(text), *shown, Figure(svg(figures.ranks_figure(outcomes)), caption, 900)])


def _above_chance() -> int:
    values = paper.paper()["table_3"]["rows"].values()
    return sum(value > chance_level(paper.RANKED) for row in values for value in row)


def _curves(outcomes: Outcomes) -> Section:
    captions = {
        "gds": "Gradient direction similarity: mean cosine over pairs of tasks. Higher: the tasks agree more.",
        "gms": "Gradient magnitude similarity. Higher: the tasks' gradients are more equally long.",
        "fd": "Feature disentanglement: mean entropy of the tasks' shares in the features' gradients, in nats. "
        "Lower = more disentangled.",
    }
    text = (
        "Each line is a variant's value minus the baseline's at the same step, mean over seeds, smoothed over a tenth "
        "of the run; GDS and GMS at the level that the method works on. If an indicator told which method does well, "
        "the colours would lie in order."
    )
    drawn = [Figure(svg(figures.curves_figure(outcomes, name)), captions[name], 900) for name in INDICATORS]
    return Section("Curves over training", [Prose(text), *drawn])


def _correlations(outcomes: Outcomes) -> Section:
    correlations = {name: level_correlations(outcomes.runs[name]) for name in (BASELINE, *outcomes.present)}
    text = (
        "An experiment that the paper leaves open: if feature-level gradients stood in for parameter-level ones, "
        "cosines and norms at both levels would move together over training. The correlation is over a run's samples. "
        f"Median over all runs: cosines {_middle(correlations, 'cosine')}, norms {_middle(correlations, 'norm')}."
    )
    caption = "Point: median over pairs (or tasks) and seeds; line: the middle half."
    figure = Figure(svg(figures.correlation_figure(correlations)), caption, 800)
    return Section("Do both levels say the same?", [Prose(text), figure])


def _middle(correlations: Mapping[str, Mapping[str, Sequence[float]]], kind: str) -> str:
    values = [value for kinds in correlations.values() for value in kinds[kind]]
    return f"{statistics.median(values):+z.2f}" if values else "unknown"


def _paper() -> Section:
    content = paper.paper()
    absolute, relative = paper.absolute_arrows(content), paper.relative_arrows(content)
    text = (
        "Table 1's caption sets its arrows at a difference of 0.01 from the baseline. "
        f"{len(absolute)} of its 126 arrows contradict that, rounding allowed for; {len(relative)} contradict a "
        "relative change of 1%. So this report uses the relative change, which fits errors in metres and degrees too. "
        f"Table 2 follows from Table 1 ({len(paper.relative_changes(content))} entries do not), Table 3's values are "
        f"shares of the pairs of 21 methods ({len(paper.ranking_values(content))} are not), and the lists of winners "
        "and of top-three places follow from Table 1. The caption of Figure 6 calls a feature entangled where it is "
        "disentangled, and those of Figures 7 and 8, the curves of FD, say GMS."
    )
    caption = "Arrows of the paper's Table 1 that its caption does not allow."
    return Section("The paper's own numbers", [Prose(text), contradictions_table(absolute, caption)])


def _setup(recipe: Recipe, outcomes: Outcomes, planned: int) -> Section:
    run = outcomes.runs[BASELINE][outcomes.seeds()[0]]
    samples = len(run.similarity)
    facts = {
        "Runs": f"{len(outcomes.records)} of {planned}, {len(outcomes.failures)} of them ended early",
        "Seeds": f"{recipe.seeds}",
        "Monitor samples per run": f"{samples}",
        **{name.replace("_", " ").capitalize(): _setting(value) for name, value in recipe.train.items()},
        "Method options": _setting(recipe.method_options) or "defaults",
        "Segmentation tasks": ", ".join(recipe.groups.get("segmentation", [])) or "none",
    }
    notes = list(recipe.notes[1:])
    if samples < LEAST_SAMPLES:
        notes.append(
            f"A run has {samples} monitor samples, fewer than the {LEAST_SAMPLES} that stand for a curve's end: "
            "indicators are means over the whole run."
        )
    blocks: list[Block] = [Bullets(notes), Facts(facts)]
    if outcomes.failures:
        ended = [f"{name}, seed {seed}: {reason}" for (name, seed), reason in outcomes.failures.items()]
        blocks += [Prose("Runs that ended early, and are left out of all tables:"), Bullets(ended)]
    return Section("What was run, and what it can show", blocks)


def _setting(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_setting(item)}" for name, item in value.items())
    return str(value)
