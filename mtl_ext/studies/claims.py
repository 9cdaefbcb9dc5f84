"""Claims of a paper, judged by what a study's runs gave."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from mtl_ext.report import Cell, Table

Evidence = TypeVar("Evidence")


class Verdict(StrEnum):
    """What a study says about a claim."""

    SEEN = "seen"
    NOT_SEEN = "not seen"
    NOT_TESTABLE = "not testable here"


class NotTestableError(Exception):
    """What a claim is about is not among the results; the message says what."""


@dataclass(frozen=True)
class Finding:
    """Whether a claim holds in some results, and the numbers that decide."""

    holds: bool
    numbers: str


@dataclass(frozen=True)
class Claim(Generic[Evidence]):
    """What a paper says, as something that can fail.

    Attributes:
        text: the claim, with the criterion where the paper leaves it open.
        reference: where the paper says it.
        test: results -> whether it holds in them; none where this study cannot tell.
        reason: why not, then.
    """

    text: str
    reference: str
    test: Callable[[Evidence], Finding] | None = None
    reason: str = ""


@dataclass(frozen=True)
class Judged(Generic[Evidence]):
    """A claim with its verdict.

    Attributes:
        claim: the claim.
        verdict: of the means over all seeds.
        numbers: what decided, or why nothing could.
        seeds_holding: seeds of which the runs alone show the claim.
        seeds: how many could be asked.
    """

    claim: Claim[Evidence]
    verdict: Verdict
    numbers: str
    seeds_holding: int = 0
    seeds: int = 0


def judge(claim: Claim[Evidence], evidence: Evidence, by_seed: Sequence[Evidence]) -> Judged[Evidence]:
    """Judges a claim by the results of all seeds together, and counts the seeds that show it alone."""
    if claim.test is None:
        return Judged(claim, Verdict.NOT_TESTABLE, claim.reason)
    try:
        finding = claim.test(evidence)
    except NotTestableError as error:
        return Judged(claim, Verdict.NOT_TESTABLE, str(error))
    alone = []
    for single in by_seed:
        try:
            alone.append(claim.test(single).holds)
        except NotTestableError:
            continue
    verdict = Verdict.SEEN if finding.holds else Verdict.NOT_SEEN
    return Judged(claim, verdict, finding.numbers, sum(alone), len(alone))


def claims_table(judged: Sequence[Judged[Evidence]], caption: str) -> Table:
    """The claims with coloured verdicts."""
    tones = {Verdict.SEEN: "yes", Verdict.NOT_SEEN: "no", Verdict.NOT_TESTABLE: "unknown"}
    rows: list[list[Cell | str]] = []
    for entry in judged:
        seeds = f"{entry.seeds_holding} of {entry.seeds} seeds" if entry.seeds else ""
        verdict = Cell(entry.verdict.value, tones[entry.verdict])
        rows.append([entry.claim.text, entry.claim.reference, verdict, Cell(seeds, "muted"), entry.numbers])
    return Table(("The paper says", "Where", "Here", "Single seeds", "Numbers"), rows, caption, wrap=True)
