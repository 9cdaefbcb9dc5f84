"""The report of the SAAL study."""

from collections.abc import Mapping

from mtl_ext.relationships import relationships_figure, self_auxiliary_pairs
from mtl_ext.report import Block, Bullets, Facts, Figure, Prose, Report, Section, svg
from mtl_ext.studies.beside import contradictions_blocks
from mtl_ext.studies.claims import Judged, NotTestableError, Verdict, claims_table, judge
from mtl_ext.studies.published import published_claims
from mtl_ext.studies.recipe import Recipe
from mtl_ext.studies.saal import figures, tables
from mtl_ext.studies.saal.claims import claims
from mtl_ext.studies.saal.measures import MEASURES
from mtl_ext.studies.saal.outcomes import Outcomes, PartOutcomes
from mtl_ext.studies.saal.protocol import EQUAL, SAAL
from mtl_ext.studies.study import Material


def build_report(recipe: Recipe, outcomes: Outcomes, material: Material) -> Report:
    """The report on what is there.

    Args:
        recipe: how the study is run.
        outcomes: what the runs gave.
        material: what they are part of.
    """
    single = outcomes.single_seeds()
    judged = [judge(claim, outcomes, single) for claim in claims()]
    sections = [Section("Claims of the paper", [claims_table(judged, _claims_caption(outcomes)), *_against()])]
    sections += [_methods(part) for part in outcomes.parts if part.methods]
    sections += [_sharing(part) for part in outcomes.parts if part.part.recipe.options.get("sharing")]
    sections.append(_relationships(outcomes))
    if any(part.step_times for part in outcomes.parts):
        sections.append(Section("What a step costs", [tables.runtime_table(outcomes)]))
    sections.append(Section("How far the paper's own numbers add up", contradictions_blocks("saal")))
    sections.append(_setup(recipe, outcomes, material))
    footer = ", ".join(f"{name} {version}" for name, version in material.versions.items())
    title = f"Self-auxiliary asymmetric learning (SAAL), {recipe.name}"
    return Report(title, _lead(recipe, outcomes, judged, material), sections, footer)


def _lead(recipe: Recipe, outcomes: Outcomes, judged: list[Judged[Outcomes]], material: Material) -> list[str]:
    verdicts = [entry.verdict for entry in judged]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict.value}" for verdict in Verdict)
    lead = [
        "Graffeuille et al. find that one task may help another that harms it in return, and let knowledge flow one "
        "way only: clones of the helpful tasks (self-auxiliaries) train the other tasks' own layers, and are gone "
        "after training. This is their protocol: "
        + "; ".join(f"{part.part.name} with {', '.join(part.part.tasks)}" for part in outcomes.parts)
        + ".",
        f"Of {len(judged)} claims: {counts}.",
    ]
    lead += recipe.notes[:1]
    for part in outcomes.parts:
        lead += _summary(part)
    if material.done < material.planned:
        lead.append(f"Unfinished: {material.done} of {material.planned} runs are done, and the numbers are of those.")
    return lead


def _summary(part: PartOutcomes) -> list[str]:
    if not part.methods:
        return [f"{part.part.name.capitalize()}: no method has a run beside a single-task run of its seed yet."]
    ranked = sorted(part.methods, key=lambda name: -part.delta(name).mean)
    best, worst = ranked[0], ranked[-1]
    text = (
        f"{part.part.name.capitalize()}: best {best}, Δ_MTL {part.delta(best).percent()}; worst {worst}, "
        f"{part.delta(worst).percent()}."
    )
    settled: dict[int, list[str]] = {1: [], -1: []}
    for name in (name for name in SAAL if name in part.methods and EQUAL in part.methods):
        difference = part.difference(name, EQUAL)
        if difference.agree:
            settled[1 if difference.mean > 0 else -1].append(name)
    if len(part.seeds) > 1:
        better, worse = (", ".join(names) or "none" for names in settled.values())
        text += f" Of SAAL's variants better than equal weighting with every seed: {better}; worse: {worse}."
    return [text]


def _claims_caption(outcomes: Outcomes) -> str:
    seeds = max((len(part.seeds) for part in outcomes.parts), default=0)
    return (
        f"The verdict is that of the means over {seeds} seed{'s' if seeds != 1 else ''}; beside it, how many seeds "
        "show the claim alone, where one can. A claim that one seed in three contradicts is not settled here, whatever "
        "its verdict."
    )


def _against() -> list[Block]:
    """Claims that the paper's own numbers contradict."""
    found = [f"“{claim.text}” But {claim.against}." for claim in published_claims("saal") if claim.against]
    return [Prose("The paper's own tables speak against:"), Bullets(found)] if found else []


def _methods(part: PartOutcomes) -> Section:
    caption = (
        "Δ_MTL against single-task networks with the same seed. Large: mean over seeds; small: single seeds. Blue: "
        "SAAL; hollow: everything shared."
    )
    blocks: list[Block] = [Figure(svg(figures.overview_figure(part)), caption), tables.methods_table(part)]
    beside = tables.beside_paper(part)
    if beside is not None:
        blocks.append(beside)
    return Section(f"Methods on {part.part.name}", blocks)


def _sharing(part: PartOutcomes) -> Section:
    caption = (
        "Figure 1. Change of each task on the test split against single tasks with the same seed, over the number of "
        "blocks that all tasks share (3, dotted: the half-shared network; 5: shared bottom). Lines: mean over seeds; "
        "shaded: from the worst to the best seed. Typical without shared blocks is single-task training."
    )
    title = f"More and fewer shared blocks, {part.part.name}"
    if not all(len(part.sharing_points(kind)) > 1 for kind in figures.NAMES):
        return Section(title, [Prose("Not enough runs are finished yet.")])
    return Section(title, [Figure(svg(figures.sharing_figure(part)), caption, 900)])


def _relationships(outcomes: Outcomes) -> Section:
    blocks: list[Block] = [
        Prose(
            "Enumeration: the target's change on validation data when it shares its bottom with the source, against "
            "single-task training. SAAL_e and SAAL_ew train the self-auxiliaries of its positive cells. The other five "
            "measures are to tell it without training every pair. All changes of a target refer to one single-task run "
            "per seed: if that is a lucky one, all sources seem to harm the target, which alone lets targets differ "
            "more than sources."
        )
    ]
    drawn = False
    for part in outcomes.parts:
        block = _matrices(part)
        blocks.append(block)
        drawn = drawn or isinstance(block, Figure)
    if drawn:
        blocks += [tables.agreement_table(outcomes), *_chance(outcomes)]
    return Section("Who helps whom", blocks)


def _matrices(part: PartOutcomes) -> Block:
    try:
        enumeration = part.enumeration()
    except NotTestableError as error:
        return Prose(f"{error}.")
    measures, agreements = [enumeration], {}
    for name in MEASURES:
        try:
            measures.append(part.measure(name))
            agreements[name] = part.agreement(name)
        except NotTestableError:
            continue
    useful = ", ".join(self_auxiliary_pairs(enumeration.values)) or "none"
    caption = (
        f"Figure 3 and the measures of Table 5, {part.part.name}: source by target, mean over seeds; blue where the "
        f"source helps. Self-auxiliaries of SAAL_e and SAAL_ew: {useful}."
    )
    return Figure(svg(relationships_figure(measures, agreements)), caption, 900)


def _chance(outcomes: Outcomes) -> list[Block]:
    if not any(len(part.part.tasks) == 3 for part in outcomes.parts):
        return []
    text = (
        "With three tasks a target has two sources, and its rank correlation is +1 or -1 (a target whose sources tie "
        "is left out): the mean over three targets can only be -1, -0.33, +0.33 or +1, and is +1 by chance in one case "
        "of eight. The paper's values on NYUv2 and Cityscapes, -0.33 and 1.00, are of that kind."
    )
    return [Prose(text)]


def _setup(recipe: Recipe, outcomes: Outcomes, material: Material) -> Section:
    facts = {"Runs": f"{material.done} of {material.planned}"}
    for part in outcomes.parts:
        own = part.part.recipe
        settings = {"tasks": ", ".join(part.part.tasks), "seeds": own.seeds, **own.train}
        options = {name: values for name, values in own.method_options.items() if values}
        text = "; ".join(f"{name.replace('_', ' ')}: {_setting(value)}" for name, value in settings.items())
        facts[part.part.name.capitalize()] = text + (f"; method options: {_setting(options)}" if options else "")
    blocks: list[Block] = [Bullets(list(recipe.notes[1:])), Facts(facts)]
    failures = {name: reason for part in outcomes.parts for name, reason in part.failures.items()}
    if failures:
        ended = [f"{name}: {reason}" for name, reason in failures.items()]
        blocks += [Prose("Runs that ended early, and are left out of all tables:"), Bullets(ended)]
    return Section("What was run, and what it can show", blocks)


def _setting(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_setting(item)}" for name, item in value.items())
    return str(value)
