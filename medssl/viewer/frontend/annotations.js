// @ts-check
// Annotations: outlines, crosshair, measurements, letters and scale bar over one plane.
import { PLANES, measureLength, toIndex } from "./geometry.js";
import { axesOf, labelColour, shownLabelAt } from "./state.js";
import { TextPlacer } from "./textPlacer.js";
/** @import { Line, Plane, Vector, VolumeHeader, ViewerState } from "./types" */
/** @import { Frame } from "./geometry.js" */

const INK = "#e6edf5";
const DIM_INK = "#9fb0c3";
const SHADE = "#05070a";
const CROSSHAIR = "rgba(120, 205, 255, 0.65)";
const MEASURE = "#ffd54f";
const PROPOSAL = "rgba(255, 255, 255, 0.45)";
const MEASURE_SIZE = 12;
const SCALE_BARS_MM = [1, 2, 5, 10, 20, 50, 100, 200];

/**
 * The plane that is drawn on; `ratio` is the number of device pixels per CSS pixel.
 * @typedef {object} Target
 * @property {CanvasRenderingContext2D} pen
 * @property {Readonly<ViewerState>} state
 * @property {VolumeHeader} header
 * @property {Frame} frame
 * @property {Plane} plane
 * @property {number} index of the slice
 * @property {number} ratio
 */

/**
 * @param {Target} target
 * @param {Map<number, Path2D>} outlines one path per value of the overlay, in voxels from the corner of the plane
 */
export function drawAnnotations(target, outlines) {
  const { state, header, plane } = target;
  drawOutlines(target, outlines);
  if (state.crosshairVisible) drawCrosshair(target);
  drawProposal(target);
  const lines = [...state.measures, ...(state.axesVisible ? listAxisLines(state, header) : [])];
  const placer = new TextPlacer(target.pen.canvas);
  const shown = lines.filter((line) => isOnSlice(target, line)).map((line) => drawMeasure(target, line, placer));
  for (const writeLength of shown) writeLength();
  if (state.brushCursor?.plane === plane) drawBrush(target, state.brushCursor);
  drawLetters(target);
  drawScaleBar(target);
}

/**
 * Lists the measured axes of the findings as lines between voxels.
 * @param {Readonly<ViewerState>} state
 * @param {VolumeHeader} header
 * @returns {Line[]}
 */
function listAxisLines(state, { affine }) {
  return state.findings.flatMap((finding) => {
    const axes = axesOf(state, finding);
    if (!axes) return [];
    return [axes.long, axes.short].map((ends) => {
      const [from, to] = ends.map((end) => toIndex(affine, end));
      return { plane: axes.plane, from, to, text: `${measureLength(ends).toFixed(1)} mm` };
    });
  });
}

/**
 * @param {Target} target
 * @param {Map<number, Path2D>} outlines
 */
function drawOutlines({ pen, state, frame: { origin, step }, ratio }, outlines) {
  const matrix = new DOMMatrix([step[0], 0, 0, step[1], origin[0], origin[1]]);
  pen.lineWidth = 1.5 * ratio;
  for (const [value, path] of outlines) {
    const label = shownLabelAt(state, value);
    if (!label && !state.rejectedVisible) continue;
    const placed = new Path2D();
    placed.addPath(path, matrix);
    pen.setLineDash(label ? [] : [4 * ratio, 3 * ratio]);
    pen.strokeStyle = label ? labelColour(state, label) : DIM_INK;
    pen.stroke(placed);
  }
  pen.setLineDash([]);
}

/**
 * Draws the voxels that an interpolation would add to this slice.
 * @param {Target} target
 */
function drawProposal({ pen, state, header, plane, index, frame }) {
  if (!state.proposal) return;
  const [ni, nj] = header.shape;
  const { across } = PLANES[plane];
  pen.fillStyle = PROPOSAL;
  for (const offset of state.proposal.offsets) {
    const voxel = [offset % ni, Math.floor(offset / ni) % nj, Math.floor(offset / (ni * nj))];
    if (voxel[across] !== index) continue;
    const [x, y] = frame.toPixel(voxel);
    pen.fillRect(x - frame.step[0] / 2, y - frame.step[1] / 2, frame.step[0], frame.step[1]);
  }
}

/** @param {Target} target */
function drawCrosshair({ pen, state, frame, ratio }) {
  const [x, y] = frame.toPixel(state.cursor).map((n) => Math.round(n) + 0.5);
  const gap = Math.max(10 * ratio, frame.step[0]);
  pen.strokeStyle = CROSSHAIR;
  pen.lineWidth = ratio;
  drawLine(pen, [0, y], [x - gap, y]);
  drawLine(pen, [x + gap, y], [pen.canvas.width, y]);
  drawLine(pen, [x, 0], [x, y - gap]);
  drawLine(pen, [x, y + gap], [x, pen.canvas.height]);
}

/**
 * @param {Target} target
 * @param {Line} line
 */
function isOnSlice(target, { plane, from }) {
  return plane === target.plane && Math.round(from[PLANES[plane].across]) === target.index;
}

/**
 * Draws a line, and returns the function that writes its length, once all lines are there: beyond an end, so that it
 * lies neither on what is measured nor on another text.
 * @param {Target} target
 * @param {Line} line
 * @param {TextPlacer} placer
 */
function drawMeasure(target, { from, to, text }, placer) {
  const { pen, frame, ratio } = target;
  const ends = [frame.toPixel(from), frame.toPixel(to)];
  const half = 3 * ratio;
  pen.strokeStyle = MEASURE;
  pen.lineWidth = 1.5 * ratio;
  drawLine(pen, ends[0], ends[1]);
  for (const [x, y] of ends) pen.strokeRect(x - half, y - half, 2 * half, 2 * half);
  placer.addLine(ends);
  return () => {
    pen.font = createFont(MEASURE_SIZE, ratio);
    const size = [pen.measureText(text).width + 4 * ratio, MEASURE_SIZE * 1.3 * ratio];
    const centre = placer.place(ends, size, 8 * ratio);
    const style = /** @type {const} */ ({ align: "center", baseline: "middle", colour: MEASURE, size: MEASURE_SIZE });
    writeText(target, text, centre, style);
  };
}

/**
 * @param {Target} target
 * @param {{ index: Vector, radius_mm: number }} brush
 */
function drawBrush({ pen, frame, ratio }, { index, radius_mm }) {
  const [x, y] = frame.toPixel(index);
  pen.strokeStyle = INK;
  pen.lineWidth = ratio;
  pen.beginPath();
  pen.arc(x, y, radius_mm * frame.pixelsPerMm, 0, 2 * Math.PI);
  pen.stroke();
}

/**
 * Writes the sides of the patient, the number of the slice, and the zoom.
 * @param {Target} target
 */
function drawLetters(target) {
  const { pen, state, header, plane, index, ratio } = target;
  const [left, right, top, bottom] = header.letters[plane];
  const { width, height } = pen.canvas;
  const pad = 7 * ratio;
  writeText(target, left, [pad, height / 2], { align: "left", baseline: "middle" });
  writeText(target, right, [width - pad, height / 2], { align: "right", baseline: "middle" });
  writeText(target, top, [width / 2, pad], { align: "center", baseline: "top" });
  writeText(target, bottom, [width / 2, height - pad], { align: "center", baseline: "bottom" });
  const small = /** @type {const} */ ({ baseline: "top", colour: DIM_INK, size: 11 });
  const slices = header.shape[PLANES[plane].across];
  writeText(target, `${plane}  ${index + 1} / ${slices}`, [pad, pad], { align: "left", ...small });
  const { zoom } = state.views[plane];
  if (zoom !== 1) writeText(target, `${zoom.toFixed(1)}x`, [width - pad, pad], { align: "right", ...small });
}

/**
 * Draws a bar of a round length, at most a quarter of the width.
 * @param {Target} target
 */
function drawScaleBar(target) {
  const { pen, frame, ratio } = target;
  const longest = pen.canvas.width / 4 / frame.pixelsPerMm;
  const mm = SCALE_BARS_MM.filter((length) => length <= longest).pop();
  if (!mm) return;
  const [right, y] = [pen.canvas.width - 10 * ratio, pen.canvas.height - 10 * ratio];
  const strokes = [
    { colour: SHADE, width: 4 },
    { colour: "#c3d0de", width: 1.5 },
  ];
  for (const { colour, width } of strokes) {
    pen.strokeStyle = colour;
    pen.lineWidth = width * ratio;
    drawLine(pen, [right - mm * frame.pixelsPerMm, y], [right, y]);
  }
  const text = mm >= 10 ? `${mm / 10} cm` : `${mm} mm`;
  const style = /** @type {const} */ ({ align: "right", baseline: "bottom", colour: DIM_INK, size: 10 });
  writeText(target, text, [right, y - 5 * ratio], style);
}

/**
 * @param {Target} target
 * @param {string} text
 * @param {Vector} position
 * @param {{ align: CanvasTextAlign, baseline: CanvasTextBaseline, colour?: string, size?: number }} style
 */
function writeText({ pen, ratio }, text, [x, y], { align, baseline, colour = INK, size = 15 }) {
  pen.font = createFont(size, ratio);
  pen.textAlign = align;
  pen.textBaseline = baseline;
  pen.lineWidth = 3 * ratio;
  pen.lineJoin = "round";
  pen.strokeStyle = SHADE;
  pen.strokeText(text, x, y);
  pen.fillStyle = colour;
  pen.fillText(text, x, y);
}

/**
 * @param {number} size
 * @param {number} ratio
 */
function createFont(size, ratio) {
  return `600 ${size * ratio}px system-ui, "Segoe UI", "Liberation Sans", sans-serif`;
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {Vector} from
 * @param {Vector} to
 */
function drawLine(pen, from, to) {
  pen.beginPath();
  pen.moveTo(from[0], from[1]);
  pen.lineTo(to[0], to[1]);
  pen.stroke();
}
