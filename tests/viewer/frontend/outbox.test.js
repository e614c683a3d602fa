import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { Outbox, eventId, listWaitingCases } from "../../../medssl/viewer/frontend/outbox.js";
import { resetStorages } from "./browser.js";

let sent = [];

function open(key = "case") {
  return new Outbox(
    key,
    (events) => sent.push(events.map(({ kind }) => kind)),
    () => null,
  );
}

const stroke = { kind: "stroke", runs: [[0, 1, 1]] };
const acknowledge = (outbox, ...events) => outbox.receive({ acked: events.map(eventId), refused: null });
const refuse = (outbox, event) => outbox.receive({ acked: [], refused: { id: eventId(event), reason: "signed" } });

beforeEach(() => {
  resetStorages();
  sent = [];
  mock.timers.reset();
  mock.timers.enable(["setTimeout"]);
});

test("events are numbered, and sent in order until each of them is acknowledged", () => {
  const outbox = open();
  const [first, second] = [outbox.add({ kind: "verdict" }), outbox.add(stroke)];
  assert.deepEqual([first.seq, second.seq], [1, 2]);
  assert.deepEqual(sent, [["verdict"], ["verdict", "stroke"]]);
  mock.timers.tick(3000);
  assert.deepEqual(sent.at(-1), ["verdict", "stroke"]);
  acknowledge(outbox, first);
  mock.timers.tick(15000);
  assert.deepEqual(sent.at(-1), ["stroke"]);
  acknowledge(outbox, second);
  const count = sent.length;
  mock.timers.tick(60000);
  assert.deepEqual([sent.length, outbox.pending], [count, []]);
});

test("a number of another page acknowledges nothing here", () => {
  const outbox = open();
  const event = outbox.add(stroke);
  acknowledge(outbox, { client: "another", seq: event.seq });
  assert.equal(outbox.pending.length, 1);
});

test("a signature waits in line behind a stroke, and is sent after it also when the server was away", () => {
  const outbox = open();
  outbox.add(stroke);
  outbox.add({ kind: "sign" });
  mock.timers.tick(30000);
  assert.ok(sent.slice(1).every((kinds) => String(kinds) === "stroke,sign"));
});

test("what waits outlives the tab and is sent when the case is opened again, by another identity", () => {
  const before = open();
  before.add({ kind: "verdict" });
  before.add(stroke);
  before.close();
  globalThis.sessionStorage = undefined; // it dies with the tab
  sent = [];
  const after = open();
  assert.deepEqual(sent, [["verdict", "stroke"]]);
  assert.notEqual(after.client, before.client);
  assert.ok(after.pending.every(({ client }) => client === before.client));
  assert.equal(after.add({ kind: "verdict" }).seq, 1);
  acknowledge(after, ...after.pending);
  assert.deepEqual(open().pending, []);
});

test("readers, event logs and cases do not share what waits", () => {
  open("ana-1").add(stroke);
  open("ana-12").add(stroke);
  assert.deepEqual(open("ana-2").pending, []);
  assert.equal(open("ana-1").pending.length, 1);
  assert.deepEqual(listWaitingCases("ana-").sort(), ["ana-1", "ana-12"]);
  assert.deepEqual(listWaitingCases("ben-"), []);
});

test("a tab that takes over what another tab keeps does not remove what that tab adds later", () => {
  const [first] = [open()];
  const early = first.add({ kind: "verdict" });
  const second = open();
  first.add(stroke);
  acknowledge(second, early);
  assert.deepEqual(
    open().pending.map(({ kind }) => kind),
    ["stroke"],
  );
});

test("a refused event stays, holds back those behind it, and is sent again only when the reader asks", () => {
  const outbox = open();
  const event = outbox.add(stroke);
  outbox.add({ kind: "sign" });
  refuse(outbox, event);
  const count = sent.length;
  mock.timers.tick(60000);
  outbox.add({ kind: "verdict" });
  assert.deepEqual([sent.length, outbox.pending.length, outbox.refusal.reason], [count, 3, "signed"]);
  outbox.retry();
  assert.deepEqual([sent.at(-1), outbox.refusal], [["stroke", "sign", "verdict"], null]);
});

test("a refused event that is discarded goes with its undo, and the others are sent", () => {
  const outbox = open();
  const event = outbox.add(stroke);
  outbox.add({ kind: "undo", of: event.seq, of_client: event.client });
  outbox.add({ kind: "verdict" });
  refuse(outbox, event);
  assert.deepEqual(
    outbox.discard().map(({ kind }) => kind),
    ["stroke", "undo"],
  );
  assert.deepEqual(sent.at(-1), ["verdict"]);
  assert.deepEqual(open().pending.length, 1);
});

test("a reading is reopened before the change that was refused because of its signature", () => {
  const outbox = open();
  refuse(outbox, outbox.add(stroke));
  outbox.addFirst({ kind: "reopen" });
  assert.deepEqual([sent.at(-1), outbox.refusal], [["reopen", "stroke"], null]);
});

test("only the last selection is worth sending, and none is worth keeping", () => {
  const outbox = open();
  outbox.add({ kind: "select", finding: "a" });
  outbox.add({ kind: "verdict" });
  outbox.add({ kind: "select", finding: "b" });
  assert.deepEqual(
    outbox.pending.map(({ kind }) => kind),
    ["verdict", "select"],
  );
  assert.equal(outbox.waiting.length, 1);
  assert.deepEqual(
    open().pending.map(({ kind }) => kind),
    ["verdict"],
  );
});

test("a storage that is full loses no event, and the reader can be told", () => {
  resetStorages({ isFull: true });
  const outbox = open();
  outbox.add({ kind: "verdict" });
  assert.deepEqual([outbox.pending.length, outbox.isKept], [1, false]);
});

test("a storage that holds something else is no obstacle", () => {
  globalThis.localStorage.setItem("medssl-outbox-case/x", "{torn");
  globalThis.localStorage.setItem("medssl-outbox-case/y", '{"pending": 3}');
  assert.deepEqual(open().pending, []);
});
