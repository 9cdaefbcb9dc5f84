"""What the paper says of noisy auxiliary tasks, as tests that the study can fail."""

import numpy as np

from mtl_ext.studies.claims import Finding
from mtl_ext.studies.ial.outcomes import SAME, Evidence, Outcomes, listed
from mtl_ext.studies.ial.protocol import AUXILIARY, OURS, PSEUDO, SINGLE, UNIFORM, row_name, with_tokens

# A weight below this is as good as 0.
ZERO_WEIGHT = 0.02
WEIGHING = ("UW", "GradNorm", "IMTL")
OTHERS = tuple(name for name in AUXILIARY if name != OURS)


def uniform_drops(e: Evidence) -> Finding:
    """Whether Uniform loses by noisy tasks."""
    noisy, plain = e.need("noisy"), e.need("plain")
    gain = noisy.gain(UNIFORM, plain, UNIFORM)
    return Finding(gain.mean < -SAME, f"Uniform with noisy tasks against without: {gain.percent()}")


def weighing_with_noise(e: Evidence) -> Finding:
    """Whether UW is above Uniform, and IMTL and GradNorm below, with noisy tasks."""
    noisy = e.need("noisy")
    noisy.seeds(UNIFORM, *WEIGHING, SINGLE)
    deltas = noisy.deltas((UNIFORM, *WEIGHING))
    base = deltas[UNIFORM].mean
    holds = deltas["UW"].mean > base > max(deltas["IMTL"].mean, deltas["GradNorm"].mean)
    return Finding(holds, listed(deltas))


def noise_weights(e: Evidence) -> Finding:
    """Whether OL-AUX and Auto-λ leave noisy tasks out, and lose nothing by them."""
    noisy, plain = e.need("noisy"), e.need("plain")
    names = ("OL-AUX", "Auto-λ")
    gains = {name: noisy.gain(name, plain, name) for name in names}
    weights = {name: _last_weights(noisy, name) for name in names}
    holds = all(gain.mean > -SAME for gain in gains.values()) and max(weights.values()) < ZERO_WEIGHT
    numbers = ", ".join(f"{n} largest mean weight {weights[n]:.3f}, change {gains[n].percent()}" for n in names)
    return Finding(holds, numbers)


def _last_weights(o: Outcomes, name: str) -> float:
    """The largest weight of a noisy task, as a mean over the last tenth of the run, seeds and primary tasks."""
    found: dict[str, list[float]] = {}
    for primary in o.primary:
        row = row_name(name, primary)
        for seed in o.seeds(name):
            steps = o.log(row, seed)
            for task in PSEUDO:
                if f"weight/{task}" in steps:
                    weights = steps[f"weight/{task}"]
                    found.setdefault(task, []).append(float(weights[-max(1, len(weights) // 10) :].mean()))
    return max(float(np.mean(values)) for values in found.values())


def noise_helps(e: Evidence) -> Finding:
    """Whether IAL gains by noisy tasks with token labels."""
    noisy, plain = e.need("noisy"), e.need("plain")
    tokens = noisy.gain(with_tokens(OURS), plain, OURS)
    numbers = f"with token labels {tokens.percent()}"
    if noisy.has(OURS, SINGLE):
        numbers += f", without {noisy.gain(OURS, plain, OURS).percent()}"
    return Finding(tokens.mean > SAME, numbers)


def equal_weighting(e: Evidence) -> Finding:
    """Whether methods that weigh all tasks equally lose more by noisy tasks than IAL does."""
    noisy, plain = e.need("noisy"), e.need("plain")
    names = (UNIFORM, *WEIGHING, OURS)
    gains = {name: noisy.gain(name, plain, name) for name in names}
    holds = all(gains[name].mean < min(0.0, gains[OURS].mean) for name in names if name != OURS)
    return Finding(holds, f"change by noisy tasks: {listed(gains)}")


def not_hurt_by_noise(e: Evidence) -> Finding:
    """Whether IAL loses nothing by noisy tasks."""
    noisy, plain = e.need("noisy"), e.need("plain")
    gain = noisy.gain(OURS, plain, OURS)
    return Finding(gain.mean > -SAME, f"IAL with noisy tasks against without: {gain.percent()}")


def others_drop(e: Evidence) -> Finding:
    """Whether the other methods of the setting Auxiliary lose by noisy tasks, and IAL does not."""
    noisy, plain = e.need("noisy"), e.need("plain")
    gains = {name: noisy.gain(name, plain, name) for name in (*OTHERS, OURS)}
    holds = all(gains[name].mean < 0 for name in OTHERS) and gains[OURS].mean > -SAME
    return Finding(holds, f"change by noisy tasks: {listed(gains)}")


def small_drops(e: Evidence) -> Finding:
    """Whether UW and the setting Auxiliary lose little by noisy tasks, and IAL gains."""
    noisy, plain = e.need("noisy"), e.need("plain")
    gains = {name: noisy.gain(name, plain, name) for name in ("UW", *OTHERS, OURS)}
    holds = all(gain.mean > -SAME for gain in gains.values()) and gains[OURS].mean > 0
    return Finding(holds, f"change by noisy tasks: {listed(gains)}")
