import assert from "node:assert/strict";
import { test } from "node:test";
import { DerivedStore, Store } from "../../../medssl/viewer/frontend/store.js";

function record(store) {
  const calls = [];
  const end = store.subscribe((changed) => calls.push([...changed]));
  return { calls, end };
}

test("a subscriber hears the names of the values that changed, and nothing after its end", () => {
  const store = new Store({ a: 1, b: 2, c: 3 });
  const { calls, end } = record(store);
  store.set({ a: 1, b: 5, c: 6 });
  store.set({ b: 5 });
  end();
  store.set({ a: 9 });
  assert.deepEqual(calls, [["b", "c"]]);
  assert.deepEqual(store.get(), { a: 9, b: 5, c: 6 });
});

test("the values that a reader holds do not change", () => {
  const store = new Store({ a: 1 });
  const values = store.get();
  store.set({ a: 2 });
  assert.deepEqual([values.a, store.get().a], [1, 2]);
});

test("a derived store follows its parent, except for its own values", () => {
  const parent = new Store({ cursor: 1, window: 2 });
  const derived = new DerivedStore(parent, { cursor: 7 });
  const { calls } = record(derived);
  assert.deepEqual(derived.get(), { cursor: 7, window: 2 });
  parent.set({ cursor: 3, window: 4 });
  assert.deepEqual(derived.get(), { cursor: 7, window: 4 });
  derived.set({ cursor: 8 });
  assert.deepEqual([derived.get().cursor, parent.get().cursor], [8, 3]);
  assert.deepEqual(calls, [["cursor"]]);
  assert.equal(derived.get(), derived.get());
  assert.throws(() => derived.set({ window: 1 }), /belongs to the parent/);
});
