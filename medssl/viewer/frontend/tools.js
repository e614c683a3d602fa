// @ts-check
// Tools: what a drag of the pointer does on a pane, or a key at the crosshair.
import { findEnclosedRegion, visitBrushVoxels } from "./drawing.js";
import { PLANES, findNearestVoxel } from "./geometry.js";
import { ASSIST } from "./assistant.js";
import { MEASURE_TOOLS } from "./measureTools.js";
import { SCISSORS } from "./scissors.js";
import { shownLabelAt, shownLabelOf, valueToDraw } from "./state.js";
/** @import { Drag, IntensityWindow, Line, Notify, ToolName, Vector, ViewerState } from "./types" */
/** @import { Pane } from "./pane.js" */
/** @import { Store } from "./store.js" */

/**
 * What the tools use of the viewer.
 * @typedef {object} ToolContext
 * @property {Store<ViewerState>} store of the case
 * @property {Notify} notify
 * @property {(pane: Pane, voxel: Vector) => void} moveCursor
 * @property {(voxel: Vector) => void} selectAt chooses the finding that a voxel belongs to
 * @property {(pane: Pane) => IntensityWindow | null} windowOf the window of the image that a pane shows
 * @property {(pane: Pane, window: IntensityWindow) => void} setWindow
 * @property {() => void} rememberWindow
 * @property {(tool: string) => boolean} finishStroke
 * @property {(index: Vector, isInside: boolean) => void} markVoxel marks a voxel for a proposal
 * @property {() => void} requestProposal
 * @property {(long: Line, short: Line) => void} recordAxes
 */

/**
 * A tool hears a drag as begin, move and end; the drag keeps what the tool needs in between.
 * @typedef {object} Tool
 * @property {string} name
 * @property {string} hint
 * @property {(context: ToolContext, drag: Drag) => void} begin
 * @property {(context: ToolContext, drag: Drag) => void} [move]
 * @property {(context: ToolContext, drag: Drag) => void} [end]
 * @property {boolean} [usesArrows] the arrow keys act as short drags
 * @property {boolean} [worksOutside] a drag may begin outside the volume
 * @property {boolean} [hasTwoEnds] at the crosshair, the first key sets one end and the second key the other
 * @property {boolean} [needsPointer] a path of the pointer, which keys cannot draw
 * @property {boolean} [usesModifier] Ctrl has a meaning of its own, and does not erase
 * @property {boolean} [measures]
 * @property {boolean} [drawsLabels]
 * @property {boolean} [recordsAxes]
 */

const NUDGE_PIXELS = 20;
/** A press that moves less is a click. */
const CLICK_PIXELS = 4;
/** @type {Record<string, Vector>} */
const NUDGES = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };

/** @type {Record<ToolName, Tool>} */
export const TOOLS = {
  navigate: {
    name: "Navigate",
    hint: "Move the crosshair; the other planes follow. A click on a mask chooses its finding",
    begin: moveCrosshair,
    move: moveCrosshair,
    end({ store, selectAt }, { pane, index, dx, dy }) {
      const isClick = Math.hypot(dx, dy) < CLICK_PIXELS * pane.ratio;
      const { volume } = store.get();
      if (isClick && volume && pane.store === store) selectAt(findNearestVoxel(volume.header, index));
    },
  },
  window: {
    name: "Window",
    usesArrows: true,
    worksOutside: true,
    hint: "Sideways: width; up and down: level. The right button does this with every tool",
    begin({ windowOf }, drag) {
      drag.window = windowOf(drag.pane) ?? undefined;
    },
    move({ setWindow }, { window, dx, dy, pane }) {
      if (!window) return;
      const { low, high } = window;
      const width = (high - low) * Math.exp(dx / (200 * pane.ratio));
      const level = (low + high) / 2 - (dy * (high - low)) / (400 * pane.ratio);
      setWindow(pane, { name: "own", low: level - width / 2, high: level + width / 2 });
    },
    end: ({ rememberWindow }) => rememberWindow(),
  },
  pan: {
    name: "Pan",
    usesArrows: true,
    worksOutside: true,
    hint: "Move the image. Shift or the middle button does this with every tool",
    begin(_, drag) {
      drag.pan = drag.pane.view.pan;
    },
    move({ store }, { pan, pane, dx, dy }) {
      const { frame, plane, view } = pane;
      if (!frame || !pan) return;
      const shifted = [dx, dy].map((pixels, a) => pan[a] + pixels / frame.pixelsPerMm);
      store.set({ views: { ...store.get().views, [plane]: { ...view, pan: shifted } } });
    },
  },
  ...MEASURE_TOOLS,
  brush: createBrush("Brush", "Paint the chosen finding", valueToDraw),
  erase: createBrush("Erase", "Remove labels", () => 0),
  range: createBrush(
    "Range",
    "Paint only voxels whose value lies in the range, which is the window unless Edit sets another",
    valueToDraw,
    isInRange,
  ),
  fill: {
    name: "Fill",
    hint: "Click into a closed outline",
    drawsLabels: true,
    begin({ store, notify, finishStroke }, { pane, index }) {
      const state = store.get();
      const { overlay, editor } = state;
      if (!overlay || !editor) return;
      const region = findEnclosedRegion(overlay, pane.plane, findNearestVoxel(overlay.header, index));
      if (!region) return notify("Not closed: this region reaches the edge of the image. Close the outline first.");
      editor.beginStroke();
      region.forEach((offset) => editor.setLabel(offset, valueToDraw(state)));
      finishStroke("fill");
    },
  },
  scissors: SCISSORS,
  assist: ASSIST,
};

/**
 * Chooses a tool, and removes a measurement that has only one end.
 * @param {Store<ViewerState>} store
 * @param {ToolName} tool
 */
export function selectTool(store, tool) {
  const { heldDrag, measures } = store.get();
  store.set({
    tool,
    heldDrag: null,
    measures: heldDrag ? measures.filter((line) => line !== heldDrag.line) : measures,
  });
}

/**
 * Uses an arrow key as a short drag. Returns false if the current tool does not use the arrows.
 * @param {ToolContext} context
 * @param {Pane} pane
 * @param {string} key
 */
export function nudge(context, pane, key) {
  const tool = TOOLS[context.store.get().tool];
  const direction = NUDGES[key];
  if (!tool.usesArrows || !direction || !pane.frame) return false;
  const [dx, dy] = direction.map((sign) => sign * NUDGE_PIXELS * pane.ratio);
  const { cursor } = context.store.get();
  const drag = { pane, index: cursor, previous: cursor, dx, dy };
  tool.begin(context, drag);
  tool.move?.(context, drag);
  tool.end?.(context, drag);
  return true;
}

/**
 * Uses the current tool at the crosshair, as a click does. A measurement takes two calls, and its second end stays in
 * the plane of the first.
 * @param {ToolContext} context
 * @param {Pane} activePane
 * @param {boolean} isModified whether it acts as a click with Ctrl
 */
export function applyAtCursor(context, activePane, isModified = false) {
  const { store, notify } = context;
  const { tool: name, heldDrag } = store.get();
  const tool = TOOLS[name];
  if (tool.needsPointer) return notify(`${tool.name} needs the pointer.`);
  if (!tool.hasTwoEnds && !tool.drawsLabels) return notify(`${tool.name} works with the arrow keys.`);
  const index = [...activePane.store.get().cursor];
  const drag = heldDrag ?? { pane: activePane, index, previous: index, dx: 0, dy: 0, isModified };
  if (!checkTool(context, tool, drag.pane)) return;
  if (heldDrag) {
    const { across } = PLANES[drag.pane.plane];
    index[across] = drag.index[across];
    tool.move?.(context, Object.assign(drag, { index }));
  } else tool.begin(context, drag);
  const isHeld = tool.hasTwoEnds && !heldDrag;
  store.set({ heldDrag: isHeld ? drag : null });
  if (!isHeld) tool.end?.(context, drag);
}

/**
 * Returns whether a tool may work on a pane now; if not, a message says why.
 * @param {ToolContext} context
 * @param {Tool} tool
 * @param {Pane} pane
 */
export function checkTool({ store, notify }, tool, pane) {
  const state = store.get();
  const { editable, editor, selected, findings } = state;
  const chosen = findings.find(({ id }) => id === selected);
  if (!tool.recordsAxes && !tool.drawsLabels) return true;
  const obstacle =
    pane.store !== store
      ? "The comparison is read-only."
      : !editable
        ? "This case is closed to changes."
        : tool.recordsAxes && !selected
          ? "Choose a finding first."
          : tool.drawsLabels && !editor
            ? "The mask is still loading; drawing starts when it is complete."
            : tool.drawsLabels && chosen && !shownLabelOf(state, chosen)
              ? "This finding is rejected. Edit it (E) to draw on it again."
              : null;
  if (obstacle) notify(obstacle);
  return !obstacle;
}

/**
 * @param {ToolContext} context
 * @param {Drag} drag
 */
function moveCrosshair({ moveCursor }, { pane, index }) {
  const { volume } = pane.store.get();
  if (volume) moveCursor(pane, findNearestVoxel(volume.header, index));
}

/**
 * Creates a tool that paints or erases along a drag.
 * @param {string} name
 * @param {string} hint
 * @param {(state: Readonly<ViewerState>) => number} chooseValue
 * @param {(state: Readonly<ViewerState>, offset: number) => boolean} isAllowed
 * @returns {Tool}
 */
function createBrush(name, hint, chooseValue, isAllowed = () => true) {
  /** @type {(store: Store<ViewerState>, pane: Pane, from: Vector, to: Vector) => void} */
  const paint = (store, { plane }, from, to) => {
    const state = store.get();
    const { volume, overlay, editor, radius_mm, ballBrush } = state;
    if (!volume || !overlay || !editor) return;
    const value = chooseValue(state);
    const label = shownLabelAt(state, value);
    // A voxel that shows this label already stays with its finding; a voxel of a rejected finding shows none.
    /** @type {(offset: number) => boolean} */
    const isDifferent = (offset) => shownLabelAt(state, overlay.data[offset]) !== label;
    const distances = PLANES[plane].along.map((axis) => Math.abs(to[axis] - from[axis]));
    const steps = Math.max(1, ...distances.map((voxels) => Math.ceil(voxels * 2)));
    let previous = from === to ? null : findNearestVoxel(volume.header, from);
    for (let n = 1; n <= steps; n++) {
      const centre = findNearestVoxel(
        volume.header,
        from.map((x, axis) => x + ((to[axis] - x) * n) / steps),
      );
      const brush = { centre, previous, radius_mm, plane, isBall: ballBrush };
      visitBrushVoxels(volume.header, brush, (offset) => {
        if (isDifferent(offset) && isAllowed(state, offset)) editor.setLabel(offset, value);
      });
      previous = centre;
    }
    store.set({ overlayVersion: state.overlayVersion + 1 });
  };
  return {
    name,
    hint,
    drawsLabels: true,
    begin({ store }, { pane, index }) {
      if (chooseValue === valueToDraw) chooseFindingAt(store, index);
      store.get().editor?.beginStroke();
      paint(store, pane, index, index);
    },
    move: ({ store }, { pane, previous, index }) => paint(store, pane, previous, index),
    end: ({ finishStroke }) => finishStroke(name.toLowerCase()),
  };
}

/**
 * Chooses the finding that a stroke begins on, if it has the label that is drawn.
 * @param {Store<ViewerState>} store
 * @param {Vector} index
 */
function chooseFindingAt(store, index) {
  const state = store.get();
  const { overlay, findings, label } = state;
  if (!overlay) return;
  const value = overlay.data[overlay.offsetOf(findNearestVoxel(overlay.header, index))];
  const finding = findings.find(({ number }) => number === value);
  if (finding && shownLabelOf(state, finding) === label) store.set({ selected: finding.id });
}

/**
 * @param {Readonly<ViewerState>} state
 * @param {number} offset
 */
function isInRange({ volume, window, range }, offset) {
  const limits = range ?? window;
  if (!volume || !limits) return false;
  const value = volume.data[offset] * volume.header.slope + volume.header.intercept;
  return value >= limits.low && value <= limits.high;
}
