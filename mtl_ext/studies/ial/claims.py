"""What the paper claims, each as a test that the study can fail.

The paper's words come from its data file; the criterion in brackets is ours, where the paper leaves it open.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mtl_ext.studies.claims import Claim, Finding, NotTestableError
from mtl_ext.studies.ial import noise
from mtl_ext.studies.ial.outcomes import SAME, Evidence, Outcomes, listed, time_ratio
from mtl_ext.studies.ial.protocol import (
    AUXILIARY,
    DECODER_FIXED,
    DECODER_GRID,
    ENCODER,
    GRADIENT_GRID,
    GRID_SEARCH,
    IMPARTIAL,
    NORMAL,
    OURS,
    SINGLE,
    fixed_head,
    row_name,
)
from mtl_ext.studies.ial.training import encoder_weight
from mtl_ext.studies.published import published_claims

Test = Callable[[Evidence], Finding]
# From this difference on, a gap is large.
GAP = 0.01
# Step times within this share of each other are comparable.
COMPARABLE_TIME = 0.15
# From this on, an auxiliary weight is large.
LARGE_WEIGHT = 0.6
# Which data a claim is about; none: any.
NYUV2, CITYSCAPES, PASCAL, CIFAR = "NYUv2", "Cityscapes", "PASCAL-Context", "Multi-CIFAR100"


@dataclass(frozen=True)
class Criterion:
    """How a claim of the paper is judged.

    Attributes:
        start: how the paper's words begin.
        text: the criterion, which is ours.
        test: it.
        about: the paper's name of the data; none: any.
    """

    start: str
    text: str
    test: Test
    about: str = ""


def criteria() -> list[Criterion]:
    """All criteria, in the paper's order."""
    without_noise = f"loses at most {SAME:.1%}"
    return [
        Criterion(
            "Inadequately trained",
            "where IAL trains the auxiliary tasks better than OL-AUX, it is better on the primary tasks, too",
            _trained_auxiliaries,
        ),
        Criterion(
            "our proposed method not only", "IAL has the best mean change and is best on each task", _best, NYUV2
        ),
        Criterion("IMTL, Auto-λ and PUW reach", "these three lead the setting Normal", _leaders, NYUV2),
        Criterion(
            "all multi-task learning methods", "DWA and ATW below single tasks, all others above", _above, CITYSCAPES
        ),
        Criterion("in Auxiliary setting, GCS", "both above just UW, GradNorm, DWA and MGDA", _below, CITYSCAPES),
        Criterion("our method reaches the highest", "IAL is best on each task", _best, CITYSCAPES),
        Criterion("our method achieves the best", "IAL is best on the four", _best_on_four, PASCAL),
        Criterion("On edge prediction", "these three above IAL, which has the best mean change", _edges, PASCAL),
        Criterion(
            "it is slightly faster", f"step time below theirs, and within {COMPARABLE_TIME:.0%} of Auto-λ's", _runtime
        ),
        Criterion(
            "For multi-task learning baselines", f"Uniform loses more than {SAME:.1%}", noise.uniform_drops, NYUV2
        ),
        Criterion("uncertainty weights improve", "in mean change, with noisy tasks", noise.weighing_with_noise, NYUV2),
        Criterion(
            "those methods under Auxiliary",
            f"noisy tasks' weights below {noise.ZERO_WEIGHT} at the end under OL-AUX and Auto-λ, each {without_noise}",
            noise.noise_weights,
            NYUV2,
        ),
        Criterion(
            "the performance can be improved up",
            f"IAL with noisy tasks and token labels gains more than {SAME:.1%} against IAL without noisy tasks",
            noise.noise_helps,
            NYUV2,
        ),
        Criterion(
            "we observe that the baseline methods", f"these lose, IAL {without_noise}", noise.others_drop, CITYSCAPES
        ),
        Criterion(
            "uncertainty weight and all auxiliary", f"each {without_noise}, IAL nothing", noise.small_drops, PASCAL
        ),
        Criterion(
            "the integration of two pseudo", "these four all lose, and more than IAL", noise.equal_weighting, NYUV2
        ),
        Criterion("all multi-tasking baselines", "in the mean over domains, IAL above all others", _domains, CIFAR),
        Criterion("combining both parts", "IAL above GS, Grad.(Fix), Grad.(GS) and Uncer.", _both_parts, NYUV2),
        Criterion(
            "our impartial learning can improve",
            "Auto-λ with impartial decoders is better on the primary task and on the auxiliary ones",
            _impartial,
            NYUV2,
        ),
        Criterion("For partial learning", "on the primary task of Table IX, against w. Uniform", _partial, NYUV2),
        Criterion(
            "the uncertainty of depth",
            "the broken task's sigma is higher and its weight in the encoder lower; whether the paper's figure shows "
            "sigma or the weight by it, its text leaves open",
            _broken_uncertainty,
            NYUV2,
        ),
        Criterion(
            "our method still keeps",
            "without the broken task, IAL (Fix) loses less against IAL than UW (Fix) against UW",
            _broken_head,
            NYUV2,
        ),
        Criterion(
            "Uncertainty improves",
            f"IAL above RTS, EGN, Cos. and fixed weights by more than {GAP:.0%}",
            _indicators,
            NYUV2,
        ),
        Criterion("these tasks always achieve", "sigma at the end, for each task", _lower_as_primary),
        Criterion("In our experiments, these weights", f"f(sigma) at most {LARGE_WEIGHT} in any run", _weights_below),
    ]


def claims(about: Sequence[str]) -> list[Claim[Evidence]]:
    """All claims, in the paper's order.

    Args:
        about: the paper's names of the data that the recipe's stand for.
    """
    starts = criteria()
    found: list[Claim[Evidence]] = []
    for said in published_claims("ial"):
        (criterion,) = [entry for entry in starts if said.text.startswith(entry.start)]
        doubt = f" The paper's own numbers contradict it: {said.against}." if said.against else ""
        text = f"“{said.text}” Here: {criterion.text.removesuffix('.')}.{doubt}"
        if criterion.about and criterion.about not in about:
            reason = f"It is about {criterion.about}."
            found.append(Claim(text, said.reference, reason=reason))
        else:
            found.append(Claim(text, said.reference, criterion.test))
    return [*found, _not_hurt()]


def _not_hurt() -> Claim[Evidence]:
    return Claim(
        f"Noisy auxiliary tasks do not hurt under IAL (here: it loses at most {SAME:.1%}, without token labels).",
        "Abstract, Tables I and IV",
        noise.not_hurt_by_noise,
    )


def _lead(outcomes: Outcomes, names: Sequence[str], gap: float = 0.0) -> Finding:
    """Whether IAL is above all of some rows, which have to be there, by more than a gap."""
    outcomes.seeds(OURS, *names, SINGLE)
    deltas = outcomes.deltas((OURS, *names))
    return Finding(all(deltas[OURS].mean > deltas[name].mean + gap for name in names), listed(deltas))


# ---- Table I ----


def _trained_auxiliaries(e: Evidence) -> Finding:
    o = e.need("plain")
    auxiliary = o.auxiliary_change(OURS, "OL-AUX")
    primary = o.delta(OURS, "OL-AUX")
    numbers = f"IAL against OL-AUX: auxiliary tasks {auxiliary.percent()}, primary tasks {primary.percent()}"
    return Finding(auxiliary.mean > 0 and primary.mean > 0, numbers)


def _best(e: Evidence) -> Finding:
    o = e.need("plain")
    deltas = o.deltas((*NORMAL, *AUXILIARY))
    if OURS not in deltas or len(deltas) < 2:
        raise NotTestableError("IAL and another method have not run to the end with a common seed")
    order = sorted(deltas, key=lambda name: -deltas[name].mean)
    leads = _leads(o, o.primary)
    place = order.index(OURS) + 1
    numbers = (
        f"IAL {deltas[OURS].percent()}, place {place} of {len(order)} (best: {order[0]} {deltas[order[0]].percent()}); "
    )
    numbers += "best on " + ", ".join(f"{task}: {name}" for task, name in leads.items())
    return Finding(place == 1 and set(leads.values()) == {OURS}, numbers)


def _leads(o: Outcomes, tasks: Sequence[str]) -> dict[str, str]:
    """Task -> the method that is best on it."""
    names = list(o.deltas((*NORMAL, *AUXILIARY)))
    found = {}
    for task in tasks:
        sign = 1 if o.columns[task].higher_is_better else -1
        values = {name: sign * o.value(name, task).mean for name in names}
        found[task] = max(values, key=lambda name: values[name])
    return found


def _best_on_four(e: Evidence) -> Finding:
    o = e.need("plain")
    o.seeds(OURS, SINGLE)
    leads = _leads(o, ("segmentation", "parts", "normals", "saliency"))
    return Finding(set(leads.values()) == {OURS}, "best on " + ", ".join(f"{t}: {n}" for t, n in leads.items()))


def _edges(e: Evidence) -> Finding:
    o, above = e.need("plain"), ("UW", "DWA", "IMTL-L")
    o.seeds(OURS, *above, SINGLE)
    changes = {name: o.change(name, "edges", OURS) for name in above}
    deltas = o.deltas((*NORMAL, *AUXILIARY))
    holds = all(change.mean > 0 for change in changes.values()) and max(deltas, key=lambda n: deltas[n].mean) == OURS
    return Finding(holds, f"edges against IAL: {listed(changes)}; mean change of IAL {deltas[OURS].percent()}")


def _above(e: Evidence) -> Finding:
    o = e.need("plain")
    o.seeds(*NORMAL, SINGLE)
    deltas = o.deltas(tuple(NORMAL))
    below = {name for name, delta in deltas.items() if delta.mean <= 0}
    return Finding(below == {"DWA", "ATW"}, f"below single tasks: {', '.join(sorted(below)) or 'none'}")


def _below(e: Evidence) -> Finding:
    o = e.need("plain")
    o.seeds(*NORMAL, "GCS", "OL-AUX", SINGLE)
    deltas = o.deltas((*NORMAL, "GCS", "OL-AUX"))
    worse = {n for n in NORMAL if deltas[n].mean < min(deltas["GCS"].mean, deltas["OL-AUX"].mean)}
    return Finding(worse == {"UW", "GradNorm", "DWA", "MGDA"}, f"below both: {', '.join(sorted(worse)) or 'none'}")


def _leaders(e: Evidence) -> Finding:
    o, leaders = e.need("plain"), {"IMTL", "Auto-λ (MTL)", "PUW"}
    o.seeds(*leaders, SINGLE)
    deltas = o.deltas(tuple(NORMAL))
    first = sorted(deltas, key=lambda name: -deltas[name].mean)[:3]
    return Finding(set(first) == leaders, "best: " + listed({name: deltas[name] for name in first}))


def _runtime(e: Evidence) -> Finding:
    o = e.need("plain")
    found = {name: time_ratio(e.times, name, o.primary) for name in (OURS, "Auto-λ", "MGDA", "PCGrad", "IMTL-G")}
    times = {name: value for name, value in found.items() if value is not None}
    if OURS not in times or len(times) < 2:
        raise NotTestableError("step times have not been measured for IAL and others")
    slower = [name for name in times if name not in (OURS, "Auto-λ") and times[name] < times[OURS]]
    comparable = "Auto-λ" in times and abs(times["Auto-λ"] / times[OURS] - 1) <= COMPARABLE_TIME
    numbers = ", ".join(f"{name} {value:.2f}" for name, value in times.items())
    return Finding(not slower and comparable, f"step time relative to Uniform: {numbers}")


# ---- domains ----


def _domains(e: Evidence) -> Finding:
    o = e.need("domains")
    deltas = o.deltas((*NORMAL, *AUXILIARY))
    if OURS not in deltas or len(deltas) < 2:
        raise NotTestableError("IAL and another method have not run to the end with a common seed")
    return Finding(max(deltas, key=lambda name: deltas[name].mean) == OURS, listed(deltas))


# ---- ablations ----


def _both_parts(e: Evidence) -> Finding:
    return _lead(e.need("plain"), (GRID_SEARCH, "Grad.(Fix)", GRADIENT_GRID, "Uncer."))


def _indicators(e: Evidence) -> Finding:
    return _lead(e.need("plain"), [name for name in ENCODER if name != "Uncer."], GAP)


def _impartial(e: Evidence) -> Finding:
    o, task = e.need("plain"), e.ablated
    primary = o.change(IMPARTIAL, task, "Auto-λ")
    auxiliary = o.auxiliary_change(IMPARTIAL, "Auto-λ", [task])
    numbers = f"impartial against partial: {task} {primary.percent()}, auxiliary tasks {auxiliary.percent()}"
    return Finding(primary.mean > 0 and auxiliary.mean > 0, numbers)


def _partial(e: Evidence) -> Finding:
    o, task = e.need("plain"), e.ablated
    names = (DECODER_FIXED, DECODER_GRID, "Auto-λ")
    changes = {name: o.change(name, task, "w. Uniform") for name in names}
    numbers = listed(changes)
    return Finding(all(change.mean < 0 for change in changes.values()), f"{task} against w. Uniform: {numbers}")


def _broken_uncertainty(e: Evidence) -> Finding:
    o = e.need("plain")
    found = []
    for name in (OURS, fixed_head(OURS)):
        seeds = o.seeds(name, tasks=[e.ablated])
        curves = [o.log(row_name(name, e.ablated), seed)[f"sigma/{e.broken}"] for seed in seeds]
        ends, weights = ([float(curve[-1]) for curve in curves], [float(encoder_weight(c).mean()) for c in curves])
        found.append((float(np.mean(ends)), float(np.mean(weights))))
    (sigma, weight), (fixed_sigma, fixed_weight) = found
    numbers = (
        f"{e.broken} with {e.ablated} primary: sigma at the end {sigma:.2f}, with a frozen head {fixed_sigma:.2f}; "
        f"mean weight f(sigma) {weight:.3f}, with a frozen head {fixed_weight:.3f}"
    )
    return Finding(fixed_sigma > sigma and fixed_weight < weight, numbers)


def _broken_head(e: Evidence) -> Finding:
    o = e.need("plain")
    losses = {n: o.delta(fixed_head(n), n, without=[e.broken]) for n in (OURS, "UW")}
    return Finding(losses[OURS].mean > losses["UW"].mean, f"without {e.broken}: {listed(losses)}")


# ---- training ----


def _lower_as_primary(e: Evidence) -> Finding:
    o = e.need("plain")
    held, parts = True, []
    for task in o.primary:
        ends = {p: [float(o.log(row_name(OURS, p), s)[f"sigma/{task}"][-1]) for s in o.seeds(OURS)] for p in o.primary}
        own = float(np.mean(ends[task]))
        others = [float(np.mean(values)) for p, values in ends.items() if p != task]
        held = held and all(own < other for other in others)
        parts.append(f"{task} {own:.3f} as primary, {', '.join(f'{value:.3f}' for value in others)} as auxiliary")
    return Finding(held, "; ".join(parts))


def _weights_below(e: Evidence) -> Finding:
    o = e.need("plain")
    largest: dict[str, float] = {}
    for primary in o.primary:
        row = row_name(OURS, primary)
        for seed in o.seeds(OURS):
            steps = o.log(row, seed)
            for task in o.primary:
                if task != primary:
                    top = float(encoder_weight(steps[f"sigma/{task}"]).max())
                    largest[task] = max(largest.get(task, 0.0), top)
    numbers = ", ".join(f"{task} {value:.2f}" for task, value in largest.items())
    return Finding(all(value <= LARGE_WEIGHT for value in largest.values()), f"largest f(sigma): {numbers}")
