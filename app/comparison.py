"""Builds the comparisons that the viewer shows next to a case: the prior study and another model."""

from collections.abc import Iterable
from typing import Any

from app.image_urls import ImageUrls
from app.review_context import ReviewContext, load_findings
from medssl.finding import Finding, format_volume
from medssl.predictions_folder import ChannelFacts, Index, list_sequences, read_channel_facts
from medssl.review.priors import apply_verdicts, count_days, find_prior, match_findings, measure_growth
from medssl.review.worklist import WorklistItem


def build_comparisons(context: ReviewContext, urls: ImageUrls, item: WorklistItem) -> list[dict[str, Any]]:
    """Returns the comparisons of a case as the viewer expects them; empty if there are none."""
    comparisons = (_compare_with_prior(context, urls, item), _compare_with_model(context, urls, item))
    return [comparison for comparison in comparisons if comparison]


def build_sequences(context: ReviewContext, urls: ImageUrls, item: WorklistItem) -> list[dict[str, Any]]:
    """Returns the other sequences of a case, as the viewer expects them among the comparisons."""
    folder = context.index.case_folder(item.case)
    facts = dict(enumerate(read_channel_facts(folder)))
    return [
        {"id": f"sequence-{number}", "name": name_channel(facts.get(number), number), "isSequence": True,
         "isHot": number in facts and facts[number].modality == "PT", "overlay": None, "pairs": {},
         "volume": urls.get_url(item.number, "sequence", number), "unpaired_text": "", "unmatched": []}
        for number in list_sequences(folder)
    ]  # fmt: skip


def name_channel(facts: ChannelFacts | None, number: int) -> str:
    """Returns the name of a channel, its modality, or its number from 1."""
    return (facts and (facts.name or facts.modality)) or f"Sequence {number + 1}"


def format_title(index: Index, case: str) -> str:
    """Returns the identifier of a case and the date of its study."""
    return f"{case}  {format_date(index.find_study(case).date)}".strip()


def format_date(date: str) -> str:
    """Returns a date YYYYMMDD as YYYY-MM-DD; any other text stays as it is."""
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 else date


def _compare_with_prior(context: ReviewContext, urls: ImageUrls, item: WorklistItem) -> dict[str, Any] | None:
    prior = find_prior(context.index, item.case)
    if prior is None:
        return None
    number, days = context.index.cases.index(prior) + 1, count_days(context.index, prior, item.case)
    prior_reading = context.get_reading(prior)
    # A finding that the reader rejected is still visible in the image, so it is not missing in this study.
    current = apply_verdicts(item.findings, item.reading, keep_rejected=True)
    earlier = apply_verdicts(context.list_findings(prior), prior_reading)
    matches = match_findings(current, earlier)
    pairs = {
        finding.id: {
            "centre_mm": matches[finding.id].centre_mm,
            "text": measure_growth(
                finding,
                matches[finding.id],
                days,
                item.reading.axes.get(finding.id),
                prior_reading.axes.get(matches[finding.id].id),
            ).summary,
        }
        for finding in current
        if finding.id in matches
    }
    date = format_date(context.index.find_study(prior).date)
    return {
        "id": "prior",
        "name": f"Prior {date or (prior if days is None else f'{days} days earlier')}",
        "volume": urls.get_url(number, "image"),
        "overlay": urls.get_url(number, "labels"),
        "unpaired_text": "not found in the prior",
        "pairs": pairs,
        "unmatched": _list_unmatched(earlier, matches, "only in the prior"),
    }


def _compare_with_model(context: ReviewContext, urls: ImageUrls, item: WorklistItem) -> dict[str, Any] | None:
    if context.comparison is None or item.case not in context.comparison.cases:
        return None
    name, findings = context.comparison.folder.name, load_findings(context.comparison, item.case)
    matches = match_findings(item.findings, findings, max_shift_mm=0)
    pairs = {
        id_: {"centre_mm": match.centre_mm, "text": f"{name}: {_format_size(match)}"} for id_, match in matches.items()
    }
    return {
        "id": "comparison",
        "name": name,
        "volume": urls.get_url(item.number, "image"),
        "overlay": urls.get_url(item.number, "comparison"),
        "unpaired_text": f"not found by {name}",
        "pairs": pairs,
        "unmatched": _list_unmatched(findings, matches, f"found only by {name}"),
    }


def _list_unmatched(findings: Iterable[Finding], matches: dict[str, Finding], text: str) -> list[dict[str, Any]]:
    """Returns the findings that only the comparison has, each with its centre and description."""
    matched = {match.id for match in matches.values()}
    return [
        {"centre_mm": finding.centre_mm, "text": f"{text}: {finding.name}, {_format_size(finding)}"}
        for finding in findings
        if finding.id not in matched
    ]


def _format_size(finding: Finding) -> str:
    return f"{finding.diameter_mm:.1f} mm, {format_volume(finding.volume_ml)}, score {finding.score:.2f}"
