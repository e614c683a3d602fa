// @ts-check
// Mask shapes: what grows, shrinks, smooths and fills the voxels of one finding, and what keeps its largest part. All
// work in three dimensions and in mm; what lies outside the image counts as neither inside nor outside.
/** @import { Vector } from "./types" */
/** @import { RemoteVolume } from "./volume.js" */

/**
 * The voxels around a finding: 1 for each voxel of it, i fastest. `low` is the first voxel of the box.
 * @typedef {{ mask: Uint8Array, size: Vector, low: Vector, shape: Vector }} MaskBox
 */

/**
 * Cuts the box around all voxels of a value, wider by `margin` voxels on each side within the image, or returns null
 * if no voxel has the value.
 * @param {Pick<RemoteVolume, "data" | "header">} volume
 * @param {number} value
 * @param {Vector} margin
 * @returns {MaskBox | null}
 */
export function cutMaskBox({ data, header }, value, margin) {
  const { shape } = header;
  const [ni, nj] = shape;
  const first = [...shape];
  const last = [-1, -1, -1];
  for (let n = data.indexOf(value); n >= 0; n = data.indexOf(value, n + 1)) {
    const index = [n % ni, Math.floor(n / ni) % nj, Math.floor(n / (ni * nj))];
    index.forEach((x, axis) => {
      if (x < first[axis]) first[axis] = x;
      if (x > last[axis]) last[axis] = x;
    });
  }
  if (last[0] < 0) return null;
  const low = first.map((x, axis) => Math.max(0, x - margin[axis]));
  const size = last.map((x, axis) => Math.min(shape[axis] - 1, x + margin[axis]) - low[axis] + 1);
  const mask = new Uint8Array(size[0] * size[1] * size[2]);
  const box = { mask, size, low, shape };
  for (let n = 0; n < mask.length; n++) mask[n] = Number(data[toOffset(box, n)] === value);
  return box;
}

/**
 * Returns the offset in the image of a voxel of a box.
 * @param {MaskBox} box
 * @param {number} n
 */
export function toOffset({ size, low, shape }, n) {
  const [x, y, z] = locate(size, n);
  return low[0] + x + shape[0] * (low[1] + y + shape[1] * (low[2] + z));
}

/**
 * Returns the mask with every voxel of the box that lies within a radius of it.
 * @param {MaskBox} box
 * @param {Vector} spacing_mm
 * @param {number} radius_mm
 */
export function growMask(box, spacing_mm, radius_mm) {
  return spread(box, 1, listBall(spacing_mm, radius_mm));
}

/**
 * Returns the mask without the voxels that lie within a radius of what is outside it.
 * @param {MaskBox} box
 * @param {Vector} spacing_mm
 * @param {number} radius_mm
 */
export function shrinkMask(box, spacing_mm, radius_mm) {
  return spread(box, 0, listBall(spacing_mm, radius_mm));
}

/**
 * Returns the voxels around which more than half of a ball belongs to the mask: a majority filter, which rounds the
 * surface off.
 * @param {MaskBox} box
 * @param {Vector} spacing_mm
 * @param {number} radius_mm
 */
export function smoothMask({ mask, size }, spacing_mm, radius_mm) {
  const ball = listBall(spacing_mm, radius_mm);
  return mask.map((_, n) => {
    const index = locate(size, n);
    let inside = 0;
    let all = 0;
    for (const step of ball) {
      const other = shift(size, index, step);
      if (other < 0) continue;
      all++;
      inside += mask[other];
    }
    return Number(2 * inside > all);
  });
}

/**
 * Returns the mask with the holes that it encloses on all sides.
 * @param {MaskBox} box with a margin of one voxel
 */
export function fillHoles({ mask, size }) {
  const isOutside = new Uint8Array(mask.length);
  const faces = mask.map((_, n) => Number(locate(size, n).some((x, axis) => x === 0 || x === size[axis] - 1)));
  for (let n = 0; n < mask.length; n++) {
    if (faces[n] && !mask[n] && !isOutside[n]) visitConnected(size, n, FACES, (m) => !mask[m], isOutside);
  }
  return isOutside.map((outside) => 1 - outside);
}

/**
 * Returns the largest connected part of the mask; voxels that share a corner are connected.
 * @param {MaskBox} box
 */
export function keepLargestPart({ mask, size }) {
  const part = new Uint8Array(mask.length);
  /** @type {number[]} */
  let largest = [];
  for (let n = 0; n < mask.length; n++) {
    if (!mask[n] || part[n]) continue;
    const voxels = visitConnected(size, n, CORNERS, (m) => mask[m] === 1, part);
    if (voxels.length > largest.length) largest = voxels;
  }
  const kept = new Uint8Array(mask.length);
  for (const n of largest) kept[n] = 1;
  return kept;
}

/** @type {Vector[]} */
const CORNERS = [-1, 0, 1].flatMap((z) => [-1, 0, 1].flatMap((y) => [-1, 0, 1].map((x) => [x, y, z])));
const FACES = CORNERS.filter((step) => step.reduce((sum, x) => sum + Math.abs(x), 0) === 1);

/**
 * Visits the voxels that a path of allowed steps connects with a voxel, and marks them.
 * @param {Vector} size
 * @param {number} start
 * @param {Vector[]} steps
 * @param {(n: number) => boolean} isAllowed
 * @param {Uint8Array} marks
 */
function visitConnected(size, start, steps, isAllowed, marks) {
  const voxels = [start];
  marks[start] = 1;
  for (let n = 0; n < voxels.length; n++) {
    const index = locate(size, voxels[n]);
    for (const step of steps) {
      const other = shift(size, index, step);
      if (other < 0 || marks[other] || !isAllowed(other)) continue;
      marks[other] = 1;
      voxels.push(other);
    }
  }
  return voxels;
}

/**
 * Gives a value to every voxel that lies within a ball around a voxel that has it. The nearest such voxel always has a
 * neighbour without the value, so only those are spread.
 * @param {MaskBox} box
 * @param {number} value
 * @param {Vector[]} ball
 */
function spread({ mask, size }, value, ball) {
  const result = mask.slice();
  for (let n = 0; n < mask.length; n++) {
    if (mask[n] !== value) continue;
    const index = locate(size, n);
    const isSurface = FACES.some((step) => {
      const other = shift(size, index, step);
      return other >= 0 && mask[other] !== value;
    });
    if (!isSurface) continue;
    for (const step of ball) {
      const other = shift(size, index, step);
      if (other >= 0) result[other] = value;
    }
  }
  return result;
}

/**
 * Lists the steps from a voxel to those whose middles lie within a radius.
 * @param {Vector} spacing_mm
 * @param {number} radius_mm
 */
function listBall(spacing_mm, radius_mm) {
  const [a, b, c] = spacing_mm.map((mm) => Math.floor(radius_mm / mm + 1e-9));
  /** @type {Vector[]} */
  const steps = [];
  for (let z = -c; z <= c; z++) {
    for (let y = -b; y <= b; y++) {
      for (let x = -a; x <= a; x++) {
        const mm = [x, y, z].map((step, axis) => step * spacing_mm[axis]);
        if (mm[0] ** 2 + mm[1] ** 2 + mm[2] ** 2 <= radius_mm ** 2 + 1e-9) steps.push([x, y, z]);
      }
    }
  }
  return steps;
}

/**
 * @param {Vector} size
 * @param {number} n
 */
function locate([a, b], n) {
  return [n % a, Math.floor(n / a) % b, Math.floor(n / (a * b))];
}

/**
 * Returns the place of a neighbour, or -1 outside the box.
 * @param {Vector} size
 * @param {Vector} index
 * @param {Vector} step
 */
function shift([a, b, c], [x, y, z], [dx, dy, dz]) {
  const [i, j, k] = [x + dx, y + dy, z + dz];
  return i < 0 || j < 0 || k < 0 || i >= a || j >= b || k >= c ? -1 : i + a * (j + b * k);
}
