// @ts-check
// Geometry: where a voxel of a RAS volume lies in the patient and on the screen.
/** @import { Plane, Vector, View, VolumeHeader } from "./types" */

/**
 * The axis that a plane is cut across, and the axes that run along the screen's x and y. Both axes are drawn backwards:
 * right, anterior and superior lie at the left or the top, as on a light box.
 * @type {Record<Plane, { across: number, along: Vector }>}
 */
export const PLANES = {
  axial: { across: 2, along: [0, 1] },
  coronal: { across: 1, along: [0, 2] },
  sagittal: { across: 0, along: [1, 2] },
};
export const PLANE_NAMES = /** @type {Plane[]} */ (Object.keys(PLANES));

/**
 * Returns `value`, or the nearest end of the range from `low` to `high`.
 * @param {number} value
 * @param {number} low
 * @param {number} high
 */
export function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

/**
 * Converts a voxel index to mm RAS.
 * @param {number[][]} affine
 * @param {Vector} index
 * @returns {Vector}
 */
export function toMm(affine, index) {
  return [0, 1, 2].map(
    (r) => affine[r][0] * index[0] + affine[r][1] * index[1] + affine[r][2] * index[2] + affine[r][3],
  );
}

/**
 * Converts mm RAS to a voxel index with fractions.
 * @param {number[][]} affine
 * @param {Vector} mm
 * @returns {Vector}
 */
export function toIndex(affine, mm) {
  const [a, b, c] = affine;
  const p = [mm[0] - a[3], mm[1] - b[3], mm[2] - c[3]];
  const columns = [0, 1, 2].map((n) => [a[n], b[n], c[n]]);
  const volume = dot(columns[0], cross(columns[1], columns[2]));
  return [0, 1, 2].map((n) => dot(p, cross(columns[(n + 1) % 3], columns[(n + 2) % 3])) / volume);
}

/**
 * Measures the distance between two voxels, in mm.
 * @param {number[][]} affine
 * @param {Vector} from
 * @param {Vector} to
 */
export function measureDistance(affine, from, to) {
  return measureLength([toMm(affine, from), toMm(affine, to)]);
}

/**
 * Measures the length of a line between two points in mm.
 * @param {Vector[]} ends
 */
export function measureLength([a, b]) {
  return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

/**
 * Rounds an index to the nearest voxel of the volume.
 * @param {VolumeHeader} header
 * @param {Vector} index
 * @returns {Vector}
 */
export function findNearestVoxel(header, index) {
  return index.map((x, axis) => clamp(Math.round(x), 0, header.shape[axis] - 1));
}

/**
 * Returns whether an index lies in the volume.
 * @param {VolumeHeader} header
 * @param {Vector} index
 */
export function isInside(header, index) {
  return index.every((x, axis) => x > -0.5 && x < header.shape[axis] - 0.5);
}

/**
 * Formats a point in mm RAS with letters for the sides in place of signs.
 * @param {Vector} mm
 */
export function formatPosition(mm) {
  const sides = ["LR", "PA", "IS"];
  return mm.map((x, axis) => `${sides[axis][x >= 0 ? 1 : 0]} ${Math.abs(x).toFixed(1)}`).join("  ");
}

/**
 * Returns the view that shows a place in the middle of a pane with a field around it, or the whole plane if that is
 * smaller than the field.
 * @param {VolumeHeader} header
 * @param {Plane} plane
 * @param {Vector} size of the pane
 * @param {Vector} index
 * @param {number} field_mm
 * @returns {View}
 */
export function viewAround(header, plane, size, index, field_mm) {
  const { along } = PLANES[plane];
  const extents = along.map((axis) => header.shape[axis] * header.spacing_mm[axis]);
  const pixelsPerMm = Math.min(...size.map((pixels, a) => pixels / extents[a]));
  const zoom = Math.min(...size) / (pixelsPerMm * field_mm);
  if (!(zoom > 1.01)) return { zoom: 1, pan: [0, 0] };
  const middles = along.map((axis) => index[axis] + 0.5 - header.shape[axis] / 2);
  return { zoom, pan: middles.map((voxels, a) => voxels * header.spacing_mm[along[a]]) };
}

/** Where the voxels of one plane lie on a canvas, in device pixels. */
export class Frame {
  /**
   * @param {VolumeHeader} header
   * @param {Plane} plane
   * @param {number} width of the canvas
   * @param {number} height of the canvas
   * @param {View} view
   */
  constructor(header, plane, width, height, view) {
    this.plane = plane;
    this.along = PLANES[plane].along;
    this.across = PLANES[plane].across;
    this.count = this.along.map((axis) => header.shape[axis]);
    const mm = this.along.map((axis) => header.spacing_mm[axis]);
    const fit = Math.min(width / (this.count[0] * mm[0]), height / (this.count[1] * mm[1]));
    this.pixelsPerMm = fit * view.zoom;
    this.step = mm.map((x) => x * this.pixelsPerMm);
    this.origin = [width, height].map(
      (size, a) => (size - this.count[a] * this.step[a]) / 2 + view.pan[a] * this.pixelsPerMm,
    );
  }

  /**
   * Takes over the scale of another frame, and puts a voxel of this volume where the other frame puts its own.
   * @param {Frame} other
   * @param {Vector} otherVoxel
   * @param {Vector} voxel
   */
  align(other, otherVoxel, voxel) {
    this.step = this.step.map((pixels) => (pixels * other.pixelsPerMm) / this.pixelsPerMm);
    this.pixelsPerMm = other.pixelsPerMm;
    const pixel = other.toPixel(otherVoxel);
    this.origin = pixel.map((x, a) => x - (this.count[a] - 0.5 - voxel[this.along[a]]) * this.step[a]);
  }

  /**
   * Returns the pixel at the middle of a voxel.
   * @param {Vector} index
   * @returns {Vector}
   */
  toPixel(index) {
    return this.along.map((axis, a) => this.origin[a] + (this.count[a] - 0.5 - index[axis]) * this.step[a]);
  }

  /**
   * Returns the point under a pixel, in the plane through `cursor`; whole numbers are middles of voxels.
   * @param {Vector} pixel
   * @param {Vector} cursor
   * @returns {Vector}
   */
  toVoxel(pixel, cursor) {
    const index = [...cursor];
    pixel.forEach((x, a) => {
      index[this.along[a]] = this.count[a] - 0.5 - (x - this.origin[a]) / this.step[a];
    });
    return index;
  }
}

/**
 * @param {Vector} a
 * @param {Vector} b
 */
function dot(a, b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

/**
 * @param {Vector} a
 * @param {Vector} b
 */
function cross(a, b) {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}
