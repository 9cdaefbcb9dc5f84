"""The report of the DGR study."""

import statistics
from collections.abc import Mapping, Sequence

from mtl_ext.report import Block, Bullets, Facts, Figure, Prose, Report, Section, svg
from mtl_ext.representation import CLASSIFIERS, accuracy_figure, tsne_figure
from mtl_ext.studies.beside import beside_table, contradictions_blocks
from mtl_ext.studies.claims import Judged, Verdict, claims_table, judge
from mtl_ext.studies.dgr import figures, tables
from mtl_ext.studies.dgr.claims import claims
from mtl_ext.studies.dgr.outcomes import Outcomes, PartOutcomes
from mtl_ext.studies.dgr.protocol import VANILLA, added
from mtl_ext.studies.published import published_table
from mtl_ext.studies.recipe import Recipe
from mtl_ext.studies.study import Material

CLASS_NAMES = {
    "age": ("0-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60+"),
    "gender": ("male", "female"),
}
NUMBERS = {
    "table_1": "Table 1",
    "table_2_split": "Table 2, left",
    "table_2_mtan": "Table 2, right",
    "table_3_split": "Table 3, left",
    "table_3_mtan": "Table 3, right",
    "table_4b_nyuv2": "Table 4(b)",
    "table_4b_cityscapes": "Table 4(b)",
    "table_4c": "Table 4(c)",
}


def build_report(recipe: Recipe, outcomes: Outcomes, material: Material) -> Report:
    """The report on what is there.

    Args:
        recipe: how the study is run.
        outcomes: what the runs gave.
        material: what they are part of.
    """
    single = outcomes.single_seeds()
    judged = [judge(claim, outcomes, single) for claim in claims()]
    parts = [part for part in outcomes.parts.values() if part.pairs]
    sections = [
        Section("Claims of the paper", [claims_table(judged, _claims_caption(single))]),
        *_strengths(outcomes, material),
        *_methods(parts),
        *_comparators(parts),
        *_dummies(outcomes),
        *_representations(outcomes),
        *_runtime(outcomes),
        Section("The paper's own numbers", contradictions_blocks("dgr")),
        _setup(recipe, outcomes, material),
    ]
    footer = ", ".join(f"{name} {version}" for name, version in material.versions.items())
    title = f"Dummy gradient norm regularisation (DGR), {recipe.name}"
    return Report(title, _lead(recipe, parts, judged, material), sections, footer)


def _lead(
    recipe: Recipe, parts: Sequence[PartOutcomes], judged: Sequence[Judged[Outcomes]], material: Material
) -> list[str]:
    verdicts = [entry.verdict for entry in judged]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict.value}" for verdict in Verdict)
    lead = [
        "Shin, Do and Son add to every task's loss the norm of its gradient with respect to dummy heads, random and "
        "fixed, so that the shared encoder gives features that any head does well with. They report that this improves "
        "nearly every multi-task method. This is their protocol: each method with and without DGR.",
    ]
    gains = [gain for part in parts for gain in part.gains().values()]
    if gains:
        better = sum(gain.mean > 0 for gain in gains)
        settled = {sign: sum(gain.agree and sign * gain.mean > 0 for gain in gains) for sign in (1, -1)}
        middle = 100 * statistics.median(gain.mean for gain in gains)
        lead.append(
            f"Of {len(judged)} claims: {counts}. In {better} of {len(gains)} pairs the row with DGR has the higher "
            f"Δ_MTL; the median gain is {middle:+.2f} points. With every seed it is better in {settled[1]} pairs and "
            f"worse in {settled[-1]}."
        )
    if material.decisions:
        clear = sum(tables.is_clear(decision) for decision in material.decisions.values())
        lead.append(
            f"Held-out data, which choose how strong DGR is, ask for it clearly, with every seed, in {clear} of "
            f"{len(material.decisions)} choices. Where they do not, DGR may do nothing, or harm by a strength that "
            "chance chose."
        )
    lead += recipe.notes[:1]
    if material.done < material.planned:
        lead.append(f"Unfinished: {material.done} of {material.planned} runs are done, and the numbers are of those.")
    return lead


def _claims_caption(single: Sequence[Outcomes]) -> str:
    return (
        f"The verdict is that of the means over {len(single)} seed{'s' if len(single) > 1 else ''}; beside it, how "
        "many seeds show the claim alone. A claim that one seed in three contradicts is not settled here, whatever its "
        "verdict."
    )


def _strengths(outcomes: Outcomes, material: Material) -> list[Section]:
    if not material.decisions:
        return []
    return [Section("How strong DGR is", [tables.decisions_table(outcomes, material.decisions)])]


def _methods(parts: Sequence[PartOutcomes]) -> list[Section]:
    if not parts:
        return []
    caption = (
        "Δ_MTL of every method alone (hollow) and with DGR (filled; blue where better, red where worse): means over "
        "seeds; small: single seeds. 0 is each task trained alone."
    )
    blocks: list[Block] = [Figure(svg(figures.gains_figure(parts)), caption, 760)]
    for part in parts:
        blocks.append(tables.methods_table(part, NUMBERS.get(part.part.published or "", "As Table 1")))
        if part.part.same_data and part.part.published is not None:
            blocks.append(beside_table(published_table("dgr", part.part.published), tables.beside_numbers(part)))
    return [Section("Methods with and without DGR", blocks)]


def _comparators(parts: Sequence[PartOutcomes]) -> list[Section]:
    found: list[Section] = []
    for part in parts:
        if part.part.added:
            caption = f"Figure 2. {part.part.title}. Bars: mean over seeds; dots: single seeds."
            figure = Figure(svg(figures.comparators_figure(part)), caption, largest=900)
            found.append(Section("Against SAM and PTA", [figure, tables.comparators_table(part)]))
    return found


def _dummies(outcomes: Outcomes) -> list[Section]:
    blocks: list[Block] = []
    varied = [part for part in outcomes.parts.values() if part.part.dummies]
    several = [part for part in varied if len(part.part.tasks) > 1 and _is_complete(part)]
    if several:
        caption = "What DGR adds to Vanilla by number of tasks and of dummies d. Lines: means; small: single seeds."
        blocks += [
            Figure(svg(figures.dummies_figure(several)), caption),
            tables.dummies_table(several, published_table("dgr", "table_4a")),
        ]
    blocks += [tables.single_task_table(part) for part in varied if len(part.part.tasks) == 1 and part.runs]
    return [Section("How many dummies, how many tasks", blocks)] if blocks else []


def _is_complete(part: PartOutcomes) -> bool:
    """Whether every row of Table 4(a) has a seed, the same for all."""
    return part.has(*(row for row in part.part.experiment(1.0).rows if not row.startswith("Single")))


def _representations(outcomes: Outcomes) -> list[Section]:
    found: list[Section] = []
    for part in [part for part in outcomes.parts.values() if part.representations]:
        rows = [row for method in part.pairs for row in (method, added(method)) if part.representations.get(row)]
        accuracies = {
            row: {
                task: {
                    name: [found.accuracies[task][name] for found in part.representations[row].values()]
                    for name in CLASSIFIERS
                }
                for task in part.part.tasks
            }
            for row in rows
        }
        caption = (
            f"Figure 3(a). {part.part.title}: the encoder frozen, and a simple classifier in the place of each head; "
            "features standardised on the training split, scikit-learn's default options."
        )
        blocks: list[Block] = []
        if accuracies:
            blocks += [Figure(svg(accuracy_figure(accuracies)), caption, 900), tables.accuracies_table(part)]
        blocks += _planes(part)
        found.append(Section("Quality of the shared representation", blocks))
    return found


def _planes(part: PartOutcomes) -> list[Block]:
    shown = [row for row in (VANILLA, added(VANILLA)) if part.representations.get(row, {}).get(0)]
    drawn = {row: part.representations[row][0] for row in shown if part.representations[row][0].points}
    if len(drawn) < 2:
        return []
    embeddings = {row: {task: found.embedding(task) for task in part.part.tasks} for row, found in drawn.items()}
    caption = (
        "Figure 3(b). The features of test samples in the plane by t-SNE (first seed), coloured by the classes of each "
        "task. Distances between clusters mean nothing."
    )
    figure = tsne_figure(embeddings, ordered=("age",), class_names=CLASS_NAMES)
    return [Figure(svg(figure), caption, 600, largest=760)]


def _runtime(outcomes: Outcomes) -> list[Section]:
    timed = [part for part in outcomes.parts.values() if part.step_times]
    return [Section("Runtime", [tables.runtime_table(part) for part in timed])] if timed else []


def _setup(recipe: Recipe, outcomes: Outcomes, material: Material) -> Section:
    facts = {"Runs": f"{material.done} of {material.planned}, {len(outcomes.failures)} of them ended early"}
    for part in outcomes.parts.values():
        train = part.part.recipe.train
        facts[part.part.title] = (
            f"seeds {part.part.recipe.seeds}, tasks {', '.join(part.part.tasks)}, {_setting(train)}"
        )
    blocks: list[Block] = [Bullets(recipe.notes[1:]), Facts(facts)]
    if outcomes.failures:
        ended = [f"{outcomes.parts[n].part.title}, {r}, seed {s}: {e}" for (n, r, s), e in outcomes.failures.items()]
        blocks += [Prose("Runs that ended early, and are left out of all tables:"), Bullets(ended)]
    return Section("What was run, and what it can show", blocks)


def _setting(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_setting(item)}" for name, item in value.items())
    return str(value)
