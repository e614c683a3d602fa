import assert from "node:assert/strict";
import { test } from "node:test";
import * as geometry from "../../../medssl/viewer/frontend/geometry.js";
import { projectOntoNormal } from "../../../medssl/viewer/frontend/shortAxis.js";
import { createHeader } from "./volumes.js";

const TILTED = [
  [0.9, -0.4, 0.1, 12],
  [0.4, 1.8, -0.2, -7],
  [-0.1, 0.3, 2.9, 30],
];

function assertClose(actual, expected, tolerance = 1e-9) {
  actual.forEach((x, n) => assert.ok(Math.abs(x - expected[n]) < tolerance, `${actual} is not ${expected}`));
}

test("a voxel goes to mm and back, also in a tilted volume", () => {
  const index = [3, -2, 7.5];
  assertClose(geometry.toIndex(TILTED, geometry.toMm(TILTED, index)), index);
  assertClose(geometry.toMm(TILTED, [0, 0, 0]), [12, -7, 30]);
});

test("distances are in mm", () => {
  const { affine } = createHeader([9, 9, 9]);
  assert.equal(geometry.measureDistance(affine, [0, 0, 0], [3, 0, 2]), 5);
});

test("an index is rounded into the volume", () => {
  const header = createHeader([4, 5, 6]);
  assert.deepEqual(geometry.findNearestVoxel(header, [-3, 2.6, 40]), [0, 3, 5]);
  assert.ok(geometry.isInside(header, [-0.4, 4.4, 0]) && !geometry.isInside(header, [-0.6, 0, 0]));
});

test("a position names the sides of the patient", () => {
  assert.equal(geometry.formatPosition([-1, 2.04, 0]), "L 1.0  A 2.0  S 0.0");
});

for (const plane of geometry.PLANE_NAMES) {
  test(`a pixel of the ${plane} plane goes to its voxel and back, and indices grow to the left and up`, () => {
    const header = createHeader([10, 20, 30]);
    const frame = new geometry.Frame(header, plane, 300, 200, { zoom: 2, pan: [5, -3] });
    const index = [2, 11, 17];
    assertClose(frame.toVoxel(frame.toPixel(index), index), index);
    const neighbour = index.map((x, axis) => x + Number(geometry.PLANES[plane].along.includes(axis)));
    const [pixel, next] = [frame.toPixel(index), frame.toPixel(neighbour)];
    assert.ok(next[0] < pixel[0] && next[1] < pixel[1]);
  });
}

test("an aligned frame has the scale of the other frame, and shows its voxel at the same pixel", () => {
  const view = { zoom: 1, pan: [0, 0] };
  const frame = new geometry.Frame(createHeader([10, 20, 30]), "axial", 300, 200, view);
  const other = new geometry.Frame(createHeader([40, 50, 60]), "axial", 300, 200, { zoom: 3, pan: [1, 2] });
  frame.align(other, [4, 5, 6], [1.5, 2.5, 3]);
  assert.equal(frame.pixelsPerMm, other.pixelsPerMm);
  assertClose(frame.toPixel([1.5, 2.5, 3]), other.toPixel([4, 5, 6]));
});

test("the short axis crosses the long axis at a right angle in mm", () => {
  const header = createHeader([30, 30, 30]);
  const long = { plane: "coronal", from: [3, 5, 2], to: [9, 5, 7], text: "" };
  const ends = projectOntoNormal(header, long, [2, 5, 6], [9, 5, 3]).map((end) => geometry.toMm(header.affine, end));
  const [a, b] = [long.from, long.to].map((end) => geometry.toMm(header.affine, end));
  const dot = ends[1].reduce((sum, x, axis) => sum + (x - ends[0][axis]) * (b[axis] - a[axis]), 0);
  assert.ok(Math.abs(dot) < 1e-9 && geometry.measureLength(ends) > 1);
});
