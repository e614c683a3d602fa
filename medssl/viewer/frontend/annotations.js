// @ts-check
// Annotations: outlines, crosshair, measurements and texts over one plane.
import { PLANES, measureLength, toIndex } from "./geometry.js";
import { drawShape, isOnSlice } from "./measureShapes.js";
import { DIM_INK, INK, createFont, drawTexts, writeText } from "./paneTexts.js";
import { axesOf, labelColour, shownLabelAt } from "./state.js";
import { TextPlacer } from "./textPlacer.js";
/** @import { Line, Plane, Vector, VolumeHeader, ViewerState } from "./types" */
/** @import { Frame } from "./geometry.js" */

const CROSSHAIR = "rgba(120, 205, 255, 0.65)";
const MEASURE = "#ffd54f";
const PROPOSAL = "rgba(255, 255, 255, 0.45)";
const ASSIST_ADDED = "rgba(90, 220, 255, 0.5)";
const ASSIST_REMOVED = "rgba(255, 70, 70, 0.55)";
const INSIDE = "#7dff8a";
const OUTSIDE = "#ff5252";
const MEASURE_SIZE = 12;

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
  drawProposals(target);
  const lines = [...state.measures, ...(state.axesVisible ? listAxisLines(state, header) : [])];
  const placer = new TextPlacer(target.pen.canvas);
  const shown = lines.filter((line) => isOnSlice(target, line)).map((line) => drawMeasure(target, line, placer));
  for (const writeLength of shown) writeLength();
  if (state.brushCursor?.plane === plane) drawBrush(target, state.brushCursor);
  drawTexts(target);
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
 * Draws the voxels that a proposal would add to this slice and remove from it, and the clicks that led to it.
 * @param {Target} target
 */
function drawProposals(target) {
  const { proposal, assist } = target.state;
  if (proposal) drawVoxels(target, proposal.offsets, PROPOSAL);
  if (!assist) return;
  drawVoxels(target, assist.added, ASSIST_ADDED);
  drawVoxels(target, assist.removed, ASSIST_REMOVED);
  drawVoxels(target, assist.inside, INSIDE);
  drawVoxels(target, assist.outside, OUTSIDE);
}

/**
 * @param {Target} target
 * @param {number[]} offsets
 * @param {string} colour
 */
function drawVoxels({ pen, header, plane, index, frame }, offsets, colour) {
  const [ni, nj] = header.shape;
  const { across } = PLANES[plane];
  pen.fillStyle = colour;
  for (const offset of offsets) {
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
 * Draws a line, and returns the function that writes its length, once all lines are there: beyond an end, so that it
 * lies neither on what is measured nor on another text.
 * @param {Target} target
 * @param {Line} line
 * @param {TextPlacer} placer
 */
function drawMeasure(target, line, placer) {
  const { pen, ratio } = target;
  pen.strokeStyle = MEASURE;
  pen.lineWidth = 1.5 * ratio;
  const ends = drawShape(target, line);
  placer.addLine(ends);
  return () => {
    const texts = line.text.split("\n");
    pen.font = createFont(MEASURE_SIZE, ratio);
    const height = MEASURE_SIZE * 1.3 * ratio;
    const width = Math.max(...texts.map((text) => pen.measureText(text).width)) + 4 * ratio;
    const [x, y] = placer.place(ends, [width, height * texts.length], 8 * ratio);
    const style = /** @type {const} */ ({ align: "center", baseline: "middle", colour: MEASURE, size: MEASURE_SIZE });
    texts.forEach((text, n) => writeText(target, text, [x, y + (n - (texts.length - 1) / 2) * height], style));
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
