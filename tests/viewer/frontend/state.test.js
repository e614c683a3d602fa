import assert from "node:assert/strict";
import { test } from "node:test";
import { KEYS, findToolKey } from "../../../medssl/viewer/frontend/keys.js";
import * as state from "../../../medssl/viewer/frontend/state.js";
import { TOOLS } from "../../../medssl/viewer/frontend/tools.js";
import { ZERO } from "../../../medssl/viewer/frontend/volume.js";
import { createHeader, createLabels } from "./volumes.js";

const initial = state.createState({ selected: null });
const axes = { plane: "axial", long: [[0, 0, 0], [3, 0, 0]], short: [[0, 0, 0], [0, 2, 0]] }; // prettier-ignore

test("a verdict that waits for the server comes before the one that is stored", () => {
  const finding = { id: "one", decision: "accept", relabelled: 2, axes };
  assert.deepEqual([state.decisionOf(initial, finding), state.correctedLabelOf(initial, finding)], ["accept", 2]);
  const values = {
    pendingVerdicts: { one: { decision: null, seq: 1 } },
    pendingAxes: { one: { axes: null, seq: 2 } },
  };
  assert.equal(state.decisionOf(values, finding), null);
  assert.equal(state.correctedLabelOf(values, finding), null);
  assert.deepEqual([state.axesOf(initial, finding), state.axesOf(values, finding)], [axes, null]);
});

test("hidden labels are transparent, and the others have their colour and opacity", () => {
  const labels = {
    1: { name: "a", colour: "#ff8000", visible: true },
    2: { name: "b", colour: "#00ff00", visible: false },
  };
  const table = state.buildColourTable({ ...initial, labels, opacity: 1 });
  assert.deepEqual([table[1 + ZERO], table[2 + ZERO], table[ZERO]], [0xff0080ff, 0, 0]);
  assert.notEqual(table[3 + ZERO], 0);
});

test("a voxel shows the label that its finding has after the verdict", () => {
  const findings = [
    { id: "one", label: 1, number: 3 },
    { id: "two", label: 1, number: 4, decision: "reject" },
    { id: "three", label: 1, number: 5, decision: "relabel", relabelled: 2 },
    { id: "four", label: 2, number: 6, kind: "organ" },
  ];
  const values = { ...initial, findings };
  const showLabels = (changes) => {
    const labelTable = state.buildLabelTable({ ...values, ...changes });
    return [1, 2, 3, 4, 5, 6].map((value) => state.shownLabelAt({ labelTable }, value));
  };
  assert.deepEqual(showLabels({}), [1, 2, 1, 0, 2, 2]);
  const pendingVerdicts = { one: { decision: "reject", seq: 1 }, two: { decision: "accept", seq: 2 } };
  assert.deepEqual(showLabels({ pendingVerdicts }), [1, 2, 0, 1, 2, 2]);
  assert.equal(state.valueToDraw({ ...values, selected: "one", label: 1 }), 3);
  assert.equal(state.valueToDraw({ ...values, selected: "three", label: 2 }), 5);
  assert.equal(state.valueToDraw({ ...values, selected: "one", label: 2 }), 6); // an organ is one item
  assert.equal(state.valueToDraw({ ...values, selected: "four", label: 1 }), 1);
});

test("caveats say how the picture differs from the stored scan", () => {
  const volume = createLabels([2, 2, 4], () => 0);
  assert.deepEqual(state.listCaveats({ ...initial, volume }), []);
  volume.header = createHeader([2, 2, 4], { exact: false, oblique_degrees: 19.2 });
  volume.loaded[0] = 0;
  const caveats = state.listCaveats({ ...initial, volume, threshold: 0.5, uncertaintyVisible: true });
  assert.deepEqual(caveats, [
    "loading 3/4",
    "oblique 19°: shown along the scan's own axes",
    "values rounded to 16 bits",
    "mask at confidence 0.50, not as stored",
    "uncertainty: derived from the confidence, 4p(1-p)",
  ]);
});

test("every key is bound once, and every tool has a key", () => {
  const keys = KEYS.flatMap((binding) => binding.keys);
  assert.equal(new Set(keys).size, keys.length);
  const toolKeys = Object.keys(TOOLS).map(findToolKey);
  assert.ok(toolKeys.every(Boolean) && new Set(toolKeys).size === toolKeys.length);
});
