// @ts-check
// Mask edits: changes of the chosen finding's whole mask, each recorded as one stroke that can be taken back.
import { listPlaneOffsets } from "./drawing.js";
import { PLANES, clamp } from "./geometry.js";
import { cutMaskBox, fillHoles, growMask, keepLargestPart, shrinkMask, smoothMask, toOffset } from "./maskShapes.js";
import { shownLabelAt, shownLabelOf, valueToDraw } from "./state.js";
/** @import { MaskEditName, Notify, Plane, Vector, ViewerState } from "./types" */
/** @import { MaskBox } from "./maskShapes.js" */
/** @import { Store } from "./store.js" */

/** @type {Record<MaskEditName, (box: MaskBox, spacing_mm: Vector, margin_mm: number) => Uint8Array>} */
const EDITS = { grow: growMask, shrink: shrinkMask, smooth: smoothMask, holes: fillHoles, islands: keepLargestPart };
/** @type {Record<MaskEditName, string>} */
const IDLE = {
  grow: "There is no free voxel next to this finding.",
  shrink: "Nothing of this finding is drawn.",
  smooth: "The surface of this finding is smooth already.",
  holes: "This finding encloses no hole.",
  islands: "This finding has one part only.",
};

export class MaskEdits {
  #store;
  #notify;
  #finishStroke;

  /**
   * @param {object} uses
   * @param {Store<ViewerState>} uses.store
   * @param {Notify} uses.notify
   * @param {(tool: string) => boolean} uses.finishStroke
   */
  constructor({ store, notify, finishStroke }) {
    this.#store = store;
    this.#notify = notify;
    this.#finishStroke = finishStroke;
  }

  /**
   * Grows, shrinks or smooths the chosen finding by the margin, fills its holes, or keeps its largest part. Voxels of
   * other findings stay as they are.
   * @param {MaskEditName} name
   */
  apply(name) {
    const state = this.#store.get();
    const { editor, overlay } = state;
    if (!editor || !overlay || !this.#checkFinding(state)) return;
    const { spacing_mm } = overlay.header;
    const radius_mm = Math.max(state.margin_mm, Math.min(...spacing_mm));
    const value = valueToDraw(state);
    const box = cutMaskBox(overlay, value, spacing_mm.map((mm) => Math.floor(radius_mm / mm) + 1)); // prettier-ignore
    if (!box) return this.#notify("Nothing of this finding is drawn.");
    const result = EDITS[name](box, spacing_mm, radius_mm);
    editor.beginStroke();
    result.forEach((isInside, n) => {
      if (isInside === box.mask[n]) return;
      const offset = toOffset(box, n);
      if (!isInside) editor.setLabel(offset, 0);
      else if (shownLabelAt(state, overlay.data[offset]) === 0) editor.setLabel(offset, value);
    });
    if (!this.#finishStroke(name)) this.#notify(IDLE[name]);
  }

  /**
   * Copies what is drawn of the chosen finding on a slice to a neighbouring slice, and goes there.
   * @param {Plane} plane
   * @param {number} by 1 or -1
   */
  copySlice(plane, by) {
    const state = this.#store.get();
    const { editor, overlay, cursor } = state;
    if (!editor || !overlay || !this.#checkFinding(state)) return;
    const { across } = PLANES[plane];
    const next = clamp(cursor[across] + by, 0, overlay.header.shape[across] - 1);
    if (next === cursor[across]) return this.#notify("There is no further slice.");
    const value = valueToDraw(state);
    const [from, to] = [cursor[across], next].map((index) => listPlaneOffsets(overlay.header, plane, index).offsets);
    if (!from.some((offset) => overlay.data[offset] === value)) {
      return this.#notify("Nothing of this finding is drawn on this slice.");
    }
    editor.beginStroke();
    from.forEach((offset, n) => {
      const isFree = shownLabelAt(state, overlay.data[to[n]]) === 0;
      if (overlay.data[offset] === value && isFree) editor.setLabel(to[n], value);
    });
    this.#store.set({ cursor: cursor.map((x, axis) => (axis === across ? next : x)) });
    if (!this.#finishStroke("copy")) this.#notify("The next slice holds it already.");
  }

  /** @param {ViewerState} state */
  #checkFinding(state) {
    const chosen = state.findings.find(({ id }) => id === state.selected);
    const isRejected = chosen && !shownLabelOf(state, chosen);
    if (isRejected) this.#notify("This finding is rejected. Edit it (E) to draw on it again.");
    return !isRejected;
  }
}
