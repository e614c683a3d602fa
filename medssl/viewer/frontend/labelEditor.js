// @ts-check
// Label editor: strokes on the overlay, stored as runs, with undo and redo.
/** @import { Run, Vector } from "./types" */
/** @import { RemoteVolume } from "./volume.js" */
/** @typedef {{ before: Run[], after: Run[], id: string | null, facts?: object }} Stroke */

export class LabelEditor {
  /** Whether a stroke has begun that has not ended. */
  isDrawing = false;
  /** @type {Stroke[]} */
  undoStack = [];
  /** @type {Stroke[]} */
  redoStack = [];
  /** @type {Map<number, number>} offset -> label before the current stroke */
  #previous = new Map();
  #volume;

  /** @param {RemoteVolume} volume */
  constructor(volume) {
    this.#volume = volume;
  }

  beginStroke() {
    this.#volume.isEdited = true;
    this.#previous = new Map();
    this.isDrawing = true;
  }

  /**
   * @param {number} offset
   * @param {number} label
   */
  setLabel(offset, label) {
    if (label > 255 && this.#volume.data instanceof Uint8Array) this.#volume.data = Int16Array.from(this.#volume.data);
    const { data } = this.#volume;
    if (data[offset] === label) return;
    if (!this.#previous.has(offset)) this.#previous.set(offset, data[offset]);
    data[offset] = label;
  }

  /**
   * Returns the runs of the finished stroke, or null if it changed nothing.
   * @returns {Run[] | null}
   */
  endStroke() {
    const { data } = this.#volume;
    const previous = this.#previous;
    const offsets = Float64Array.from(previous.keys())
      .filter((n) => data[n] !== previous.get(n))
      .sort();
    this.#previous = new Map();
    this.isDrawing = false;
    if (!offsets.length) return null;
    const before = encodeRuns(offsets, (n) => previous.get(n) ?? 0);
    const after = encodeRuns(offsets, (n) => data[n]);
    this.redoStack = [];
    this.undoStack.push({ before, after, id: null });
    return after;
  }

  /**
   * Remembers under which identity the last stroke was sent.
   * @param {string} id
   * @param {object} [facts] that the record keeps about it
   */
  markSent(id, facts) {
    Object.assign(this.undoStack[this.undoStack.length - 1], { id, facts });
  }

  /**
   * Draws a stroke of which the runs are known, as one that can be taken back.
   * @param {string} id
   * @param {Run[]} runs
   */
  repeat(id, runs) {
    this.beginStroke();
    for (const [start, length, label] of runs) {
      for (let n = start; n < start + length; n++) this.setLabel(n, label);
    }
    if (this.endStroke()) this.markSent(id);
  }

  /**
   * Takes the last stroke back if it is the given one. Returns whether it was.
   * @param {string} id
   */
  undo(id) {
    const stroke = this.undoStack.at(-1);
    if (stroke?.id !== id) return false;
    this.undoStack.pop();
    this.#apply(stroke.before);
    this.redoStack.push(stroke);
    return true;
  }

  /** Repeats the last stroke that was taken back, and returns it; null if there is none. */
  redo() {
    const stroke = this.redoStack.pop();
    if (!stroke) return null;
    this.#apply(stroke.after);
    this.undoStack.push(stroke);
    return stroke;
  }

  /**
   * Returns the slices in which strokes drew or erased a label: the axis across each, and its index. Strokes through
   * several slices, and proposals that were kept, do not count.
   * @param {number} label
   * @param {Vector} shape of the volume
   * @returns {[number, number][]}
   */
  listSlices(label, shape) {
    /** @type {Map<string, [number, number]>} */
    const slices = new Map();
    for (const { before, after, facts } of this.undoStack) {
      const isOfLabel = [...before, ...after].some(([, , value]) => value === label);
      const slice = isOfLabel && !(facts && "assist" in facts) ? findSlice(after, shape) : null;
      if (slice) slices.set(slice.join(), slice);
    }
    return [...slices.values()];
  }

  /** @param {Run[]} runs */
  #apply(runs) {
    this.#volume.isEdited = true;
    for (const [start, length, label] of runs) this.#volume.data.fill(label, start, start + length);
  }
}

/**
 * Returns the axis across the only slice that holds all voxels of these runs, and its index; null if there is none.
 * @param {Run[]} runs
 * @param {Vector} shape
 * @returns {[number, number] | null}
 */
function findSlice(runs, [ni, nj]) {
  const ends = runs.flatMap(([start, length]) => [start, start + length - 1]);
  const isSame = (/** @type {(offset: number) => number} */ read) => ends.every((n) => read(n) === read(ends[0]));
  /** @type {((offset: number) => number)[]} */
  const indices = [(n) => n % ni, (n) => Math.floor(n / ni) % nj, (n) => Math.floor(n / (ni * nj))];
  const axis = [2, 1, 0].find((a) => isSame(indices[a]));
  return axis === undefined ? null : [axis, indices[axis](ends[0])];
}

/**
 * Joins neighbouring voxels of the same label to runs.
 * @param {ArrayLike<number> & Iterable<number>} offsets in ascending order
 * @param {(offset: number) => number} labelAt
 */
export function encodeRuns(offsets, labelAt) {
  /** @type {Run[]} */
  const runs = [];
  for (const offset of offsets) {
    const label = labelAt(offset);
    const last = runs[runs.length - 1];
    if (last && offset === last[0] + last[1] && label === last[2]) last[1]++;
    else runs.push([offset, 1, label]);
  }
  return runs;
}
