// @ts-check
// Measure shapes: draws lines, arrows, angles and regions on a plane.
import { PLANES } from "./geometry.js";
import { computeArrowHead } from "./measureTools.js";
/** @import { Line, Vector } from "./types" */
/** @import { Target } from "./annotations.js" */

/**
 * Returns whether a measurement shows on the slice; a sphere shows on every slice that it cuts.
 * @param {Target} target
 * @param {Line} line
 */
export function isOnSlice({ plane, index, header }, line) {
  const { across } = PLANES[plane];
  if (line.shape !== "sphere") return line.plane === plane && Math.round(line.from[across]) === index;
  return Math.abs(index - line.from[across]) * header.spacing_mm[across] <= measureRadius(header.spacing_mm, line);
}

/**
 * Draws a measurement, and returns the line beyond which its text goes.
 * @param {Target} target
 * @param {Line} line
 * @returns {Vector[]}
 */
export function drawShape({ pen, frame, ratio, header, plane, index }, line) {
  const { from, to, shape, points = [] } = line;
  const ends = [frame.toPixel(from), frame.toPixel(to)];
  const half = 3 * ratio;
  const [[x0, y0], [x1, y1]] = ends;
  const middle = [(x0 + x1) / 2, (y0 + y1) / 2];
  if (shape === "ellipse") {
    const [rx, ry] = [Math.abs(x1 - x0) / 2, Math.abs(y1 - y0) / 2];
    strokePath(pen, () => pen.ellipse(middle[0], middle[1], rx, ry, 0, 0, 2 * Math.PI));
    return [middle, [middle[0] + rx, middle[1]]];
  }
  if (shape === "sphere") {
    const depth = (index - from[PLANES[plane].across]) * header.spacing_mm[PLANES[plane].across];
    const mm = Math.sqrt(Math.max(0, measureRadius(header.spacing_mm, line) ** 2 - depth ** 2));
    strokePath(pen, () => pen.arc(x0, y0, mm * frame.pixelsPerMm, 0, 2 * Math.PI));
    return [ends[0], [x0 + mm * frame.pixelsPerMm, y0]];
  }
  if (shape === "freehand") {
    const outline = points.map((point) => frame.toPixel(point));
    strokePolygon(pen, [...outline, outline[0]]);
    const right = outline.reduce((a, b) => (b[0] > a[0] ? b : a));
    return [[right[0] - 1, right[1]], right];
  }
  const arms = shape === "angle" ? points.map((point) => frame.toPixel(point)) : [ends[1]];
  for (const arm of arms) strokePolygon(pen, [ends[0], arm]);
  if (shape === "arrow") {
    for (const corner of computeArrowHead(ends[0], ends[1], 11 * ratio)) strokePolygon(pen, [ends[1], corner]);
  } else for (const [x, y] of [ends[0], ...arms]) pen.strokeRect(x - half, y - half, 2 * half, 2 * half);
  return ends;
}

/**
 * @param {Vector} spacing_mm
 * @param {Line} sphere
 */
function measureRadius(spacing_mm, { from, to }) {
  return Math.hypot(...from.map((x, axis) => (to[axis] - x) * spacing_mm[axis]));
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {() => void} addPath
 */
function strokePath(pen, addPath) {
  pen.beginPath();
  addPath();
  pen.stroke();
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {Vector[]} points
 */
function strokePolygon(pen, points) {
  strokePath(pen, () => points.forEach(([x, y], n) => (n ? pen.lineTo(x, y) : pen.moveTo(x, y))));
}
