// @ts-check
// Mesh surface: the surface voxels of a mask, with the directions that they face.
import { toMm } from "./geometry.js";
/** @import { Vector } from "./types" */
/** @import { RemoteVolume } from "./volume.js" */

/**
 * Surface voxels. `points` and `normals` hold x, y and z of one voxel after the other; `step` is 1, or n if only every
 * n-th voxel is kept; the sphere around `centre_mm` with `radius_mm` holds all of them.
 * @typedef {{ points: number[], normals: number[], labels: number[], step: number,
 *   centre_mm: Vector, radius_mm: number }} Surface
 */

const MIN_RADIUS_MM = 15; // a small lesion is not magnified beyond this
const MAX_VOXELS = 200000;

/**
 * Extracts every voxel of a visible label that has another label at one of its faces.
 * @param {Pick<RemoteVolume, "data" | "header">} mask
 * @param {(label: number) => boolean} isVisible
 * @returns {Surface}
 */
export function extractSurface({ data, header }, isVisible) {
  const [ni, nj, nk] = header.shape;
  /** @type {number[]} */
  const points = [];
  /** @type {number[]} */
  const labels = [];
  /** @type {number[]} */
  const normals = [];
  const directions = [0, 1, 2].map((axis) =>
    toMm(header.affine, unitVector(axis)).map((x, r) => (x - header.affine[r][3]) / header.spacing_mm[axis]),
  );
  for (let k = 0; k < nk; k++) {
    for (let j = 0; j < nj; j++) {
      for (let i = 0, n = ni * (j + nj * k); i < ni; i++, n++) {
        const label = data[n];
        if (!label || !isVisible(label)) continue;
        const left = i === 0 || data[n - 1] !== label;
        const right = i === ni - 1 || data[n + 1] !== label;
        const back = j === 0 || data[n - ni] !== label;
        const front = j === nj - 1 || data[n + ni] !== label;
        const below = k === 0 || data[n - ni * nj] !== label;
        const above = k === nk - 1 || data[n + ni * nj] !== label;
        if (!(left || right || back || front || below || above)) continue;
        const open = [Number(right) - Number(left), Number(front) - Number(back), Number(above) - Number(below)];
        const normal = [0, 1, 2].map((r) => open.reduce((sum, way, axis) => sum + way * directions[axis][r], 0));
        const length = Math.hypot(...normal) || 1;
        points.push(...toMm(header.affine, [i, j, k]));
        normals.push(...normal.map((x) => x / length));
        labels.push(label);
      }
    }
  }
  return { ...thinOut(points, labels, normals), ...findBounds(points) };
}

/**
 * Returns the middle of the box around the points, and the radius of the sphere around the box.
 * @param {number[]} points
 */
function findBounds(points) {
  if (!points.length) return { centre_mm: [0, 0, 0], radius_mm: MIN_RADIUS_MM };
  const low = [Infinity, Infinity, Infinity];
  const high = [-Infinity, -Infinity, -Infinity];
  points.forEach((x, n) => {
    low[n % 3] = Math.min(low[n % 3], x);
    high[n % 3] = Math.max(high[n % 3], x);
  });
  const halves = low.map((x, axis) => (high[axis] - x) / 2);
  return {
    centre_mm: low.map((x, axis) => x + halves[axis]),
    radius_mm: Math.max(MIN_RADIUS_MM, Math.hypot(...halves)),
  };
}

/**
 * Keeps every n-th voxel, so that at most MAX_VOXELS are left.
 * @param {number[]} points
 * @param {number[]} labels
 * @param {number[]} normals
 */
function thinOut(points, labels, normals) {
  const step = Math.ceil(labels.length / MAX_VOXELS) || 1;
  if (step === 1) return { points, labels, normals, step };
  /** @type {(list: number[]) => number[]} */
  const thinTriples = (list) => list.filter((_, n) => Math.floor(n / 3) % step === 0);
  return {
    points: thinTriples(points),
    labels: labels.filter((_, n) => n % step === 0),
    normals: thinTriples(normals),
    step,
  };
}

/** @param {number} axis */
function unitVector(axis) {
  return [0, 1, 2].map((a) => Number(a === axis));
}
