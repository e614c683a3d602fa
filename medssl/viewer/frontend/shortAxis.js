// @ts-check
// Short axis: a line at a right angle to the long axis of a finding.
import { PLANES, clamp } from "./geometry.js";
/** @import { Line, Vector, VolumeHeader } from "./types" */

/**
 * Turns a drag from `start` to `end` into a line that crosses the long axis at a right angle in millimetres. Returns
 * both ends of the line, as voxel indices.
 * @param {VolumeHeader} header
 * @param {Line} longAxis
 * @param {Vector} start
 * @param {Vector} end
 */
export function projectOntoNormal(header, { plane, from, to }, start, end) {
  const { along } = PLANES[plane];
  /** @type {(index: Vector) => Vector} */
  const toPlaneMm = (index) => along.map((axis) => index[axis] * header.spacing_mm[axis]);
  const [a, b, p, q] = [from, to, start, end].map(toPlaneMm);
  const axis = subtract(b, a);
  const length = Math.hypot(...axis);
  const [u, v] = axis.map((x) => x / length);
  const [[px, py], [qx, qy]] = [subtract(p, a), subtract(q, a)];
  const foot = clamp(px * u + py * v, 0, length);
  return [py * u - px * v, qy * u - qx * v].map((off) => {
    const index = [...from];
    [a[0] + foot * u - off * v, a[1] + foot * v + off * u].forEach((mm, n) => {
      index[along[n]] = mm / header.spacing_mm[along[n]];
    });
    return index;
  });
}

/**
 * @param {Vector} a
 * @param {Vector} b
 */
function subtract(a, b) {
  return a.map((x, n) => x - b[n]);
}
