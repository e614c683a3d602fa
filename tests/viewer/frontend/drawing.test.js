// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";
import { visitBrushVoxels } from "../../../medssl/viewer/frontend/drawing.js";
/** @import { Plane, VolumeHeader } from "../../../medssl/viewer/frontend/types" */

const HEADER = /** @type {VolumeHeader} */ (
  /** @type {unknown} */ ({ shape: [40, 30, 20], spacing_mm: [0.7, 0.9, 2] })
);

/**
 * @param {number[]} centre
 * @param {number[] | null} previous
 * @param {Plane} plane
 * @param {boolean} isBall
 */
function collect(centre, previous, plane, isBall) {
  /** @type {number[]} */
  const offsets = [];
  visitBrushVoxels(HEADER, { centre, previous, radius_mm: 4.2, plane, isBall }, (offset) => offsets.push(offset));
  return offsets;
}

test("a brush visits the voxels whose middles lie within its radius", () => {
  const expected = [];
  for (let n = 0; n < 40 * 30 * 20; n++) {
    const [x, y, z] = [((n % 40) - 3) * 0.7, ((Math.floor(n / 40) % 30) - 15) * 0.9, (Math.floor(n / 1200) - 10) * 2];
    if (Math.hypot(x, y, z) <= 4.2) expected.push(n);
  }
  assert.deepEqual(collect([3, 15, 10], null, "axial", true), expected);
});

for (const plane of /** @type {Plane[]} */ (["axial", "coronal", "sagittal"])) {
  for (const isBall of [true, false]) {
    test(`a ${plane} step of a ${isBall ? "ball" : "disc"} visits what the step before did not, once`, () => {
      const [from, to] = [
        [20, 15, 10],
        [plane === "sagittal" ? 20 : 22, plane === "coronal" ? 15 : 16, plane === "axial" ? 10 : 11],
      ];
      const earlier = new Set(collect(from, null, plane, isBall));
      const fresh = collect(to, null, plane, isBall).filter((offset) => !earlier.has(offset));
      assert.ok(fresh.length);
      assert.deepEqual(collect(to, from, plane, isBall), fresh);
    });
  }
}
