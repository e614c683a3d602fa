// Edit: strokes on a label image as runs, with undo and redo; fill and interpolation between slices.
import { PLANES } from "./geometry.js";

// A label image under correction. A run is [first voxel, voxels, label]; i is fastest.
export class Editor {
  constructor(volume) {
    this.volume = volume;
    this.done = [];
    this.undone = [];
    this.stroke = null;
  }

  begin() {
    this.volume.touched = true;
    this.stroke = new Map();
  }

  set(offset, label) {
    const { data } = this.volume;
    if (data[offset] === label) return;
    if (!this.stroke.has(offset)) this.stroke.set(offset, data[offset]);
    data[offset] = label;
  }

  // The runs of the stroke that ends here, or null if it changed nothing.
  end() {
    const { data } = this.volume;
    const offsets = [...this.stroke.keys()].filter((at) => data[at] !== this.stroke.get(at)).sort((a, b) => a - b);
    const before = runs(offsets, (at) => this.stroke.get(at));
    this.stroke = null;
    if (!offsets.length) return null;
    const after = runs(offsets, (at) => data[at]);
    this.undone = [];
    this.done.push({ before, after, seq: null });
    return after;
  }

  // Remembers under which number the last stroke was sent.
  sent(seq) {
    this.done[this.done.length - 1].seq = seq;
  }

  undo() {
    const step = this.done.pop();
    if (!step) return null;
    this.apply(step.before);
    this.undone.push(step);
    return step;
  }

  redo() {
    const step = this.undone.pop();
    if (!step) return null;
    this.apply(step.after);
    this.done.push(step);
    return step;
  }

  apply(list) {
    for (const [start, length, label] of list) this.volume.data.fill(label, start, start + length);
  }
}

export function runs(offsets, label) {
  const out = [];
  let run = null;
  for (const at of offsets) {
    const value = label(at);
    if (run && at === run[0] + run[1] && value === run[2]) run[1]++;
    else out.push((run = [at, 1, value]));
  }
  return out;
}

// Every voxel whose middle lies within `radius_mm` of a voxel: of its plane, or all around for a ball.
export function brush(header, centre, radius_mm, plane, ball, visit) {
  const reach = header.spacing_mm.map((mm, axis) => (!ball && axis === PLANES[plane].across ? 0 : Math.floor(radius_mm / mm)));
  const [low, high] = [-1, 1].map((sign) => centre.map((x, a) => Math.min(header.shape[a] - 1, Math.max(0, x + sign * reach[a]))));
  const [ni, nj] = header.shape;
  for (let k = low[2]; k <= high[2]; k++) {
    for (let j = low[1]; j <= high[1]; j++) {
      for (let i = low[0]; i <= high[0]; i++) {
        const [x, y, z] = [i, j, k].map((at, a) => (at - centre[a]) * header.spacing_mm[a]);
        if (x * x + y * y + z * z <= radius_mm * radius_mm + 1e-9) visit(i + ni * (j + nj * k));
      }
    }
  }
}

// Offsets of one plane, rows of columns in voxel order, and the width of a row.
export function planeOffsets(header, plane, index) {
  const stride = [1, header.shape[0], header.shape[0] * header.shape[1]];
  const { along, across } = PLANES[plane];
  const [width, height] = along.map((axis) => header.shape[axis]);
  const offsets = new Float64Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) offsets[y * width + x] = index * stride[across] + x * stride[along[0]] + y * stride[along[1]];
  }
  return { offsets, width, height };
}

// The region of one label around a voxel of a plane, edge by edge; null where it runs out of the image: not enclosed.
export function enclosed(volume, plane, centre) {
  const { along, across } = PLANES[plane];
  const { offsets, width, height } = planeOffsets(volume.header, plane, centre[across]);
  const label = volume.data[volume.offset(centre)];
  const seen = new Uint8Array(width * height);
  const found = [centre[along[1]] * width + centre[along[0]]];
  seen[found[0]] = 1;
  for (let n = 0; n < found.length; n++) {
    const x = found[n] % width;
    const y = (found[n] - x) / width;
    if (x === 0 || y === 0 || x === width - 1 || y === height - 1) return null;
    for (const next of [found[n] - 1, found[n] + 1, found[n] - width, found[n] + width]) {
      if (!seen[next] && volume.data[offsets[next]] === label) {
        seen[next] = 1;
        found.push(next);
      }
    }
  }
  return found.map((at) => offsets[at]);
}

// Shape-based interpolation: between two drawn slices, a voxel is inside where the mean of their signed distances,
// weighted by nearness, says so. Raya SP, Udupa JK, Shape-based interpolation of multidimensional objects, IEEE TMI 1990.
export function interpolate(volume, plane, label, visit) {
  const slices = volume.header.shape[PLANES[plane].across];
  let before = null;
  for (let index = 0; index < slices; index++) {
    const here = planeOffsets(volume.header, plane, index);
    const mask = Uint8Array.from(here.offsets, (at) => (volume.data[at] === label ? 1 : 0));
    if (!mask.includes(1)) continue;
    if (before && index - before.index > 1) between(volume, plane, before, { index, mask, ...here }, visit);
    before = { index, mask, ...here };
  }
}

function between(volume, plane, first, last, visit) {
  const mm = PLANES[plane].along.map((axis) => volume.header.spacing_mm[axis]);
  const [a, b] = [first, last].map((slice) => signedDistance(slice.mask, slice.width, slice.height, mm));
  for (let index = first.index + 1; index < last.index; index++) {
    const share = (index - first.index) / (last.index - first.index);
    const { offsets } = planeOffsets(volume.header, plane, index);
    for (let n = 0; n < a.length; n++) if (a[n] * (1 - share) + b[n] * share < 0) visit(offsets[n]);
  }
}

// Millimetres to the other side of a mask's edge, negative inside.
export function signedDistance(mask, width, height, mm) {
  const out = squaredDistance(mask, 1, width, height, mm);
  const inner = squaredDistance(mask, 0, width, height, mm);
  return out.map((x, n) => Math.sqrt(x) - Math.sqrt(inner[n]));
}

// To the nearest pixel of a value, exact: Felzenszwalb PF, Huttenlocher DP, Distance transforms of sampled functions, 2012.
function squaredDistance(mask, value, width, height, [dx, dy]) {
  const far = (width * dx) ** 2 + (height * dy) ** 2 + 1;
  const grid = Float64Array.from(mask, (m) => (m === value ? 0 : far));
  for (let y = 0; y < height; y++) grid.set(parabolas(grid.subarray(y * width, (y + 1) * width), dx), y * width);
  const column = new Float64Array(height);
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) column[y] = grid[y * width + x];
    parabolas(column, dy).forEach((d, y) => (grid[y * width + x] = d));
  }
  return grid;
}

// The lower envelope of a parabola over every sample.
function parabolas(f, step) {
  const n = f.length;
  const roots = [0];
  const starts = [-Infinity];
  const meet = (a, b) => (f[b] - f[a] + step * step * (b * b - a * a)) / (2 * step * step * (b - a));
  for (let q = 1; q < n; q++) {
    let at = meet(roots[roots.length - 1], q);
    while (at <= starts[starts.length - 1]) {
      roots.pop();
      starts.pop();
      at = meet(roots[roots.length - 1], q);
    }
    roots.push(q);
    starts.push(at);
  }
  const out = new Float64Array(n);
  for (let q = 0, part = 0; q < n; q++) {
    while (part + 1 < starts.length && starts[part + 1] < q) part++;
    out[q] = f[roots[part]] + (step * (q - roots[part])) ** 2;
  }
  return out;
}
