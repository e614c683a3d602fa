"""Every page shows its state, explains what to do and records the acts of the reader."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from medssl.review.event import Act
from medssl.review.event_store import EventStore
from medssl.review.mask_runs import pack_runs

ROOT = Path(__file__).resolve().parents[2]
NOTICE = "Research use only. Not for clinical use."


def start(query: dict[str, str] | None = None) -> AppTest:
    app = AppTest.from_file(ROOT / "app" / "main.py", default_timeout=60)
    for key, value in (query or {}).items():
        app.query_params[key] = value
    return require_no_exception(app.run())


def require_no_exception(app: AppTest) -> AppTest:
    assert not app.exception, app.exception
    return app


def text(app: AppTest) -> str:
    return " ".join(str(element.proto) for element in app.main if element.type == "html") + " ".join(
        str(e.proto.body) for e in app.get("html")
    )


def case(number: int) -> AppTest:
    """The case page, as its own script."""

    def script(number: int) -> None:
        import streamlit as st

        from app import auth, review_context, theme
        from app.act_recorder import ActRecorder
        from app.image_urls import ImageUrls
        from app.pages import case

        st.query_params["case"] = str(number)
        config = review_context.read_config()
        reviewer = auth.require_reviewer(config)
        theme.render_header(config, reviewer)
        context = review_context.load_context(reviewer)
        recorder, urls = ActRecorder.from_context(context), ImageUrls.from_context(context)
        case.render_page(context, recorder, urls, st.Page(lambda: None, title="x"))

    return require_no_exception(AppTest.from_function(script, args=(number,), default_timeout=60).run())


def send(number: int, *events: dict) -> dict:
    """Sends events of the viewer of a case and returns the answer of the server."""

    def script(number: int, events: list) -> None:
        import streamlit as st

        from app import auth, review_context
        from app.act_recorder import ActRecorder
        from app.viewer_inbox import ViewerInbox

        context = review_context.load_context(auth.require_reviewer(review_context.read_config()))
        inbox = ViewerInbox(context, ActRecorder.from_context(context), number)
        inbox.receive(events)
        st.session_state["answer"] = inbox.answer

    numbered = [{"client": "c", "seq": n, "at": ""} | event for n, event in enumerate(events, 1)]
    app = AppTest.from_function(script, args=(number, numbered), default_timeout=60)
    return require_no_exception(app.run()).session_state["answer"]


def verdict(finding: str, decision: str = "accept", **fields) -> dict:
    return {"kind": "verdict", "finding": finding, "decision": decision, **fields}


def sign(decisions: dict, drawn: tuple = ()) -> dict:
    return {"kind": "sign", "screen": {"drawn": list(drawn), "decisions": decisions}}


def list_actions(access) -> list[str]:
    return [event.action for event in EventStore(access.audit_db).read_events()]


def button(app: AppTest, label: str):
    return next(b for b in app.button if b.label == label)


def labels(app: AppTest) -> list[str]:
    return [b.label for b in app.button]


def decide(access, finding: str, number: int, action: str = "accept", case: str = "case-a", **fields) -> None:
    base = {"session": "viewer", "number": number, "case": case, "reviewer": "ana", "role": "reader"}
    EventStore(access.audit_db).record(Act(**(base | fields), action=action, finding=finding))


def test_the_worklist_shows_every_case_and_the_notice(app_config):
    app = start()
    assert all(
        name in text(app) for name in ("case-a", "case-b", "case-c", NOTICE, "LOCAL MODE", "0 of 3 cases signed")
    )
    assert labels(app).count("Read") == 3


def test_a_started_case_is_offered_first(app_config):
    decide(app_config, "case-b-1-1", 1, case="case-b")
    app = start()
    assert "Resume reading" in labels(app) and "Resume" in labels(app)
    assert text(app).index("case-b") < text(app).index("case-a")


def test_filters_narrow_the_list_and_an_empty_list_has_a_message(app_config):
    app = start()
    app.text_input[0].set_value("zzz")
    assert "No case matches" in text(require_no_exception(app.run()))


def test_a_signed_worklist_is_a_done_state(app_config):
    for n, name in enumerate(("case-a", "case-b", "case-c")):
        decide(app_config, "", n, "sign", name, details="[]")
    assert "All cases are signed" in text(start())


def test_a_case_is_signed_by_the_server_s_own_list_of_findings(app_config):
    decisions = {"case-a-1-1": "accept"}
    answer = send(1, verdict("case-a-1-1"), sign(decisions), verdict("case-a-1-2"))
    assert answer["acked"] == ("c-1",) and answer["refused"]["id"] == "c-2"
    assert "1 finding without a verdict: case-a-1-2" in answer["refused"]["reason"]
    assert list_actions(app_config) == ["accept"]
    events = (
        verdict("case-a-1-1"),
        verdict("case-a-1-2") | {"seq": 4},
        sign(decisions | {"case-a-1-2": "accept"}) | {"seq": 5},
    )
    assert send(1, *events)["refused"] is None
    app = case(1)
    assert "Signed 20" in text(app) and viewer_data(app)["case"]["has_next"]
    last = EventStore(app_config.audit_db).read_events()[-1]
    assert last.action == "sign" and json.loads(last.details) == ["case-a-1-1", "case-a-1-2"]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (verdict("case-a-1-1", "sign"), "cannot read it"),
        (verdict("case-a-1-1", "bogus"), "cannot read it"),
        (verdict("zzz"), "'zzz' is not in this case"),
        ({"kind": "stroke", "runs": [[10**12, 1, 1]]}, "leaves the image"),
        ({"kind": "undo", "of": 7, "of_client": "c"}, "nothing to undo"),
        ({"kind": "deliver"}, "you may not export"),
        ({"kind": "nonsense"}, "cannot read it"),
    ],
)
def test_a_forged_event_is_refused_with_words_and_the_case_stays_readable(app_config, event, reason):
    answer = send(1, event, verdict("case-a-1-1"))
    assert answer["acked"] == () and reason in answer["refused"]["reason"]
    assert list_actions(app_config) == [] and viewer_data(case(1))["findings"]


def test_undo_takes_back_the_act_of_the_tab_that_asks(app_config):
    stroke = {"kind": "stroke", "runs": [[0, 1, 1]]}
    send(1, stroke | {"client": "a"}, stroke | {"client": "b", "seq": 1}, {"kind": "undo", "of": 1, "of_client": "a"})
    events = EventStore(app_config.audit_db).read_events()
    assert [(e.session, e.action, e.target) for e in events] == [("a", "stroke", None), ("b", "stroke", None),
                                                                 ("c", "undo", 1)]  # fmt: skip
    data = viewer_data(case(1))
    assert (data["drawn"], data["undoable"]) == (["b-1"], ["b-1"])


def test_what_arrives_twice_is_stored_once_and_answered_twice(app_config):
    for _ in range(2):
        undo = {"kind": "undo", "of": 1, "of_client": "c"}
        assert send(1, verdict("case-a-1-1"), undo)["acked"] == ("c-1", "c-2")
    assert list_actions(app_config) == ["accept", "undo"]


def test_an_act_that_is_stored_but_cannot_be_used_is_named_on_the_page(app_config):
    decide(app_config, "", 1, "stroke", mask=pack_runs([[10**12, 1, 1]]))
    decide(app_config, "m", 2, "missed", details="{}")
    warnings = [warning.value for warning in case(1).warning]
    assert "event 2 (missed)" in warnings[0] and "event 1 (stroke) does not fit this image" in warnings[1]


def test_a_finding_can_be_given_another_label(app_config):
    send(2, verdict("case-b-1-1", "relabel", label=2, reason="wrong label", note="a cyst"))
    last = EventStore(app_config.audit_db).read_events()[-1]
    assert (last.action, last.label, last.finding) == ("relabel", 2, "case-b-1-1")
    assert (last.reason, last.note) == ("wrong label", "a cyst")
    (finding,) = viewer_data(case(2))["findings"]
    assert (finding["decision"], finding["relabelled"]) == ("relabel", 2)


@pytest.mark.parametrize(
    ("threshold", "shown_text"),
    [(None, "0.80<"), (0.5, "0.80, reaches the threshold of 0.50"), (0.9, "0.80, is below the threshold of 0.90")],
)
def test_a_finding_shows_whether_its_score_reaches_the_threshold(app_config, threshold, shown_text):
    path = Path(app_config.predictions) / "index.json"
    index = json.loads(path.read_text())
    names = [label["name"] for label in index["labels"]]
    path.write_text(json.dumps(index | {"thresholds": dict.fromkeys(names, threshold) if threshold else {}}))
    findings = Path(app_config.predictions) / "case-a" / "findings.json"
    findings.write_text(json.dumps([row | {"score": 0.8} for row in json.loads(findings.read_text())]))
    assert shown_text in text(case(1))


def test_the_viewer_gets_links_findings_and_no_voxels(app_config):
    app = case(1)
    proto = str(next(e.proto for e in app.main if "viewer" in str(e.proto)))
    assert "/api/volume/1.image." in proto and "case-a-1-2" in proto
    assert len(proto.split("json:")[-1]) < 8000


def viewer_data(app: AppTest) -> dict:
    """The data that the viewer receives."""
    proto = next(e.proto for e in app.get("bidi_component"))
    return json.loads(proto.mixed.json if proto.WhichOneof("data") == "mixed" else proto.json)


def test_the_prior_is_shown_with_the_growth_of_its_findings(app_config, predictions):
    index = json.loads((predictions / "index.json").read_text())
    for scan, date in zip(index["cases"][:2], ("20240901", "20240302"), strict=True):
        scan |= {"patient": "p", "date": date}
    (predictions / "index.json").write_text(json.dumps(index))
    findings = json.loads((predictions / "case-b" / "findings.json").read_text())
    before = json.loads((predictions / "case-a" / "findings.json").read_text())[0]
    findings[0] |= {"centre_mm": before["centre_mm"], "volume_ml": before["volume_ml"] / 2}
    (predictions / "case-b" / "findings.json").write_text(json.dumps(findings))
    (entry,) = viewer_data(page := case(1))["comparisons"]
    assert entry["name"] == "Prior 2024-03-02" and entry["volume"].startswith("/api/volume/2.image.")
    growth = "+100 % volume, +0 % diameter in 183 days; volume doubling time 183 days"
    assert entry["pairs"]["case-a-1-1"]["text"] == growth
    assert list(entry["pairs"]) == ["case-a-1-1"] and entry["unmatched"] == []
    assert viewer_data(page)["name"] == "case-a  2024-09-01"
    assert viewer_data(case(2))["comparisons"] == []


def test_another_model_is_shown_as_a_comparison(app_config, predictions, monkeypatch):
    other_model = predictions.with_name("other-model")
    shutil.copytree(predictions, other_model)
    findings = json.loads((other_model / "case-a" / "findings.json").read_text())
    (other_model / "case-a" / "findings.json").write_text(json.dumps(findings[1:]))
    for name, value in app_config.model_copy(update={"comparison": str(other_model)}).to_environment().items():
        monkeypatch.setenv(name, value)
    data = viewer_data(case(1))
    (entry,) = data["comparisons"]
    assert entry["volume"] == data["volume"] and "/api/volume/1.comparison." in entry["overlay"]
    assert (
        list(entry["pairs"]) == ["case-a-1-2"]
        and entry["unpaired_text"] == "not found by other-model"
        and entry["unmatched"] == []
    )


def test_a_case_open_by_another_reader_is_marked_without_their_verdicts(app_config):
    decide(app_config, "", 1, "open", reviewer="ben")
    decide(app_config, "case-a-1-1", 2, "reject", reviewer="ben")
    worklist = text(start())
    assert "open by ben since" in worklist and "0 of 2" in worklist
    page = case(1)
    assert "open by ben since" in text(page)
    assert [finding["decision"] for finding in viewer_data(page)["findings"]] == [None, None]


def test_opening_a_case_is_stored_once(app_config):
    page = case(1)
    require_no_exception(page.run())
    assert [(e.action, e.case, e.reviewer) for e in EventStore(app_config.audit_db).read_events()] == [
        ("open", "case-a", "ana")
    ]


def test_leaving_a_case_is_stored_once_and_only_if_it_was_open_here(app_config):
    app = case(1)
    for where in ("", "", "case-b"):

        def leave(where: str) -> None:
            from app import auth, review_context, visits
            from app.act_recorder import ActRecorder

            context = review_context.load_context(auth.require_reviewer(review_context.read_config()))
            visits.leave_other_case(context, ActRecorder.from_context(context), where)

        later = AppTest.from_function(leave, args=(where,), default_timeout=60)
        for key in ("shown_case", "session", "number", "last_seen"):
            later.session_state[key] = app.session_state[key]
        app = require_no_exception(later.run())
    events = [(event.action, event.case) for event in EventStore(app_config.audit_db).read_events()]
    assert events == [("open", "case-a"), ("close", "case-a")]


def test_a_signature_is_shown_with_its_meaning(app_config):
    decide(app_config, "case-b-1-1", 1, case="case-b")
    decide(app_config, "", 2, "sign", case="case-b", role="senior", details="[]")
    assert "UTC as approved" in text(case(2))


@pytest.mark.parametrize("number", ["", "0", "99", "-1", "x"])
def test_an_unknown_case_shows_a_message(app_config, number):
    assert "No case is open" in text(case(number))


def test_an_unfinished_prediction_names_what_is_missing(app_config, predictions):
    index = json.loads((predictions / "index.json").read_text())
    index |= {
        "requested": [*(case["id"] for case in index["cases"]), "case-x", "case-y"],
        "failed": {"case-x": "is torn"},
    }
    (predictions / "index.json").write_text(json.dumps(index))
    warning = start().warning[0].value.replace("\\", "")  # Markdown is escaped
    assert warning == "2 of 5 requested cases have no prediction. case-x: is torn; case-y: not predicted yet"


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("[{}]")])
def test_a_case_with_damaged_findings_is_named_and_the_others_can_be_read(app_config, predictions, damage):
    damage(predictions / "case-b" / "findings.json")
    app = start()
    assert app.error[0].value.replace("\\", "").startswith("Findings missing or damaged: case-b.")
    assert labels(app).count("Read") == 2 and "0 of 2 cases signed" in text(app)


def test_missing_predictions_are_named_on_the_page(app_config, predictions):
    (predictions / "index.json").unlink()
    assert "No predictions to read" in text(start())


def test_a_stranger_sees_no_case(access, monkeypatch):
    proxied = access.model_copy(update={"mode": "proxy", "proxy_secret": "s" * 16, "roles": {"ana": "reader"}})
    for name, value in proxied.to_environment().items():
        monkeypatch.setenv(name, value)
    app = start()
    assert "Not signed in" in text(app) and "case-a" not in text(app)


def test_an_idle_reader_must_continue_before_anything_is_shown(app_config):
    app = AppTest.from_file(ROOT / "app" / "main.py", default_timeout=60)
    app.session_state["last_seen"] = 1.0
    app = require_no_exception(app.run())
    assert "Paused" in text(app) and "case-a" not in text(app)
    app.button[0].click()
    assert "case-a" in text(require_no_exception(app.run()))


def test_the_app_loads_no_torch():
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in (ROOT / "app").rglob("*.py")]
    names = ", ".join(m for m in modules if m not in ("app.script.entry", "app.asgi") and "__init__" not in m)
    code = f"import sys, {names}; print([m for m in ('torch', 'monai') if m in sys.modules])"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def agreement() -> AppTest:
    """The agreement page, as its own script."""

    def script() -> None:
        from app import auth, review_context
        from app.pages import agreement

        agreement.render_page(review_context.load_context(auth.require_reviewer(review_context.read_config())))

    return require_no_exception(AppTest.from_function(script, default_timeout=60).run())


def test_two_signed_readings_are_compared(app_config):
    assert "No case has two signed readings" in text(agreement())
    for n, (reader, action) in enumerate((("ana", "accept"), ("ben", "reject"))):
        decide(app_config, "case-b-1-1", 2 * n, action, "case-b", reviewer=reader)
        decide(app_config, "", 2 * n + 1, "sign", "case-b", reviewer=reader)
    app = agreement()
    assert "0 of 1 findings with the same verdict" in text(app) and "ben: rejected" in text(app)
    assert "<span>nodule</span><span>0.000</span>" in text(app)
    assert "data:image/png" in text(app) and "Fleiss" not in text(app)


def test_three_readers_get_a_kappa_together_and_the_most_disputed_case_comes_first(app_config):
    decisions = {"case-a": ("accept", "accept", "accept"), "case-b": ("accept", "reject", "accept")}
    for case, actions in decisions.items():
        for n, (reader, action) in enumerate(zip(("ana", "ben", "eve"), actions, strict=True)):
            decide(app_config, f"{case}-1-1", 10 * n + 1, action, case, reviewer=reader, session=f"{reader}-{case}")
            decide(app_config, "", 10 * n + 2, "sign", case, reviewer=reader, session=f"{reader}-{case}")
    app = agreement()
    assert "3 readers" in text(app) and "-0.20 <small>Fleiss" in text(app)
    assert app.selectbox[0].options == ["case-b", "case-a"]
    assert all(pair in text(app) for pair in ("ana and ben", "ana and eve", "ben and eve"))
    app.selectbox[0].set_value("case-a")
    assert "All readers have the same mask" in text(require_no_exception(app.run()))


def adjudication() -> AppTest:
    """The adjudication page, as its own script."""

    def script() -> None:
        from app import auth, review_context
        from app.pages import adjudication

        adjudication.render_page(review_context.load_context(auth.require_reviewer(review_context.read_config())))

    return require_no_exception(AppTest.from_function(script, default_timeout=60).run())


def let_two_readers_differ(config) -> None:
    for n, (reader, action) in enumerate((("ben", "accept"), ("eve", "reject"))):
        decide(config, "case-b-1-1", 2 * n, action, "case-b", reviewer=reader, note=f"<b>{reader}", session="two")
        decide(config, "", 2 * n + 1, "sign", "case-b", reviewer=reader, session="two")


def test_a_senior_decides_between_two_readers_and_signs(app_config, monkeypatch):
    for name, value in app_config.model_copy(update={"role": "senior"}).to_environment().items():
        monkeypatch.setenv(name, value)
    assert "No readers differ" in text(adjudication())
    let_two_readers_differ(app_config)
    app = adjudication()
    assert "<b>ben</b>: accepted" in text(app) and "<b>eve</b>: rejected" in text(app)
    assert "data:image/png" in text(app) and "&lt;b&gt;eve" in text(app)
    take_ben, take_eve, sign = app.button
    assert (take_ben.label, take_eve.label, sign.disabled) == ("Take: ben", "Take: eve", True)
    app = require_no_exception(take_eve.click().run())
    assert app.button[1].label == "Chosen: eve" and not app.button[2].disabled
    app = require_no_exception(app.button[2].click().run())
    assert "Consensus signed by ana" in text(app)
    events = EventStore(app_config.audit_db).read_events()
    assert [event.action for event in events[-2:]] == ["adjudicate", "consensus"]
    assert json.loads(events[-1].details)["choices"] == {"case-b-1-1": "eve"}
    assert (events[-1].reviewer, events[-1].meaning) == ("ana", "consensus")


def test_a_senior_who_read_the_case_sees_nothing_of_the_others_there(app_config, monkeypatch):
    for name, value in app_config.model_copy(update={"role": "senior", "reviewer": "eve"}).to_environment().items():
        monkeypatch.setenv(name, value)
    let_two_readers_differ(app_config)
    app = adjudication()
    assert "You are one of the readers" in text(app) and "accepted" not in text(app) and not app.button


def drift() -> AppTest:
    """The drift page, as its own script."""

    def script() -> None:
        from app import auth, review_context
        from app.pages import drift

        drift.render_page(review_context.load_context(auth.require_reviewer(review_context.read_config())))

    return require_no_exception(AppTest.from_function(script, default_timeout=60).run())


def test_drift_counts_signed_cases_by_group_and_is_exported(app_config, monkeypatch):
    assert "No signed case yet" in text(drift())
    decide(app_config, "case-a-1-1", 1)
    decide(app_config, "case-a-1-2", 2, "reject")
    decide(app_config, "", 3, "sign")
    let_two_readers_differ(app_config)
    app = drift()
    assert "50% (1)" in text(app) and "a 00000000" in text(app)
    assert "1 signed cases do not count" in app.warning[0].value and "ben and eve differ" in app.warning[0].value
    app = require_no_exception(app.segmented_control[0].set_value("site").run())
    assert "unknown" in text(app) and "--manifest" in text(app)


def test_drift_reads_sites_from_a_manifest(app_config, monkeypatch, tmp_path):
    from app.pages import drift as page
    from medssl.review.monitoring.drift import CaseGroup

    monkeypatch.setattr(page, "_load_groups", lambda manifest: {"case-a": CaseGroup(site="<b>north")})
    for number, (action, finding) in enumerate([("accept", "case-a-1-1"), ("accept", "case-a-1-2"), ("sign", "")]):
        decide(app_config, finding, number, action)
    app = require_no_exception(drift().segmented_control[0].set_value("site").run())
    assert "&lt;b&gt;north" in text(app)


@pytest.mark.parametrize(("role", "count"), [("reader", 2), ("admin", 3), ("senior", 5)])
def test_only_seniors_have_the_page_of_adjudication(app_config, role, count):
    from app.main import build_pages
    from app.review_context import load_context
    from medssl.review.access.reviewers import Reviewer

    assert len(build_pages(load_context(Reviewer("ana", role)))) == count


@pytest.mark.parametrize(("step", "acts"), [("2 of 5", []), ("3 of 5", ["accept"]), ("4 of 5", ["accept", "reject"])])
def test_the_tour_knows_how_far_the_reader_is(app_config, monkeypatch, step, acts):
    for name, value in app_config.model_copy(update={"guided_tour": True}).to_environment().items():
        monkeypatch.setenv(name, value)
    for n, action in enumerate(acts, 1):
        decide(app_config, f"case-a-1-{n}", n, action)
    app = case(1)
    assert step in app.markdown[0].value
    button(app, "End the tour").click()
    assert "of 5" not in " ".join(m.value for m in require_no_exception(app.run()).markdown)
