import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { beforeEach, mock, test } from "node:test";
import { Outbox } from "../../../medssl/viewer/frontend/outbox.js";

globalThis.crypto ??= webcrypto;
let sent = [];

function open(ackedSeq = 0) {
  const send = (events) => sent.push(events.map(({ seq }) => seq));
  return new Outbox("case", ackedSeq, send, () => null);
}

beforeEach(() => {
  const values = new Map();
  globalThis.sessionStorage = {
    getItem: (key) => values.get(key) ?? null,
    setItem: (key, value) => values.set(key, value),
  };
  sent = [];
  mock.timers.reset();
  mock.timers.enable(["setTimeout"]);
});

test("events are numbered, and sent until they are acknowledged", () => {
  const outbox = open();
  assert.deepEqual([outbox.add({ kind: "verdict" }), outbox.add({ kind: "stroke" })], [1, 2]);
  assert.deepEqual(sent, [[1], [1, 2]]);
  mock.timers.tick(3000);
  assert.deepEqual(sent.at(-1), [1, 2]);
  outbox.acknowledge(1);
  mock.timers.tick(15000);
  assert.deepEqual(sent.at(-1), [2]);
  outbox.acknowledge(2);
  const count = sent.length;
  mock.timers.tick(60000);
  assert.deepEqual([sent.length, outbox.pending], [count, []]);
});

test("after a reload the events are sent again, and new numbers follow the old ones", () => {
  const before = open();
  before.add({ kind: "verdict" });
  before.add({ kind: "verdict" });
  before.close();
  sent = [];
  const after = open(1);
  assert.deepEqual(sent, [[2]]);
  assert.equal(after.add({ kind: "verdict" }), 3);
  assert.notEqual(after.client, before.client);
  assert.equal(after.pending[0].client, before.client);
});

test("only the last selection is worth sending", () => {
  const outbox = open(7);
  outbox.add({ kind: "select", finding: "a" });
  outbox.add({ kind: "verdict" });
  outbox.add({ kind: "select", finding: "b" });
  assert.deepEqual(
    outbox.pending.map(({ kind, seq }) => [kind, seq]),
    [
      ["verdict", 9],
      ["select", 10],
    ],
  );
});

test("a storage that is full loses no event", () => {
  globalThis.sessionStorage.setItem = () => {
    throw new Error("full");
  };
  const outbox = open();
  outbox.add({ kind: "verdict" });
  assert.equal(outbox.pending.length, 1);
});
