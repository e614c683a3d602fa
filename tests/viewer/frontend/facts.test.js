import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Frame, viewAround } from "../../../medssl/viewer/frontend/geometry.js";
import { formatWindow, listPlaneFacts } from "../../../medssl/viewer/frontend/paneTexts.js";
import { createState } from "../../../medssl/viewer/frontend/state.js";
import { WindowMemory } from "../../../medssl/viewer/frontend/windowMemory.js";
import { resetStorages } from "./browser.js";
import { createHeader } from "./volumes.js";

const LUNG = { name: "lung", low: -1350, high: 150 };
const OWN = { name: "own", low: -200, high: 300 };

beforeEach(() => resetStorages());

test("a plane names its slice, its place in the patient, the series and the window", () => {
  const header = createHeader([20, 30, 12]);
  const state = { ...createState({ selected: null }), facts: ["CT", "2024-03-02"], window: LUNG, cursor: [5, 6, 7] };
  const axial = listPlaneFacts(state, header, "axial", 7);
  assert.deepEqual(axial.place, ["axial  8 / 12", "S 14.0 mm   slice 2.0 mm"]);
  assert.deepEqual(axial.series, ["CT", "2024-03-02"]);
  assert.equal(axial.window, "W 1500  L -600  lung");
  const slab = { ...state, projection: { kind: "MIP", slab_mm: 10 } };
  assert.equal(listPlaneFacts(slab, header, "axial", 7).place[2], "MIP of 10 mm");
  const numbered = { ...state, instances: { axis: 2, numbers: [...Array(12).keys()].map((n) => 112 - n) } };
  assert.equal(listPlaneFacts(numbered, header, "axial", 7).place[2], "image 105");
  assert.equal(listPlaneFacts(numbered, header, "sagittal", 7).place.length, 2);
  header.affine[0][3] = -10;
  assert.deepEqual(listPlaneFacts(state, header, "sagittal", 5).place, ["sagittal  6 / 20", "L 5.0 mm   slice 1.0 mm"]);
  assert.equal(formatWindow({ name: "own", low: 0, high: 0.5 }), "W 0.5  L 0.25");
});

test("a lesion comes to the middle of its pane, with the field around it filling the shorter side", () => {
  const header = createHeader([512, 512, 300]);
  const index = [100, 400, 250];
  for (const plane of ["axial", "coronal", "sagittal"]) {
    const view = viewAround(header, plane, [800, 600], index, 80);
    const frame = new Frame(header, plane, 800, 600, view);
    frame.toPixel(index).forEach((pixel, a) => assert.ok(Math.abs(pixel - [400, 300][a]) < 1e-6));
    assert.ok(Math.abs(frame.pixelsPerMm * 80 - 600) < 1e-6);
  }
  assert.deepEqual(viewAround(createHeader([20, 30, 12]), "axial", [800, 600], [1, 2, 3], 80), {
    zoom: 1,
    pan: [0, 0],
  });
});

test("a window is kept for its label, for the reader's other cases, and only in HU as numbers", () => {
  const ct = createHeader([2, 2, 2], { windows: [LUNG] });
  new WindowMemory("ana").remember(ct, "nodule", OWN);
  new WindowMemory("ana").remember(ct, "node", LUNG);
  assert.deepEqual(new WindowMemory("ana").recall(ct, "nodule"), OWN);
  assert.deepEqual(new WindowMemory("ana").recall(ct, "node"), LUNG);
  assert.equal(new WindowMemory("ana").recall(ct, "rib"), null);
  assert.equal(new WindowMemory("ben").recall(ct, "nodule"), null);
  const mr = createHeader([2, 2, 2], { unit: "a.u.", windows: [{ name: "1-99 %", low: 3, high: 90 }] });
  new WindowMemory("ana").remember(mr, "tumour", OWN);
  assert.equal(new WindowMemory("ana").recall(mr, "tumour"), null);
  new WindowMemory("ana").remember(mr, "tumour", { name: "1-99 %", low: 40, high: 700 });
  assert.deepEqual(new WindowMemory("ana").recall(mr, "tumour"), mr.windows[0]);
});
