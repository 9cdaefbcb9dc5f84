"""The report of the IAL study."""

import statistics
from collections.abc import Mapping, Sequence

from mtl_ext.report import Block, Bullets, Facts, Figure, Prose, Report, Section, svg
from mtl_ext.studies.beside import beside_table, contradictions_blocks
from mtl_ext.studies.choice import Decision
from mtl_ext.studies.claims import Judged, Verdict, claims_table, judge
from mtl_ext.studies.ial import figures, tables
from mtl_ext.studies.ial.claims import claims
from mtl_ext.studies.ial.outcomes import Evidence, Outcomes
from mtl_ext.studies.ial.panels import SHOWN, Panels, read_panels
from mtl_ext.studies.ial.protocol import (
    AUXILIARY,
    DECODER_FIXED,
    DECODER_GRID,
    DECODERS,
    ENCODER,
    GRADIENT_GRID,
    GRID_SEARCH,
    IMPARTIAL,
    NORMAL,
    OURS,
    SINGLE,
    UNIFORM,
    Protocol,
    fixed_head,
    row_name,
    with_tokens,
)
from mtl_ext.studies.ial.training import Presence, presences
from mtl_ext.studies.published import DELTA, published_table
from mtl_ext.studies.runs import WARNINGS
from mtl_ext.studies.spread import Spread
from mtl_ext.studies.study import Material

METHODS = (*NORMAL, *AUXILIARY)
# Of Table VII.
DOMAINS = 20
OTHER_DATA = (
    "The paper's numbers are of other data, so only relative changes stand beside them: the order of rows and the "
    "signs may be compared."
)
# Table of the paper -> its name of a row -> ours, where that is another.
OTHER_NAMES: dict[str, dict[str, str]] = {
    "table_7": {"Uncert.": "UW"},
    "table_8": {"Single Task": SINGLE},
    "table_9": {
        "Auto-λ (partial)": "Auto-λ",
        UNIFORM: "w. Uniform",
        "Fixed": DECODER_FIXED,
        "Grid Search": DECODER_GRID,
        "IAL (w. Uncertainty)": OURS,
    },
    "table_10": {"Single": SINGLE, "Uncer.": "UW", "Uncer. (Fix)": fixed_head("UW")},
    "table_11": {"Single": SINGLE, "Fixed": "Grad.(Fix)", "IAL (Uncer.)": OURS},
}


def build_report(protocol: Protocol, evidence: Evidence, material: Material) -> Report:
    """The report on what is there.

    Args:
        protocol: what is run.
        evidence: what the runs gave.
        material: what it is part of.
    """
    recipe = protocol.recipe
    by_seed = evidence.by_seed()
    judged = [judge(claim, evidence, by_seed) for claim in claims(recipe.options.get("about", ()))]
    panels = read_panels(material.out)
    sections = [Section("Claims of the paper", [claims_table(judged, _claims_caption(evidence))])]
    if evidence.plain is not None and evidence.plain.has(UNIFORM, SINGLE):
        sections += _plain(protocol, evidence.plain, panels, (evidence.ablated, evidence.broken))
    if evidence.noisy is not None and evidence.noisy.has(UNIFORM, SINGLE):
        sections.append(_noisy(protocol, evidence.noisy, evidence.plain, panels))
    if evidence.plain is not None and "ablations" in evidence.plain.records and evidence.plain.has(UNIFORM, SINGLE):
        sections += [_ablations(protocol, evidence), _broken(protocol, evidence)]
    sections += _training(evidence)
    if evidence.domains is not None and evidence.domains.has(UNIFORM, SINGLE):
        sections.append(_domains(protocol, evidence.domains))
    if evidence.times and evidence.plain is not None:
        sections.append(_runtime(protocol, evidence, evidence.plain))
    sections += [
        Section("The paper's own numbers", contradictions_blocks("ial")),
        _setup(protocol, evidence, material),
    ]
    footer = ", ".join(f"{name} {version}" for name, version in material.versions.items())
    return Report(
        f"Impartial auxiliary learning, {recipe.name}", _lead(protocol, evidence, judged, material), sections, footer
    )


def _lead(protocol: Protocol, evidence: Evidence, judged: list[Judged[Evidence]], material: Material) -> list[str]:
    verdicts = [entry.verdict for entry in judged]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict.value}" for verdict in Verdict)
    lead = [
        "Li et al. train a network for one primary task at a time, with others as auxiliary tasks. Methods for that "
        "keep the auxiliary tasks down; the paper says that this leaves them badly trained, trains every decoder "
        "impartially instead (by uncertainty), and lets the encoder follow the primary task: impartial auxiliary "
        "learning (IAL). Here every task is primary in turn, without and with noisy auxiliary tasks, against the "
        "paper's other methods.",
        f"Of {len(judged)} claims: {counts}.",
    ]
    for text, outcomes in (
        ("Without noisy tasks", evidence.plain),
        ("With noisy tasks", evidence.noisy),
        ("Domains", evidence.domains),
    ):
        if outcomes is not None and outcomes.has(OURS, SINGLE):
            lead[1] += f" {text}, {_place(outcomes)}"
    lead += protocol.recipe.notes[:1]
    if material.done < material.planned:
        lead.append(f"Unfinished: {material.done} of {material.planned} runs are done, and the numbers are of those.")
    return lead


def _place(outcomes: Outcomes) -> str:
    deltas = outcomes.deltas(METHODS)
    order = sorted(deltas, key=lambda name: -deltas[name].mean)
    first = order[0]
    text = f"IAL is number {order.index(OURS) + 1} of {len(order)} against single tasks ({deltas[OURS].percent()}"
    return f"{text})." if first == OURS else f"{text}; best: {first}, {deltas[first].percent()})."


def _claims_caption(evidence: Evidence) -> str:
    count = len(evidence.all_seeds)
    return (
        f"The verdict is that of the means over {count} seed{'s' if count > 1 else ''}; beside it, how many seeds show "
        "the claim alone. A claim that one seed in three contradicts is not settled here, whatever its verdict."
    )


def _plain(protocol: Protocol, outcomes: Outcomes, panels: Panels, tasks: tuple[str, str]) -> list[Section]:
    caption = (
        f"Tables I and III. Setting Normal: one run for all tasks; Auxiliary ({', '.join(AUXILIARY)}): each task's "
        "value is that of the run in which it is primary. Mean over seeds ± deviation on the test split. Blue and red: "
        "better and worse than the single task with the same seed by more than 1%; pale: the seeds do not agree on "
        "that."
    )
    blocks: list[Block] = [
        Figure(
            svg(figures.overview_figure(outcomes.deltas(METHODS))),
            f"{DELTA} against single tasks; small: single seeds.",
        ),
        tables.benchmark_table(outcomes, METHODS, caption),
        *_beside(protocol, "plain", outcomes),
    ]
    found = [Section("Every task primary in turn", blocks)]
    if any(outcomes.has(name, UNIFORM) for name in AUXILIARY):
        text = (
            "The paper's motive: tasks that are kept down as auxiliary ones are badly trained, and of little help. So: "
            "how well are the auxiliary tasks trained, and does the primary task have anything of it?"
        )
        found.append(Section("How well auxiliary tasks are trained", [Prose(text), tables.auxiliaries_table(outcomes)]))
    pictures = _panels(panels, "plain", outcomes)
    if ("worst", tasks[0], OURS) in panels:
        caption = (
            f"Fig. 12. The test images with the largest loss of {tasks[0]} where it is primary, and what the same "
            f"network says of {tasks[1]} (seed 0)."
        )
        pictures.append(Figure(svg(figures.worst_figure(panels, tasks)), caption, 750))
    return [*found, Section("Predictions", pictures)] if pictures else found


def _panels(panels: Panels, experiment: str, outcomes: Outcomes) -> list[Block]:
    what = "with noisy tasks" if experiment == "noisy" else "without noisy tasks"
    blocks: list[Block] = []
    for task in outcomes.primary:
        if (experiment, task, "truth") in panels:
            columns = sum((experiment, task, name) in panels for name in SHOWN) + 2
            caption = f"{task} as the primary task, {what}, on fixed test images (seed 0)."
            blocks.append(Figure(svg(figures.panel_figure(panels, experiment, task)), caption, 150 * columns))
    return blocks


def _noisy(protocol: Protocol, outcomes: Outcomes, plain: Outcomes | None, panels: Panels) -> Section:
    names = [*METHODS, *map(with_tokens, METHODS)]
    caption = (
        "Tables IV to VI. The same with noisy auxiliary tasks: segments above a score of 0.5 and soft classes of "
        "frozen networks; “+ tokens”: with token labels as well. The paper's text says that its Table IV is without "
        "token labels, while its best numbers are those that it explains by them."
    )
    blocks: list[Block] = []
    if plain is not None:
        pairs = {name: name for name in METHODS} | {with_tokens(name): name for name in METHODS}
        values: dict[str, dict[str, Spread]] = {}
        for name in METHODS:
            if plain.has(name, SINGLE) and outcomes.has(name, SINGLE):
                values[name] = {"without noisy tasks": plain.delta(name), "with noisy tasks": outcomes.delta(name)}
                if outcomes.has(with_tokens(name), SINGLE):
                    values[name]["with token labels, too"] = outcomes.delta(with_tokens(name))
        if values:
            blocks.append(Figure(svg(figures.noise_figure(values)), f"{DELTA} without and with noisy tasks."))
            blocks.append(tables.noise_table(outcomes, plain, pairs))
    blocks += [tables.benchmark_table(outcomes, names, caption), *_beside(protocol, "noisy", outcomes)]
    return Section("Noisy auxiliary tasks", [*blocks, *_panels(panels, "noisy", outcomes)])


def _ablations(protocol: Protocol, evidence: Evidence) -> Section:
    outcomes, task = evidence.plain, evidence.ablated
    assert outcomes is not None
    eight = (UNIFORM, GRID_SEARCH, "Grad.(Fix)", GRADIENT_GRID, "Uncer.", OURS)
    eleven = (UNIFORM, *[name for name in ENCODER if name != "Uncer."], OURS)
    nine = [IMPARTIAL, "Auto-λ", *DECODERS, DECODER_FIXED, DECODER_GRID, OURS]
    blocks: list[Block] = [
        tables.benchmark_table(
            outcomes,
            eight,
            "Table VIII. The encoder's two balances: gradient norms (Grad., with auxiliary weights of 0.1 or chosen "
            "from a grid) and uncertainty (Uncer.). GS: one set of weights for everything from a grid. Grids are "
            "searched on held-out training samples, for each primary task.",
        ),
        tables.primary_table(
            outcomes,
            nine,
            task,
            f"Table IX. What weighs the decoders, with {task} primary: IAL with other weighting methods, and Auto-λ as "
            "it is (partial) and with impartial decoders.",
        ),
        tables.benchmark_table(
            outcomes,
            eleven,
            "Table XI. What stands for uncertainty in the encoder: fixed weights (Grad.(Fix)), relative training speed "
            "(RTS), expected gradient norm (EGN), cosine (Cos.). How these become weights in [0, 1] is ours.",
            {"Grad.(Fix)": "Fixed"},
        ),
    ]
    chosen = protocol.option("ablations", "paper", ())
    return Section(
        "Ablations", [*blocks, *_beside_tables(outcomes, [name for name in chosen if name != "table_10"], protocol)]
    )


def _broken(protocol: Protocol, evidence: Evidence) -> Section:
    outcomes = evidence.plain
    assert outcomes is not None
    rows = (UNIFORM, "UW", fixed_head("UW"), "Auto-λ", fixed_head("Auto-λ"), OURS, fixed_head(OURS))
    blocks: list[Block] = [
        tables.benchmark_table(
            outcomes,
            rows,
            f"Table X. (Fix): the head of {evidence.broken} keeps its initial parameters. {DELTA} leaves this task "
            "out, as in the paper's rows (Fix); in its other rows it is in.",
            without=[evidence.broken],
        )
    ]
    if outcomes.has(fixed_head(OURS), tasks=[evidence.ablated]) and outcomes.has(OURS, tasks=[evidence.ablated]):
        caption = (
            f"Fig. 13. {evidence.ablated} primary, {evidence.broken} auxiliary, mean over seeds: the uncertainties and "
            "the weight that follows."
        )
        blocks.append(Figure(svg(figures.broken_figure(outcomes, evidence.ablated, evidence.broken)), caption, 900))
    chosen = [name for name in protocol.option("ablations", "paper", ()) if name == "table_10"]
    return Section("A broken auxiliary task", [*blocks, *_beside_tables(outcomes, chosen, protocol)])


def _training(evidence: Evidence) -> list[Section]:
    sections = []
    for title, outcomes in (("", evidence.plain), (" with noisy tasks", evidence.noisy)):
        if outcomes is None or not any(outcomes.runs.get(row_name(OURS, task)) for task in outcomes.primary):
            continue
        if not outcomes.has(OURS):
            continue
        found = presences(outcomes)
        blocks: list[Block] = [Prose(_presence(found)), tables.presence_table(found)]
        if len(outcomes.primary) <= 5:
            caption = (
                "Fig. 14. Rows: decoder weights, encoder weights (the primary task's is 1), gradient norms at the "
                "features; mean over seeds, the primary task's line is thicker."
            )
            blocks.append(Figure(svg(figures.training_figure(outcomes)), caption, 900))
        sections.append(Section(f"Weights, sigma and norms over training{title}", blocks))
    return sections


def _presence(found: Sequence[Presence]) -> str:
    """Whether every auxiliary task trains the encoder in a part of the run, and why not."""
    absent, seldom = ([e for e in found if low <= e.share < high] for low, high in ((0.0, 1e-9), (1e-9, 0.5)))
    text = "Every auxiliary task's encoder weight is above 0 in a part of every run."
    if absent:
        text = f"Without any weight in the encoder: {_tasks(absent)}."
    if seldom:
        text += f" Left out for most of the run: {_tasks(seldom)}."
    if absent or seldom:
        text += " Their losses are or begin at 1 or above, so that sigma passes 1, where f is 0."
    return text


def _tasks(found: Sequence[Presence]) -> str:
    return ", ".join(
        f"{entry.task} (with {entry.primary} primary; sigma {entry.sigma:.2f} at the end)" for entry in found
    )


def _domains(protocol: Protocol, outcomes: Outcomes) -> Section:
    caption = (
        f"Table VII. Domains with inputs of their own, {len(outcomes.primary)} of which are primary in turn; Normal "
        f"rows are one run for all domains, of which the same {len(outcomes.primary)} are shown. {DELTA} is the mean "
        "change against single tasks."
    )
    return Section(
        "Domains", [tables.benchmark_table(outcomes, METHODS, caption), *_beside(protocol, "domains", outcomes)]
    )


def _runtime(protocol: Protocol, evidence: Evidence, outcomes: Outcomes) -> Section:
    text = (
        "The papers disagree on what Auto-λ costs: IAL's Table II has 1.16, 1.14 and 1.11 times Uniform's hours for "
        "NYUv2, Cityscapes and PASCAL-Context (and 1.16, 1.12, 1.05 for IAL), SAAL's Table 4 4.24 and 4.03 for the "
        "same method on NYUv2 and Cityscapes. Auto-λ makes three more passes over other batches in every step; hours "
        "include loading data and evaluation, which step times do not."
    )
    table = tables.runtime_table(
        evidence.times, outcomes.primary, (SINGLE, *METHODS), protocol.recipe.options.get("about", ())
    )
    return Section("Runtime", [Prose(text), table])


def _beside(protocol: Protocol, experiment: str, outcomes: Outcomes) -> list[Block]:
    return _beside_tables(outcomes, protocol.option(experiment, "paper", ()), protocol)


def _beside_tables(outcomes: Outcomes, names: Sequence[str], protocol: Protocol) -> list[Block]:
    """Tables of the paper with ours behind: all of it where the data are the paper's, else relative changes."""
    same = protocol.recipe.options.get("same_data", False)
    blocks: list[Block] = [] if same or not names else [Prose(OTHER_DATA)]
    for name in names:
        table = published_table("ial", name)
        ours: dict[str, dict[str, Spread]] = {}
        for row in table.rows:
            mine = OTHER_NAMES.get(name, {}).get(row, row)
            if name == "table_9":
                found = _primary_row(outcomes, mine, protocol.option("ablations", "ablated"))
            else:
                found = _row(outcomes, mine)
            if name == "table_10" and mine.endswith("(Fix)"):
                found.pop(DELTA, None)  # theirs leaves the broken task out
            ours[row] = found if same else {key: value for key, value in found.items() if key == DELTA}
        blocks.append(beside_table(table, ours))
    return blocks


def _row(outcomes: Outcomes, name: str) -> dict[str, Spread]:
    """Column -> value of a row, where each task is primary; the mean of all domains where all are primary."""
    if not outcomes.has(name, SINGLE):
        return {}
    found = {outcomes.columns[task].name: outcomes.value(name, task) for task in outcomes.primary}
    if len(outcomes.primary) == DOMAINS:
        values = [value.values for value in found.values()]
        found["mean of 20 acc %"] = Spread(tuple(statistics.fmean(seed) for seed in zip(*values, strict=True)))
    return found if name == SINGLE else {**found, DELTA: outcomes.delta(name)}


def _primary_row(outcomes: Outcomes, name: str, primary: str) -> dict[str, Spread]:
    """Column -> value in the run with one primary task."""
    if not outcomes.has(name, tasks=[primary]):
        return {}
    return {outcomes.columns[task].name: outcomes.value(name, task, primary) for task in outcomes.primary}


def _setup(protocol: Protocol, evidence: Evidence, material: Material) -> Section:
    recipe = protocol.recipe
    failures = [
        f"{row}, seed {seed}: {reason}"
        for part in evidence.parts.values()
        for (row, seed), reason in part.failures.items()
    ]
    facts = {
        "Runs": f"{material.done} of {material.planned}, {len(failures)} of them ended early",
        "Seeds": f"{recipe.seeds}",
        **{name.replace("_", " ").capitalize(): _setting(value) for name, value in recipe.train.items()},
        "Method options": _setting(recipe.method_options) or "defaults",
        **{f"Experiment {name}": _setting(own) or "as above" for name, own in recipe.experiments.items()},
        "Chosen on held-out samples": _chosen(material.decisions) or "nothing",
        "Runs that warned": f"{len(list(material.out.glob(f'runs/**/{WARNINGS}')))}; see {WARNINGS} in their folders",
    }
    blocks: list[Block] = [Bullets(recipe.notes[1:]), Facts(facts)]
    if failures:
        blocks += [Prose("Runs that ended early, and are left out of all tables:"), Bullets(failures)]
    return Section("What was run, and what it can show", blocks)


def _chosen(decisions: Mapping[str, Decision]) -> str:
    return "; ".join(f"{name}: {decision.value}" for name, decision in decisions.items())


def _setting(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_setting(item)}" for name, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
