"""What a click costs the server: runs of the page, bytes, events read; counted, so that no busy machine matters."""

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
from medssl.review.event_store import Store
from medssl.viewer import component
from tests.app.conftest import ROOT


class Tab:
    """A browser's side of the websocket, on the first case."""

    def __init__(self, socket):
        self.socket, self.page, self.sent = socket, "", 0
        self.run()

    def run(self, *events):
        """Tells the viewer's events, as one; what the server says to it."""
        asked = BackMsg()
        asked.rerun_script.query_string = "case=1"
        if self.page:
            asked.rerun_script.page_script_hash = self.page
            widget = asked.rerun_script.widget_states.widgets.add()
            widget.id = f"$$STREAMLIT_INTERNAL_KEY_{self.viewer}__events"
            widget.json_trigger_value = json.dumps([{"event": "events", "value": events}])
        else:
            asked.rerun_script.page_name = "case"
        self.socket.send_bytes(asked.SerializeToString())
        said = []
        while not said or said[-1].WhichOneof("type") != "script_finished":
            said.append(ForwardMsg.FromString(self.socket.receive_bytes()))
        self._note(said)
        return said

    def _note(self, said):
        self.page = next(m.navigation.page_script_hash for m in said if m.WhichOneof("type") == "navigation")
        drawn = [m.delta.new_element for m in said if m.WhichOneof("type") == "delta"]
        (viewer,) = (e.bidi_component for e in drawn if e.WhichOneof("type") == "bidi_component")
        self.viewer = viewer.id
        self.told = json.loads(viewer.mixed.json if viewer.WhichOneof("data") == "mixed" else viewer.json)

    def decide(self, finding, decision="accept", **more):
        self.sent += 1
        event = {"client": "c", "seq": self.sent, "at": "", "kind": "verdict", "finding": finding}
        return self.run(event | {"decision": decision, "dwell_ms": 1, "reason": "", "note": ""} | more)


@pytest.fixture
def tab(opened, monkeypatch):
    """A case as the server shows it, with the settings that it is served with."""
    monkeypatch.setattr(Runtime, "_instance", None)  # one a process, and a stopped one stays there
    component._element.cache_clear()
    monkeypatch.setattr(config, "_main_script_path", str(ROOT / "app" / "asgi.py"))
    config.get_config_options(force_reparse=True)
    with warnings.catch_warnings(action="ignore"):  # it prefers a client that is not on every machine
        from starlette.testclient import TestClient
    app = st.App(ROOT / "app" / "script" / "entry.py")
    wire = {"url": "/_stcore/stream", "subprotocols": ["streamlit"]}
    with TestClient(app) as client, client.websocket_connect(**wire) as socket:
        yield Tab(socket)
        sessions = [known.session for known in Runtime.instance()._session_mgr.list_sessions()]
        while any(session._scriptrunner for session in sessions):
            time.sleep(0.01)
    for session in sessions:
        session._script_event_loop.close()  # a server that stops does not always come to it
    monkeypatch.undo()
    component._element.cache_clear()
    config.get_config_options(force_reparse=True)


def test_a_verdict_is_one_run_of_the_page_that_says_what_changed_in_a_few_words(tab, opened):
    said = tab.decide("case-a-1-1", next="case-a-1-2")
    assert (tab.told["acked_seq"], tab.told["selected"]) == (1, "case-a-1-2")
    assert [finding["decision"] for finding in tab.told["findings"]] == ["accept", None]
    assert len(said) <= 24
    assert sum(message.ByteSize() for message in said) < 12_000
    assert [e.action for e in Store(opened.store).events()] == ["open", "accept"]


def test_an_edit_leaves_the_reader_where_they_are(tab):
    tab.decide("case-a-1-1", "edit", next="case-a-1-1")
    assert tab.told["selected"] == "case-a-1-1"


def test_no_run_walks_through_all_memory(tab, monkeypatch):
    """Streamlit does so after each run unless it is told not to: four fifths of a verdict."""
    walks = []
    monkeypatch.setattr(gc, "collect", lambda *generation: walks.append(generation))
    tab.decide("case-a-1-1")
    assert walks == []


def test_a_verdict_after_many_reads_no_more_events_than_the_first(tab, opened):
    for n in range(40):
        base = {"session": "before", "number": n, "case": f"case-{'ab'[n % 2]}", "reviewer": "ben", "role": "reader"}
        Store(opened.store).record(Act(**base, action="accept", finding="f"))
    tab.decide("case-a-1-1")
    read = []
    note = lambda event, _: read.append(event.id)  # noqa: E731
    on.listen(Event, "load", note)
    tab.decide("case-a-1-2")
    on.remove(Event, "load", note)
    last = Store(opened.store).events()[-1].id
    assert set(read) <= {last - 1, last} and len(read) <= 4


def test_what_another_reader_does_is_seen_at_the_next_click(tab, opened):
    act = Act(session="t", number=1, case="case-a", reviewer="ben", role="reader", action="open")
    Store(opened.store).record(act)
    assert "ben has it open since" in str(tab.decide("case-a-1-1"))
