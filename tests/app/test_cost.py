"""A click costs a known number of page runs, bytes and events, which are counted and not timed."""

import gc
import json
import time
import warnings

import pytest
import streamlit as st
from sqlalchemy import event as on
from streamlit import config
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime import Runtime

from medssl.review.event import Act, Event
from medssl.review.event_store import EventStore
from medssl.viewer import component
from tests.app.conftest import ROOT


class Tab:
    """A browser's side of the websocket, on the first case."""

    def __init__(self, socket):
        self.socket, self.page, self.sent = socket, "", 0
        self.run()

    def run(self, *events):
        """Sends the viewer's events together and returns the messages of the server."""
        request = BackMsg()
        request.rerun_script.query_string = "case=1"
        if self.page:
            request.rerun_script.page_script_hash = self.page
            widget = request.rerun_script.widget_states.widgets.add()
            widget.id = f"$$STREAMLIT_INTERNAL_KEY_{self.viewer}__events"
            widget.json_trigger_value = json.dumps([{"event": "events", "value": events}])
        else:
            request.rerun_script.page_name = "case"
        self.socket.send_bytes(request.SerializeToString())
        messages = []
        while not messages or messages[-1].WhichOneof("type") != "script_finished":
            messages.append(ForwardMsg.FromString(self.socket.receive_bytes()))
        self._read_messages(messages)
        return messages

    def _read_messages(self, messages):
        self.page = next(m.navigation.page_script_hash for m in messages if m.WhichOneof("type") == "navigation")
        elements = [m.delta.new_element for m in messages if m.WhichOneof("type") == "delta"]
        (viewer,) = (e.bidi_component for e in elements if e.WhichOneof("type") == "bidi_component")
        self.viewer = viewer.id
        self.data = json.loads(viewer.mixed.json if viewer.WhichOneof("data") == "mixed" else viewer.json)

    def decide(self, finding, decision="accept", **more):
        self.sent += 1
        event = {"client": "c", "seq": self.sent, "at": "", "kind": "verdict", "finding": finding}
        return self.run(event | {"decision": decision, "dwell_ms": 1, "reason": "", "note": ""} | more)


@pytest.fixture
def tab(app_config, monkeypatch):
    """A case as the server shows it, with the settings that it is served with."""
    monkeypatch.setattr(Runtime, "_instance", None)  # one a process, and a stopped one stays there
    component._create_component.cache_clear()
    monkeypatch.setattr(config, "_main_script_path", str(ROOT / "app" / "asgi.py"))
    config.get_config_options(force_reparse=True)
    with warnings.catch_warnings(action="ignore"):  # it prefers a client that is not on every machine
        from starlette.testclient import TestClient
    app = st.App(ROOT / "app" / "script" / "entry.py")
    wire = {"url": "/_stcore/stream", "subprotocols": ["streamlit"]}
    with TestClient(app) as client, client.websocket_connect(**wire) as socket:
        yield Tab(socket)
        sessions = [info.session for info in Runtime.instance()._session_mgr.list_sessions()]
        while any(session._scriptrunner for session in sessions):
            time.sleep(0.01)
    for session in sessions:
        session._script_event_loop.close()  # a server that stops does not always come to it
    monkeypatch.undo()
    component._create_component.cache_clear()
    config.get_config_options(force_reparse=True)


def test_a_verdict_is_one_small_run_of_the_page(tab, app_config):
    messages = tab.decide("case-a-1-1", next="case-a-1-2")
    assert (tab.data["acked"], tab.data["selected"]) == (["c-1"], "case-a-1-2")
    assert [finding["decision"] for finding in tab.data["findings"]] == ["accept", None]
    assert len(messages) <= 24
    assert sum(message.ByteSize() for message in messages) < 12_000
    assert [e.action for e in EventStore(app_config.audit_db).read_events()] == ["open", "accept"]


def test_an_edit_leaves_the_reader_where_they_are(tab):
    tab.decide("case-a-1-1", "edit", next="case-a-1-1")
    assert tab.data["selected"] == "case-a-1-1"


def test_no_run_walks_through_all_memory(tab, monkeypatch):
    """Streamlit does so after each run unless it is configured otherwise: four fifths of the time of a verdict."""
    walks = []
    monkeypatch.setattr(gc, "collect", lambda *generation: walks.append(generation))
    tab.decide("case-a-1-1")
    assert walks == []


def test_a_verdict_after_many_reads_no_more_events_than_the_first(tab, app_config):
    for n in range(40):
        base = {"session": "before", "number": n, "case": f"case-{'ab'[n % 2]}", "reviewer": "ben", "role": "reader"}
        EventStore(app_config.audit_db).record(Act(**base, action="accept", finding="f"))
    tab.decide("case-a-1-1")
    read = []
    note = lambda event, _: read.append(event.id)  # noqa: E731
    on.listen(Event, "load", note)
    tab.decide("case-a-1-2")
    on.remove(Event, "load", note)
    last = EventStore(app_config.audit_db).read_events()[-1].id
    assert set(read) <= {last - 1, last} and len(read) <= 4


def test_what_another_reader_does_is_seen_at_the_next_click(tab, app_config):
    act = Act(session="t", number=1, case="case-a", reviewer="ben", role="reader", action="open")
    EventStore(app_config.audit_db).record(act)
    assert "open by ben since" in str(tab.decide("case-a-1-1"))
