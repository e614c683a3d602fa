// @ts-check
// Scissors: a drag around voxels of the chosen finding cuts them off, on the slice or, with a ball, on all slices.
import { PLANES } from "./geometry.js";
import { beginLine, changeLine } from "./measureTools.js";
import { isInOutline } from "./regions.js";
import { valueToDraw } from "./state.js";
/** @import { Vector, ViewerState } from "./types" */
/** @import { Pane } from "./pane.js" */
/** @import { Tool } from "./tools.js" */

/** @type {Tool} */
export const SCISSORS = {
  name: "Scissors",
  hint: "Drag around what to cut off the chosen finding, on this slice, or with Ball on all slices",
  drawsLabels: true,
  needsPointer: true,
  begin: ({ store }, drag) => beginLine(store, drag, { shape: "freehand", points: [drag.index] }),
  move: ({ store }, drag) => changeLine(store, drag, { points: [...(drag.line?.points ?? []), drag.index] }),
  end({ store, notify, finishStroke }, { line, pane }) {
    const state = store.get();
    store.set({ measures: state.measures.filter((other) => other !== line) });
    if (!line?.points || !state.editor) return;
    state.editor.beginStroke();
    for (const offset of listCut(state, pane, line.points)) state.editor.setLabel(offset, 0);
    if (!finishStroke("scissors")) notify("Nothing of the chosen finding lies inside this outline.");
  },
};

/**
 * Lists the offsets of the voxels of the chosen finding inside an outline.
 * @param {Readonly<ViewerState>} state
 * @param {Pane} pane
 * @param {Vector[]} points
 */
function listCut(state, { plane, index }, points) {
  const { overlay, ballBrush } = state;
  if (!overlay) return [];
  const value = valueToDraw(state);
  const { along, across } = PLANES[plane];
  const { shape } = overlay.header;
  const outline = points.map((point) => along.map((axis) => point[axis]));
  const [low, high] = [Math.min, Math.max].map((pick) =>
    [0, 1].map((a) => Math.round(pick(...outline.map((point) => point[a])))),
  );
  const [first, last] = ballBrush ? [0, shape[across] - 1] : [index, index];
  const offsets = [];
  for (let x = Math.max(0, low[0]); x <= Math.min(shape[along[0]] - 1, high[0]); x++) {
    for (let y = Math.max(0, low[1]); y <= Math.min(shape[along[1]] - 1, high[1]); y++) {
      if (!isInOutline(outline, [x, y])) continue;
      for (let z = first; z <= last; z++) {
        const voxel = [0, 0, 0];
        [voxel[along[0]], voxel[along[1]], voxel[across]] = [x, y, z];
        const offset = overlay.offsetOf(voxel);
        if (overlay.data[offset] === value) offsets.push(offset);
      }
    }
  }
  return offsets;
}
