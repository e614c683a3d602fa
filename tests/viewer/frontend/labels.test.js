import assert from "node:assert/strict";
import { test } from "node:test";
import { findEnclosedRegion, visitBrushVoxels } from "../../../medssl/viewer/frontend/drawing.js";
import { computeSignedDistance, interpolateSlices } from "../../../medssl/viewer/frontend/interpolation.js";
import { LabelEditor, encodeRuns } from "../../../medssl/viewer/frontend/labelEditor.js";
import { extractSurface } from "../../../medssl/viewer/frontend/meshSurface.js";
import { createHeader, createLabels } from "./volumes.js";

test("neighbours of the same label join to runs", () => {
  const labels = { 3: 1, 4: 1, 5: 2, 9: 2, 10: 2 };
  const runs = encodeRuns([3, 4, 5, 9, 10], (offset) => labels[offset]);
  assert.deepEqual(runs, [[3, 2, 1], [5, 1, 2], [9, 2, 2]]); // prettier-ignore
});

test("a stroke is undone and redone, and a new stroke ends the redo", () => {
  const volume = createLabels([4, 4, 2], () => 0);
  const editor = new LabelEditor(volume);
  const paint = (offsets, label) => {
    editor.beginStroke();
    offsets.forEach((offset) => editor.setLabel(offset, label));
    return editor.endStroke();
  };
  assert.deepEqual(paint([6, 5, 5], 2), [[5, 2, 2]]);
  editor.markSent("c-1");
  assert.deepEqual(paint([5], 0), [[5, 1, 0]]);
  editor.markSent("c-2");
  assert.equal(paint([5], 0), null);
  assert.equal(editor.undo("c-1"), false);
  assert.ok(editor.undo("c-2") && editor.undo("c-1") && !editor.undo("c-1"));
  assert.ok(volume.data.every((label) => label === 0));
  assert.deepEqual(editor.redo().after, [[5, 2, 2]]);
  assert.deepEqual([...volume.data.slice(4, 8)], [0, 2, 2, 0]);
  paint([0], 1);
  assert.equal(editor.redo(), null);
});

for (const isBall of [false, true]) {
  test(`a ${isBall ? "ball" : "disc"} holds the voxels within its radius in mm`, () => {
    const header = createHeader([15, 15, 15]);
    const painted = new Set();
    visitBrushVoxels(header, { centre: [7, 7, 7], radius_mm: 3, plane: "axial", isBall }, (n) => painted.add(n));
    for (let n = 0; n < 15 ** 3; n++) {
      const [i, j, k] = [n % 15, Math.floor(n / 15) % 15, Math.floor(n / 225)];
      const isNear = (i - 7) ** 2 + (j - 7) ** 2 + (2 * (k - 7)) ** 2 <= 9;
      assert.equal(painted.has(n), isNear && (isBall || k === 7));
    }
  });
}

test("a closed region is found, and an open one is not", () => {
  const ring = createLabels([8, 8, 1], (i, j) => Math.max(Math.abs(i - 3), Math.abs(j - 3)) === 2);
  assert.equal(findEnclosedRegion(ring, "axial", [3, 3, 0]).length, 9);
  assert.equal(findEnclosedRegion(ring, "axial", [0, 0, 0]), null);
});

test("the signed distance is exact", () => {
  const mask = Uint8Array.from({ length: 99 }, (_, n) => Number((n * 7) % 5 === 0));
  const [width, height, dx, dy] = [11, 9, 1, 2.5];
  const distance = computeSignedDistance(mask, width, height, [dx, dy]);
  const findNearest = (n, value) => {
    const gaps = [...mask.keys()]
      .filter((m) => mask[m] === value)
      .map((m) => {
        const x = ((m % width) - (n % width)) * dx;
        return Math.hypot(x, (Math.floor(m / width) - Math.floor(n / width)) * dy);
      });
    return Math.min(...gaps);
  };
  distance.forEach((d, n) => assert.ok(Math.abs(d - (findNearest(n, 1) - findNearest(n, 0))) < 1e-9));
});

const showLabel = (value) => Number(value > 0);
const isDisc = (i, j, x, radius) => (i - x) ** 2 + (j - 8) ** 2 <= radius ** 2;

test("interpolation fills only the slices between drawn slices, with growing areas", () => {
  const radii = { 1: 2, 5: 6 };
  const volume = createLabels([17, 17, 8], (i, j, k) => k in radii && isDisc(i, j, 8, radii[k]));
  const areas = new Array(8).fill(0);
  for (const offset of interpolateSlices(volume, "axial", 1, showLabel)) areas[Math.floor(offset / 289)]++;
  assert.deepEqual(areas.map(Boolean), [false, false, true, true, true, false, false, false]);
  assert.ok(areas[2] < areas[3] && areas[3] < areas[4]);
});

test("interpolation never bridges two findings, and keeps a voxel away from a neighbour of the same label", () => {
  const volume = createLabels([17, 17, 12], (i, j, k) => [1, 2, 9, 10].includes(k) && isDisc(i, j, 8, 3));
  volume.data.forEach((value, n) => value && n >= 289 * 6 && (volume.data[n] = 2)); // the upper disc is another finding
  assert.deepEqual(interpolateSlices(volume, "axial", 1, showLabel), []);
  volume.data.fill(1, 289 * 6, 289 * 6 + 289); // the reader draws the first one far above, beside the other one
  const offsets = interpolateSlices(volume, "axial", 1, showLabel);
  assert.ok(offsets.length > 0 && offsets.every((offset) => offset < 289 * 6));
  volume.data[289 * 4 + 8 * 17 + 8] = 2;
  const near = interpolateSlices(volume, "axial", 1, showLabel).map((n) => [n % 17, Math.floor(n / 17) % 17, n / 289]);
  assert.ok(near.every(([i, j, k]) => Math.max(Math.abs(i - 8), Math.abs(j - 8), Math.abs(Math.floor(k) - 4)) > 1));
});

test("a number beyond one byte is drawn as it is", () => {
  const volume = createLabels([4, 4, 2], () => 0);
  const editor = new LabelEditor(volume);
  editor.beginStroke();
  editor.setLabel(3, 300);
  assert.deepEqual(editor.endStroke(), [[3, 1, 300]]);
  assert.equal(volume.data[3], 300);
});

test("the surface of a cube is its outer voxels, which face outwards", () => {
  const volume = createLabels([9, 9, 9], (i, j, k) => Math.max(Math.abs(i - 4), Math.abs(j - 4), Math.abs(k - 4)) <= 2);
  const surface = extractSurface(volume, () => true);
  assert.equal(surface.labels.length, 5 ** 3 - 3 ** 3);
  assert.deepEqual(surface.centre_mm, [4, 4, 8]);
  for (let n = 0; n < surface.points.length; n += 3) {
    const dot = [0, 1, 2].reduce(
      (sum, a) => sum + (surface.points[n + a] - surface.centre_mm[a]) * surface.normals[n + a],
      0,
    );
    assert.ok(dot > 0);
  }
  assert.equal(extractSurface(volume, () => false).labels.length, 0);
});

test("the slices of a label are those that strokes drew or erased in, without proposals and balls", () => {
  const editor = new LabelEditor(createLabels([4, 4, 3], () => 0));
  const paint = (offsets, label, facts) => {
    editor.beginStroke();
    offsets.forEach((offset) => editor.setLabel(offset, label));
    editor.endStroke();
    editor.markSent(`c-${editor.undoStack.length}`, facts);
  };
  paint([16, 17, 20], 2); // in k = 1
  paint([2, 18, 34], 2); // in i = 2 and j = 0: across the second axis first
  paint([0, 1, 4], 1); // another label
  paint([19, 37], 2, {}); // a ball
  paint([40, 41, 44], 2, { assist: {} }); // a proposal
  assert.deepEqual(editor.listSlices(2, [4, 4, 3]), [[2, 1], [1, 0]]); // prettier-ignore
  paint([17], 0);
  assert.deepEqual(editor.listSlices(2, [4, 4, 3]), [[2, 1], [1, 0]]); // prettier-ignore
  editor.undo("c-6");
  editor.undo("c-5");
  assert.deepEqual(editor.listSlices(1, [4, 4, 3]), [[2, 0]]);
});
