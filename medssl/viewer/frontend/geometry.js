// Geometry: where a voxel of a RAS volume lies in the patient and on the screen.

// The axis a plane is cut across, and those that run along the screen's x and y. All are drawn backwards: right,
// anterior and superior lie at the left or the top, as on a light box.
export const PLANES = {
  axial: { across: 2, along: [0, 1] },
  coronal: { across: 1, along: [0, 2] },
  sagittal: { across: 0, along: [1, 2] },
};
export const PLANE_NAMES = Object.keys(PLANES);

export function toMm(affine, index) {
  return [0, 1, 2].map((r) => affine[r][0] * index[0] + affine[r][1] * index[1] + affine[r][2] * index[2] + affine[r][3]);
}

export function toIndex(affine, mm) {
  const [a, b, c] = affine;
  const p = [mm[0] - a[3], mm[1] - b[3], mm[2] - c[3]];
  const columns = [0, 1, 2].map((n) => [a[n], b[n], c[n]]);
  const volume = dot(columns[0], cross(columns[1], columns[2]));
  return [0, 1, 2].map((n) => dot(p, cross(columns[(n + 1) % 3], columns[(n + 2) % 3])) / volume);
}

export function distanceMm(affine, from, to) {
  return lengthMm([toMm(affine, from), toMm(affine, to)]);
}

export function lengthMm([a, b]) {
  return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

export function nearestVoxel(header, index) {
  return index.map((x, axis) => Math.min(header.shape[axis] - 1, Math.max(0, Math.round(x))));
}

export function inside(header, index) {
  return index.every((x, axis) => x > -0.5 && x < header.shape[axis] - 0.5);
}

// A point as readers write it: the side, not a sign.
export function anatomical(mm) {
  const sides = ["LR", "PA", "IS"];
  return mm.map((x, axis) => `${sides[axis][x >= 0 ? 1 : 0]} ${Math.abs(x).toFixed(1)}`).join("  ");
}

// Where the voxels of one plane lie on a canvas, in device pixels.
export class Frame {
  constructor(header, plane, width, height, view) {
    this.plane = plane;
    this.along = PLANES[plane].along;
    this.across = PLANES[plane].across;
    this.count = this.along.map((axis) => header.shape[axis]);
    const mm = this.along.map((axis) => header.spacing_mm[axis]);
    const fit = Math.min(width / (this.count[0] * mm[0]), height / (this.count[1] * mm[1]));
    this.pixelsPerMm = fit * view.zoom;
    this.step = mm.map((x) => x * this.pixelsPerMm);
    this.origin = [width, height].map((n, a) => (n - this.count[a] * this.step[a]) / 2 + view.pan[a] * this.pixelsPerMm);
  }

  // The scale of another frame, with a voxel of its own where that one has one of its.
  follow(other, theirs, mine) {
    this.step = this.step.map((n) => (n * other.pixelsPerMm) / this.pixelsPerMm);
    this.pixelsPerMm = other.pixelsPerMm;
    const at = other.toPixel(theirs);
    this.origin = at.map((n, a) => n - (this.count[a] - 0.5 - mine[this.along[a]]) * this.step[a]);
  }

  // The middle of a voxel.
  toPixel(index) {
    return this.along.map((axis, a) => this.origin[a] + (this.count[a] - 0.5 - index[axis]) * this.step[a]);
  }

  // The point under a pixel, in the plane through `cursor`; whole numbers are middles of voxels.
  toVoxel(x, y, cursor) {
    const index = [...cursor];
    [x, y].forEach((pixel, a) => {
      index[this.along[a]] = this.count[a] - 0.5 - (pixel - this.origin[a]) / this.step[a];
    });
    return index;
  }
}

function dot(a, b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

function cross(a, b) {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}
