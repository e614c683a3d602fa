// @ts-check
// Regions: the voxels inside an ellipse, an outline drawn by hand or a sphere, and their statistics.
import { PLANES, measureDistance } from "./geometry.js";
/** @import { Line, Vector, VolumeHeader } from "./types" */
/** @import { RemoteVolume } from "./volume.js" */

/**
 * Visits the voxels whose middles lie in a region.
 * @param {VolumeHeader} header
 * @param {Pick<Line, "plane" | "from" | "to" | "shape" | "points">} region
 * @param {(index: Vector) => void} visit
 */
export function visitRegion(header, region, visit) {
  const { low, high, isInside } = describeRegion(header, region);
  const [first, last] = [
    low.map((x) => Math.max(0, Math.ceil(x - 1e-9))),
    high.map((x, axis) => Math.min(header.shape[axis] - 1, Math.floor(x + 1e-9))),
  ];
  for (let k = first[2]; k <= last[2]; k++) {
    for (let j = first[1]; j <= last[1]; j++) {
      for (let i = first[0]; i <= last[0]; i++) if (isInside([i, j, k])) visit([i, j, k]);
    }
  }
}

/**
 * Measures the values of a region: their mean, standard deviation (of all voxels), smallest and largest value, and the
 * area or the volume of its voxels. Returns null if it holds no voxel, or one that is not loaded.
 * @param {RemoteVolume} volume
 * @param {Pick<Line, "plane" | "from" | "to" | "shape" | "points">} region
 */
export function measureRegion(volume, region) {
  const { header } = volume;
  /** @type {number[]} */
  const values = [];
  let isLoaded = true;
  visitRegion(header, region, (index) => {
    const value = volume.valueAt(index);
    if (value === null) isLoaded = false;
    else values.push(value);
  });
  if (!isLoaded || !values.length) return null;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  const sizes = header.spacing_mm.filter(
    (_, axis) => region.shape === "sphere" || axis !== PLANES[region.plane].across,
  );
  return {
    count: values.length,
    mean,
    sd: Math.sqrt(variance),
    min: values.reduce((a, b) => Math.min(a, b)),
    max: values.reduce((a, b) => Math.max(a, b)),
    /** In mm2, of a sphere in mm3. */
    extent: values.length * sizes.reduce((product, mm) => product * mm, 1),
  };
}

/**
 * Writes the statistics of a region on two lines.
 * @param {RemoteVolume} volume
 * @param {Line} region
 */
export function describeStatistics(volume, region) {
  const found = measureRegion(volume, region);
  if (!found) return "no voxel here";
  const { mean, sd, min, max, extent } = found;
  const isSphere = region.shape === "sphere";
  const size = isSphere ? `${(extent / 1000).toPrecision(3)} ml` : `${(extent / 100).toPrecision(3)} cm²`;
  const [m, s, low, high] = [mean, sd, min, max].map((value) => formatNumber(value));
  return `${m} ± ${s} ${volume.header.unit}\nmin ${low}  max ${high}  ${size}`;
}

/**
 * Measures the angle at a vertex, in degrees.
 * @param {number[][]} affine
 * @param {Vector} vertex
 * @param {Vector[]} ends of both arms
 */
export function measureAngle(affine, vertex, [first, second]) {
  const [a, b, c] = [
    measureDistance(affine, vertex, first),
    measureDistance(affine, vertex, second),
    measureDistance(affine, first, second),
  ];
  return (Math.acos(Math.min(1, Math.max(-1, (a * a + b * b - c * c) / (2 * a * b || 1)))) * 180) / Math.PI;
}

/**
 * @param {VolumeHeader} header
 * @param {Pick<Line, "plane" | "from" | "to" | "shape" | "points">} region
 * @returns {{ low: Vector, high: Vector, isInside: (index: Vector) => boolean }}
 */
function describeRegion({ spacing_mm }, { plane, from, to, shape, points = [] }) {
  if (shape === "sphere") {
    const toSquare = (/** @type {Vector} */ index) =>
      index.reduce((sum, x, axis) => sum + ((x - from[axis]) * spacing_mm[axis]) ** 2, 0);
    const square = toSquare(to);
    const reach = spacing_mm.map((mm) => Math.sqrt(square) / mm);
    return {
      low: from.map((x, axis) => x - reach[axis]),
      high: from.map((x, axis) => x + reach[axis]),
      isInside: (index) => toSquare(index) <= square + 1e-9,
    };
  }
  const { along, across } = PLANES[plane];
  const slice = Math.round(from[across]);
  const corners = shape === "freehand" ? points : [from, to];
  const [low, high] = [Math.min, Math.max].map((pick) =>
    from.map((_, axis) => (axis === across ? slice : pick(...corners.map((corner) => corner[axis])))),
  );
  const middle = low.map((x, axis) => (x + high[axis]) / 2);
  const isInEllipse = (/** @type {Vector} */ index) =>
    along.reduce(
      (sum, axis) => sum + ((index[axis] - middle[axis]) / ((high[axis] - low[axis]) / 2 || 1e-9)) ** 2,
      0,
    ) <=
    1 + 1e-9;
  const outline = points.map((point) => along.map((axis) => point[axis]));
  return {
    low,
    high,
    isInside: shape === "freehand" ? (index) => isInOutline(outline, [index[along[0]], index[along[1]]]) : isInEllipse,
  };
}

/**
 * Returns whether a point lies in a closed outline, by the even-odd rule.
 * @param {Vector[]} outline
 * @param {Vector} point
 */
export function isInOutline(outline, [x, y]) {
  let isInside = false;
  outline.forEach(([x1, y1], n) => {
    const [x0, y0] = outline.at(n - 1) ?? [0, 0];
    if (y0 > y !== y1 > y && x < ((x1 - x0) * (y - y0)) / (y1 - y0) + x0) isInside = !isInside;
  });
  return isInside;
}

/** @param {number} value */
function formatNumber(value) {
  return Number.isInteger(value) ? String(value) : value.toFixed(Math.abs(value) < 10 ? 2 : 1);
}
