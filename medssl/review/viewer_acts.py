"""Translates the events that the viewer in the browser sends into acts; an event is checked before anything uses it."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from medssl.finding import Finding, Point
from medssl.predictions_folder import LabelDef
from medssl.review.mask_runs import pack_runs
from medssl.review.reading import ActRejected, Reading

MAX_DWELL_MS = 24 * 3600 * 1000
MAX_NOTE_LENGTH = 4000
Name = Annotated[str, Field(max_length=200)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Run = tuple[Count, Annotated[int, Field(ge=1, le=2**53)], Annotated[int, Field(ge=0, le=65535)]]


class ViewerEvent(BaseModel):
    """What every event of the viewer carries.

    Args:
        client: The identity of the page in the browser that numbered the event.
        seq: The number of the event on that page, from 1.
        at: The time on the clock of the browser, ISO 8601.
        dwell_ms: The time spent on the finding before the event, in ms.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    client: str = Field(min_length=1, max_length=64)
    seq: int = Field(ge=1, le=2**31)
    at: str = Field("", max_length=40)
    dwell_ms: int = 0

    @property
    def id(self) -> str:
        """The identity of the event among those of all pages."""
        return format_event_id(self.client, self.seq)


class Remarked(ViewerEvent):
    """An event with the reader's reason and note."""

    reason: Name = ""
    note: str = Field("", max_length=MAX_NOTE_LENGTH)


class VerdictEvent(Remarked):
    """A verdict on a finding; `next` is the finding that the reader goes to."""

    kind: Literal["verdict"]
    finding: Name
    decision: Literal["accept", "reject", "edit", "relabel", "unsure"]
    label: int | None = None
    next: Name | None = None


class MissedEvent(Remarked):
    """A finding that the reader adds at a point in mm, RAS+."""

    kind: Literal["missed"]
    centre_mm: Point
    label: int


class MeasureEvent(ViewerEvent):
    """The two axes of a finding in mm, RAS+."""

    kind: Literal["measure"]
    finding: Name
    plane: Literal["axial", "coronal", "sagittal"]
    long: tuple[Point, Point]
    short: tuple[Point, Point]


class AssistTool(BaseModel):
    """The tool that proposed a stroke, and the numbers of clicks and of drawn slices that it took."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["medssl-assist", "nninteractive"]
    version: str = Field(pattern=r"^[0-9][0-9A-Za-z.+]{0,31}$")
    num_clicks: int = Field(ge=0, le=10_000)
    num_slices: int = Field(ge=0, le=10_000)


class StrokeEvent(ViewerEvent):
    """The voxels that a stroke changed, as runs over the RAS grid; `assist` names the tool that proposed it, if any."""

    kind: Literal["stroke"]
    finding: Name | None = None
    runs: tuple[Run, ...] = Field(min_length=1)
    assist: AssistTool | None = None


class UndoEvent(ViewerEvent):
    """Takes back the event `of` of the page `of_client`."""

    kind: Literal["undo"]
    target_seq: int = Field(alias="of")
    target_client: str = Field(alias="of_client", max_length=64)


class SignEvent(ViewerEvent):
    """Signs the reading; `screen` is what the reader had on the screen, see `describe_record`."""

    kind: Literal["sign"]
    screen: dict[str, Any]


class ControlEvent(ViewerEvent):
    """Reopens or delivers the case, selects a finding, or goes to the next case."""

    kind: Literal["reopen", "deliver", "select", "next"]
    finding: Name | None = None


AnyEvent = VerdictEvent | MissedEvent | MeasureEvent | StrokeEvent | UndoEvent | SignEvent | ControlEvent
_EVENT_ADAPTER: TypeAdapter[AnyEvent] = TypeAdapter(Annotated[AnyEvent, Field(discriminator="kind")])


def parse_event(content: Any) -> AnyEvent:
    """Returns an event of the viewer; raises ActRejected if it is malformed."""
    try:
        return _EVENT_ADAPTER.validate_python(content)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = " ".join(str(part) for part in fault["loc"] if part not in get_args(AnyEvent)) or "event"
        raise ActRejected(f"the server cannot read it ({place[:60]}: {fault['msg'][:120]})") from None


def build_act_fields(
    event: AnyEvent, labels: Sequence[LabelDef], find_event_id: Callable[[str, int], int | None]
) -> dict[str, Any]:
    """Returns the fields of the act, without those about the reader and the case, that an event asks for.

    Args:
        event: The event.
        labels: The labels of the predictions.
        find_event_id: Returns the id of the stored event with a session and a number; None if there is none.
    """
    base = {"session": event.client, "number": event.seq, "dwell_ms": min(max(event.dwell_ms, 0), MAX_DWELL_MS)}
    if isinstance(event, VerdictEvent):
        remarks = {"reason": event.reason, "note": event.note}
        return base | remarks | {"action": event.decision, "finding": event.finding, "label": event.label}
    if isinstance(event, MissedEvent):
        fields = {"action": "missed", "finding": build_added_id(event), "details": _describe_added(event, labels)}
        return base | fields | {"reason": event.reason, "note": event.note}
    if isinstance(event, MeasureEvent):
        details = event.model_dump_json(include={"plane", "long", "short"})
        return base | {"action": "measure", "finding": event.finding, "details": details}
    if isinstance(event, StrokeEvent):
        details = json.dumps({"assist": event.assist.model_dump()}) if event.assist else ""
        fields = {"action": "stroke", "finding": event.finding or "", "details": details}
        return base | fields | {"mask": pack_runs(event.runs)}
    if isinstance(event, UndoEvent):
        return base | {"action": "undo", "target": find_event_id(event.target_client, event.target_seq)}
    return base | {"action": event.kind} | ({"seen": event.screen} if isinstance(event, SignEvent) else {})


def build_added_id(event: MissedEvent) -> str:
    """Returns the identifier of a finding that a reader adds."""
    return f"reader-{event.client[:8]}-{event.seq}"


def format_event_id(client: str, seq: int) -> str:
    """Returns the identity of an event among those of all pages, as the browser writes it."""
    return f"{client}-{seq}"


def list_drawn(reading: Reading) -> list[str]:
    """Returns the identities of the strokes in effect, in order."""
    return [format_event_id(stroke.session, stroke.number) for stroke in reading.strokes]


def describe_record(reading: Reading, findings: Iterable[Finding]) -> dict[str, Any]:
    """Returns the strokes, and the verdicts on the findings, in the form in which the browser describes its screen."""
    decided = {finding.id: reading.verdicts[finding.id] for finding in findings if finding.id in reading.verdicts}
    return {"drawn": list_drawn(reading), "decisions": {name: verdict.decision for name, verdict in decided.items()}}


def _describe_added(event: MissedEvent, labels: Sequence[LabelDef]) -> str:
    """Returns an added finding as JSON; its size is unknown until it is drawn."""
    position = dict.fromkeys(("centre_mm", "low_mm", "high_mm"), event.centre_mm)
    name = next((label.name for label in labels if label.value == event.label), "finding")
    sizes = {"volume_ml": 0.0, "diameter_mm": 0.0, "score": 1.0}
    return json.dumps(position | sizes | {"label": event.label, "name": name})
