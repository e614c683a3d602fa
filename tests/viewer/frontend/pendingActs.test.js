import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { ActHistory } from "../../../medssl/viewer/frontend/actHistory.js";
import { LabelEditor } from "../../../medssl/viewer/frontend/labelEditor.js";
import { MaskRecord } from "../../../medssl/viewer/frontend/maskRecord.js";
import { summarizePending } from "../../../medssl/viewer/frontend/pendingActs.js";
import { createState } from "../../../medssl/viewer/frontend/state.js";
import { Store } from "../../../medssl/viewer/frontend/store.js";
import { resetStorages } from "./browser.js";
import { createLabels } from "./volumes.js";

beforeEach(() => resetStorages());
const event = (seq, fields) => ({ client: "c", seq, at: "2026-01-01T10:00:00Z", ...fields });

test("the screen shows what follows from the acts that wait", () => {
  const runs = [[0, 1, 1]];
  const summary = summarizePending([
    event(1, { kind: "verdict", finding: "a", decision: "relabel", label: 2 }),
    event(2, { kind: "stroke", runs }),
    event(3, { kind: "stroke", runs }),
    event(4, { kind: "undo", of: 3, of_client: "c", undoes: "stroke" }),
    event(5, { kind: "verdict", finding: "b", decision: "accept" }),
    event(6, { kind: "undo", of: 5, of_client: "c", undoes: "verdict", finding: "b" }),
    event(7, { kind: "undo", of: 9, of_client: "earlier", undoes: "stroke" }),
    event(8, { kind: "missed" }),
  ]);
  assert.deepEqual(summary.verdicts, { a: { decision: "relabel", label: 2 }, b: { decision: null } });
  assert.deepEqual(summary.strokes, [{ id: "c-2", runs, finding: null }]);
  assert.deepEqual([summary.undone, summary.added], [["earlier-9"], ["reader-c-8"]]);
});

test("undo takes the reader's own last act of this tab, also after a reload, and never one of another tab", () => {
  const before = new ActHistory("case");
  before.add(event(1, { kind: "stroke", finding: "a" }));
  before.add(event(2, { kind: "verdict", finding: "b" }));
  before.add(event(3, { kind: "select", finding: "b" }));
  const after = new ActHistory("case");
  assert.equal(after.findLast(() => true).seq, 2);
  assert.equal(after.findLast(({ kind }) => kind === "stroke").seq, 1);
  after.remove(after.findLast(() => true));
  assert.equal(new ActHistory("case").findLast(() => true).seq, 1);
  assert.equal(
    new ActHistory("other case").findLast(() => true),
    null,
  );
});

/** A mask of which the server has stored some strokes, while others wait. */
function openMask(waiting = []) {
  const overlay = createLabels([4, 4, 4], () => 0);
  const store = new Store({
    ...createState({ selected: null }),
    overlay,
    editor: new LabelEditor(overlay),
    editable: true,
  });
  const fetched = [];
  const pending = { strokes: waiting, isSettled: !waiting.length };
  const fetchMask = (version) => fetched.push(version.drawn);
  return { store, fetched, pending, mask: new MaskRecord({ store, fetchMask, listPending: () => pending }) };
}

test("a stroke that waits is drawn with the number of its finding, as the server numbers it", () => {
  const { store, mask } = openMask([{ id: "c-1", runs: [[5, 1, 2], [6, 1, 1]], finding: "b" }]); // prettier-ignore
  const findings = ["a", "b"].map((id, n) => ({ id, label: 2, number: 10 + n }));
  store.set({ findings });
  mask.drawPending();
  assert.deepEqual([...store.get().overlay.data.slice(5, 7)], [11, 1]);
});

test("an added finding that was taken back renumbers the others: the mask is fetched", () => {
  const { fetched, mask } = openMask();
  const version = (...ids) => ({ overlay: "url", drawn: [], findings: ids.map((id) => ({ id, source: "reader" })) });
  mask.follow(version("r1"));
  mask.follow(version("r1", "r2"));
  assert.deepEqual(fetched, []);
  mask.follow(version("r2"));
  assert.deepEqual(fetched, [[]]);
});

test("strokes that wait are drawn over the stored mask, and the mask is not fetched again when they are stored", () => {
  const { store, fetched, pending, mask } = openMask([{ id: "c-1", runs: [[5, 2, 1]] }]);
  mask.drawPending();
  assert.deepEqual([store.get().drawn, [...store.get().overlay.data.slice(4, 8)]], [["c-1"], [0, 1, 1, 0]]);
  mask.drawPending();
  assert.deepEqual(store.get().drawn, ["c-1"]);
  Object.assign(pending, { strokes: [], isSettled: true });
  mask.follow({ overlay: "url", drawn: ["c-1"], findings: [] });
  assert.deepEqual([fetched, store.get().isMaskCurrent], [[], true]);
});

test("a mask that differs from the record is fetched, and until it is here it does not count as saved", () => {
  const { store, fetched, mask } = openMask();
  mask.follow({ overlay: "url", drawn: ["other-1"], findings: [] });
  assert.deepEqual([fetched, store.get().isMaskCurrent], [[["other-1"]], false]);
  mask.show(
    createLabels([4, 4, 4], () => 2),
    ["other-1"],
  );
  assert.deepEqual([store.get().isMaskCurrent, store.get().overlay.data[0]], [true, 2]);
});

test("nothing is fetched while acts wait, and a stroke in progress keeps its mask until it ends", () => {
  const { store, fetched, pending, mask } = openMask();
  pending.isSettled = false;
  mask.follow({ overlay: "url", drawn: ["other-1"], findings: [] });
  assert.deepEqual(fetched, []);
  const { editor, overlay } = store.get();
  editor.beginStroke();
  mask.show(
    createLabels([4, 4, 4], () => 2),
    ["other-1"],
  );
  assert.equal(store.get().overlay, overlay);
  editor.setLabel(0, 1);
  pending.strokes = [{ id: "c-1", runs: editor.endStroke() }];
  mask.add("c-1");
  assert.deepEqual(
    [[...store.get().overlay.data.slice(0, 2)], store.get().drawn],
    [
      [1, 2],
      ["other-1", "c-1"],
    ],
  );
});

test("a version that is out of date when it arrives is not shown", () => {
  const { store, fetched, mask } = openMask();
  mask.follow({ overlay: "url", drawn: ["other-1"], findings: [] });
  mask.follow({ overlay: "url2", drawn: ["other-1", "other-2"], findings: [] });
  mask.show(
    createLabels([4, 4, 4], () => 2),
    ["other-1"],
  );
  assert.equal(store.get().overlay.data[0], 0);
  assert.deepEqual(fetched.at(-1), ["other-1", "other-2"]);
});
