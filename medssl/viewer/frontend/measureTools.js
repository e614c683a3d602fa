// @ts-check
// Measure tools: lengths, axes, angles, arrows and regions that a drag draws on a plane.
import { findNearestVoxel, measureDistance } from "./geometry.js";
import { describeStatistics, measureAngle } from "./regions.js";
import { projectOntoNormal } from "./shortAxis.js";
/** @import { Drag, Line, MeasureToolName, Vector, ViewerState } from "./types" */
/** @import { RemoteVolume } from "./volume.js" */
/** @import { Store } from "./store.js" */
/** @import { Tool } from "./tools.js" */

/** @type {Record<MeasureToolName, Tool>} */
export const MEASURE_TOOLS = {
  length: createTwoEnded("Length", "Drag from edge to edge; Esc removes the measurements"),
  recist: {
    name: "RECIST",
    measures: true,
    hasTwoEnds: true,
    recordsAxes: true,
    hint: "Drag the longest diameter of the chosen finding, then drag across it for the short axis",
    begin({ store }, drag) {
      const { longAxis } = store.get();
      if (longAxis && longAxis.plane !== drag.pane.plane) store.set({ longAxis: null });
      drag.start = drag.index;
      beginLine(store, drag);
    },
    move({ store }, drag) {
      const { longAxis, volume } = store.get();
      if (!volume || !drag.start) return;
      const [from, to] = longAxis
        ? projectOntoNormal(volume.header, longAxis, drag.start, drag.index)
        : [drag.start, drag.index];
      changeLine(store, drag, { from, to });
    },
    end({ store, recordAxes }, { line }) {
      const { longAxis, measures } = store.get();
      if (!line?.text) store.set({ measures: measures.slice(0, -1) });
      else if (!longAxis) store.set({ longAxis: line });
      else {
        store.set({ measures: measures.filter((other) => other !== line && other !== longAxis), longAxis: null });
        recordAxes(longAxis, line);
      }
    },
  },
  angle: {
    name: "Angle",
    measures: true,
    hasTwoEnds: true,
    hint: "Drag from the vertex along one arm, then press at the end of the other arm",
    begin(_, drag) {
      const { store, plane } = drag.pane;
      const open = store.get().measures.find(({ shape, points }) => shape === "angle" && points?.length === 1);
      if (open?.plane !== plane) return beginLine(store, drag, { shape: "angle", points: [drag.index] });
      drag.line = open;
      changeLine(store, drag, { points: [...(open.points ?? []), drag.index] });
    },
    move(_, drag) {
      const { line, pane, index } = drag;
      const points = line?.points ?? [];
      changeLine(pane.store, drag, {
        points: [...points.slice(0, -1), index],
        ...(points.length < 2 && { to: index }),
      });
    },
    end: (_, { line, pane }) => dropEmpty(pane.store, line),
  },
  arrow: createTwoEnded("Arrow", "Drag to what the arrow points at", "arrow"),
  ellipse: createTwoEnded(
    "Ellipse",
    "Drag from corner to corner: mean, SD, smallest and largest value, area",
    "ellipse",
  ),
  freehand: {
    name: "Outline",
    measures: true,
    needsPointer: true,
    hint: "Drag around a region: mean, SD, smallest and largest value, area",
    begin: (_, drag) => beginLine(drag.pane.store, drag, { shape: "freehand", points: [drag.index] }),
    move: (_, drag) => changeLine(drag.pane.store, drag, { points: [...(drag.line?.points ?? []), drag.index] }),
    end: (_, drag) => finishRegion(drag),
  },
  sphere: createTwoEnded(
    "Sphere",
    "Drag from the middle outwards: mean, SD, smallest and largest value, volume",
    "sphere",
  ),
};

/**
 * Creates a tool of which a drag sets both ends.
 * @param {string} name
 * @param {string} hint
 * @param {Line["shape"]} [shape]
 * @returns {Tool}
 */
function createTwoEnded(name, hint, shape) {
  return {
    name,
    hint,
    measures: true,
    hasTwoEnds: true,
    begin: (_, drag) => beginLine(drag.pane.store, drag, { shape }),
    move: (_, drag) => changeLine(drag.pane.store, drag, { to: drag.index }),
    end: (_, drag) => (shape === "sphere" ? finishRegion(drag) : dropEmpty(drag.pane.store, drag.line)),
  };
}

/**
 * Adds a line without length at the start of a drag.
 * @param {Store<ViewerState>} store
 * @param {Drag} drag
 * @param {Partial<Line>} [more]
 */
export function beginLine(store, drag, more = {}) {
  drag.line = { plane: drag.pane.plane, from: drag.index, to: drag.index, text: "", ...more };
  store.set({ measures: [...store.get().measures, drag.line] });
}

/**
 * Changes the line of a drag, and writes what it measures.
 * @param {Store<ViewerState>} store
 * @param {Drag} drag
 * @param {Partial<Line>} changes
 */
export function changeLine(store, drag, changes) {
  const { volume, measures } = store.get();
  if (!volume || !drag.line) return;
  const line = { ...drag.line, ...changes };
  line.text = describeLine(volume, line);
  store.set({ measures: measures.map((other) => (other === drag.line ? line : other)) });
  drag.line = line;
}

/**
 * Writes what a line measures; of regions with many voxels, the end of the drag does it.
 * @param {RemoteVolume} volume
 * @param {Line} line
 */
function describeLine(volume, line) {
  const { from, to, shape, points = [] } = line;
  const { affine } = volume.header;
  if (shape === "ellipse") return describeStatistics(volume, line);
  if (shape === "angle") return points.length < 2 ? "" : `${measureAngle(affine, from, points).toFixed(1)}°`;
  return shape ? "" : `${measureDistance(affine, from, to).toFixed(1)} mm`;
}

/** @param {Drag} drag of an outline or a sphere */
function finishRegion(drag) {
  const { line, pane } = drag;
  const { volume, measures } = pane.store.get();
  if (!line || !volume || dropEmpty(pane.store, line)) return;
  // A sphere lies around the middle of a voxel, so that it is the same in all planes.
  const isSphere = line.shape === "sphere";
  const region = isSphere ? { ...line, from: findNearestVoxel(volume.header, line.from) } : line;
  const text = describeStatistics(volume, region);
  pane.store.set({ measures: measures.map((other) => (other === line ? { ...region, text } : other)) });
}

/**
 * Removes a line that has no length. Returns whether it did.
 * @param {Store<ViewerState>} store
 * @param {Line | undefined} line
 */
function dropEmpty(store, line) {
  const points = [line?.from, line?.to, ...(line?.points ?? [])];
  if (line && points.some((point) => String(point) !== String(line.from))) return false;
  store.set({ measures: store.get().measures.filter((other) => other !== line) });
  return true;
}

/**
 * Returns the ends of an arrow's head, in pixels.
 * @param {Vector} from
 * @param {Vector} to
 * @param {number} size
 */
export function computeArrowHead(from, to, size) {
  const angle = Math.atan2(to[1] - from[1], to[0] - from[0]);
  return [-1, 1].map((sign) => [
    to[0] - size * Math.cos(angle + sign * 0.45),
    to[1] - size * Math.sin(angle + sign * 0.45),
  ]);
}
