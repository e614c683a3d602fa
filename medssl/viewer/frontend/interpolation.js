// @ts-check
// Interpolation: proposes voxels on the slices between drawn slices of one finding. Shape-based interpolation: a voxel is
// inside where the mean of the signed distances on both slices, weighted by nearness, is negative. Raya SP, Udupa JK,
// Shape-based interpolation of multidimensional objects, IEEE TMI 1990. ITK's morphological contour interpolator would
// do the same, but needs 290 MB of packages on the server, or 10 MB of WebAssembly here.
import { listPlaneOffsets } from "./drawing.js";
import { PLANES, clamp } from "./geometry.js";
/** @import { Plane, Vector } from "./types" */
/** @import { RemoteVolume } from "./volume.js" */
/** @typedef {{ index: number, mask: Uint8Array, width: number, height: number }} Slice */

/**
 * Lists the free voxels inside the interpolated shape on every slice between two slices of a finding. A voxel beside
 * another finding of the same label is left out, so that two lesions never grow together.
 * @param {Pick<RemoteVolume, "data" | "header">} volume
 * @param {Plane} plane
 * @param {number} value of the voxels of the finding
 * @param {(value: number) => number} labelOf the label that a value shows; 0 for a free voxel
 * @returns {number[]} offsets
 */
export function interpolateSlices(volume, plane, value, labelOf) {
  /** @type {number[]} */
  const offsets = [];
  visitBetweenSlices(volume, plane, value, (offset) => {
    const isFree = labelOf(volume.data[offset]) === 0;
    if (isFree && !touchesOther(volume, offset, value, labelOf)) offsets.push(offset);
  });
  return offsets;
}

/**
 * Returns whether a neighbour of a voxel belongs to another finding with the same label.
 * @param {Pick<RemoteVolume, "data" | "header">} volume
 * @param {number} offset
 * @param {number} value
 * @param {(value: number) => number} labelOf
 */
function touchesOther({ data, header }, offset, value, labelOf) {
  const [ni, nj, nk] = header.shape;
  const index = [offset % ni, Math.floor(offset / ni) % nj, Math.floor(offset / (ni * nj))];
  const [low, high] = [-1, 1].map((sign) => index.map((x, axis) => clamp(x + sign, 0, [ni, nj, nk][axis] - 1)));
  for (let k = low[2]; k <= high[2]; k++) {
    for (let j = low[1]; j <= high[1]; j++) {
      for (let i = low[0]; i <= high[0]; i++) {
        const other = data[i + ni * (j + nj * k)];
        if (other !== value && labelOf(other) !== 0 && labelOf(other) === labelOf(value)) return true;
      }
    }
  }
  return false;
}

/**
 * @param {Pick<RemoteVolume, "data" | "header">} volume
 * @param {Plane} plane
 * @param {number} value
 * @param {(offset: number) => void} visit
 */
function visitBetweenSlices(volume, plane, value, visit) {
  const count = volume.header.shape[PLANES[plane].across];
  /** @type {Slice | null} */
  let previous = null;
  for (let index = 0; index < count; index++) {
    const { offsets, width, height } = listPlaneOffsets(volume.header, plane, index);
    const mask = Uint8Array.from(offsets, (n) => (volume.data[n] === value ? 1 : 0));
    if (!mask.includes(1)) continue;
    const slice = { index, mask, width, height };
    if (previous && index - previous.index > 1) fillBetween(volume, plane, previous, slice, visit);
    previous = slice;
  }
}

/**
 * @param {Pick<RemoteVolume, "data" | "header">} volume
 * @param {Plane} plane
 * @param {Slice} first
 * @param {Slice} last
 * @param {(offset: number) => void} visit
 */
function fillBetween(volume, plane, first, last, visit) {
  const spacing_mm = PLANES[plane].along.map((axis) => volume.header.spacing_mm[axis]);
  const [a, b] = [first, last].map(({ mask, width, height }) => computeSignedDistance(mask, width, height, spacing_mm));
  for (let index = first.index + 1; index < last.index; index++) {
    const share = (index - first.index) / (last.index - first.index);
    const { offsets } = listPlaneOffsets(volume.header, plane, index);
    for (let n = 0; n < a.length; n++) if (a[n] * (1 - share) + b[n] * share < 0) visit(offsets[n]);
  }
}

/**
 * Computes the distance of each pixel to the edge of a mask, in mm, negative inside.
 * @param {Uint8Array} mask
 * @param {number} width
 * @param {number} height
 * @param {Vector} spacing_mm
 */
export function computeSignedDistance(mask, width, height, spacing_mm) {
  const toInside = computeSquaredDistance(mask, 1, width, height, spacing_mm);
  const toOutside = computeSquaredDistance(mask, 0, width, height, spacing_mm);
  return toInside.map((x, n) => Math.sqrt(x) - Math.sqrt(toOutside[n]));
}

/**
 * Computes the exact squared distance of each pixel to the nearest pixel of a value. Felzenszwalb PF, Huttenlocher DP,
 * Distance transforms of sampled functions, 2012.
 * @param {Uint8Array} mask
 * @param {number} value
 * @param {number} width
 * @param {number} height
 * @param {Vector} spacing_mm
 */
function computeSquaredDistance(mask, value, width, height, [dx, dy]) {
  const far = (width * dx) ** 2 + (height * dy) ** 2 + 1;
  const grid = Float64Array.from(mask, (m) => (m === value ? 0 : far));
  for (let y = 0; y < height; y++) {
    grid.set(computeLowerEnvelope(grid.subarray(y * width, (y + 1) * width), dx), y * width);
  }
  const column = new Float64Array(height);
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) column[y] = grid[y * width + x];
    computeLowerEnvelope(column, dy).forEach((d, y) => (grid[y * width + x] = d));
  }
  return grid;
}

/**
 * Computes the lower envelope of one parabola per sample.
 * @param {Float64Array} samples
 * @param {number} step distance between two samples
 */
function computeLowerEnvelope(samples, step) {
  const roots = [0];
  const starts = [-Infinity];
  /** @type {(a: number, b: number) => number} */
  const intersect = (a, b) => (samples[b] - samples[a] + step * step * (b * b - a * a)) / (2 * step * step * (b - a));
  for (let q = 1; q < samples.length; q++) {
    let start = intersect(roots[roots.length - 1], q);
    while (start <= starts[starts.length - 1]) {
      roots.pop();
      starts.pop();
      start = intersect(roots[roots.length - 1], q);
    }
    roots.push(q);
    starts.push(start);
  }
  const envelope = new Float64Array(samples.length);
  for (let q = 0, part = 0; q < samples.length; q++) {
    while (part + 1 < starts.length && starts[part + 1] < q) part++;
    envelope[q] = samples[roots[part]] + (step * (q - roots[part])) ** 2;
  }
  return envelope;
}
