// @ts-check
// Pane texts: the sides of the patient, what the plane shows, the window, and the scale bar.
import { PLANES, toMm } from "./geometry.js";
/** @import { Plane, Vector, ViewerState, VolumeHeader } from "./types" */
/** @import { Target } from "./annotations.js" */

export const INK = "#e6edf5";
export const DIM_INK = "#9fb0c3";
const SHADE = "#05070a";
const SCALE_BARS_MM = [1, 2, 5, 10, 20, 50, 100, 200];
const SIDES = ["LR", "PA", "IS"];
const SMALL = 11;
/** Width of a pane in CSS pixels from which it has room for the series and the window. */
const WIDE = 420;
/** Width below which each fact has a line of its own, so that none covers the letter at the top. */
const NARROW = 360;

/**
 * Lists what a plane shows: the slice and its place in the patient; the series; and the window.
 * @param {Pick<ViewerState, "cursor" | "facts" | "instances" | "layer" | "projection" | "views" | "window">} state
 * @param {VolumeHeader} header
 * @param {Plane} plane
 * @param {number} index of the slice
 */
export function listPlaneFacts(state, header, plane, index) {
  const { across } = PLANES[plane];
  const mm = toMm(header.affine, replaceAt(state.cursor, across, index))[across];
  const { kind, slab_mm } = state.projection;
  const place = [
    `${plane}  ${index + 1} / ${header.shape[across]}`,
    `${SIDES[across][mm >= 0 ? 1 : 0]} ${Math.abs(mm).toFixed(1)} mm   slice ${header.spacing_mm[across].toFixed(1)} mm`,
  ];
  if (state.instances?.axis === across && state.instances.numbers.length) {
    place.push(`image ${state.instances.numbers[index]}`);
  }
  if (kind !== "none") place.push(`${kind} of ${slab_mm} mm`);
  const { zoom } = state.views[plane];
  const window = state.layer ? state.layer.window : state.window;
  const series = state.layer ? [...state.facts, state.layer.name] : state.facts;
  return {
    place,
    series: [...series, ...(zoom === 1 ? [] : [`${zoom.toFixed(1)}x`])],
    window: window ? formatWindow(window) : "",
  };
}

/**
 * Writes a window as width and level.
 * @param {{ name: string, low: number, high: number }} window
 */
export function formatWindow({ name, low, high }) {
  const round = (/** @type {number} */ x) => (high - low >= 10 ? Math.round(x) : Number(x.toPrecision(3)));
  const numbers = `W ${round(high - low)}  L ${round((low + high) / 2)}`;
  return name && name !== "own" ? `${numbers}  ${name}` : numbers;
}

/**
 * Writes the sides of the patient and the facts about the plane, and draws the scale bar.
 * @param {Target} target
 */
export function drawTexts(target) {
  const { pen, state, header, plane, index, ratio } = target;
  const [left, right, top, bottom] = header.letters[plane];
  const { width, height } = pen.canvas;
  const pad = 7 * ratio;
  writeText(target, left, [pad, height / 2], { align: "left", baseline: "middle" });
  writeText(target, right, [width - pad, height / 2], { align: "right", baseline: "middle" });
  writeText(target, top, [width / 2, pad], { align: "center", baseline: "top" });
  writeText(target, bottom, [width / 2, height - pad], { align: "center", baseline: "bottom" });
  const isWide = width / ratio >= WIDE;
  const { place, series, window } = listPlaneFacts(state, header, plane, index);
  const lines = width / ratio < NARROW ? place.flatMap((line) => line.split("   ")) : place;
  writeLines(target, lines, [pad, pad], "left");
  writeLines(target, isWide || state.layer ? series : series.slice(state.facts.length), [width - pad, pad], "right");
  const style = /** @type {const} */ ({ align: "left", baseline: "bottom", colour: DIM_INK, size: SMALL });
  if (isWide) writeText(target, window, [pad, height - pad], style);
  drawScaleBar(target);
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
    pen.beginPath();
    pen.moveTo(right - mm * frame.pixelsPerMm, y);
    pen.lineTo(right, y);
    pen.stroke();
  }
  const text = mm >= 10 ? `${mm / 10} cm` : `${mm} mm`;
  const style = /** @type {const} */ ({ align: "right", baseline: "bottom", colour: DIM_INK, size: 10 });
  writeText(target, text, [right, y - 5 * ratio], style);
}

/**
 * @param {Target} target
 * @param {string[]} lines
 * @param {Vector} corner
 * @param {CanvasTextAlign} align
 */
function writeLines(target, lines, [x, y], align) {
  const style = /** @type {const} */ ({ baseline: "top", colour: DIM_INK, size: SMALL });
  lines.forEach((text, n) => writeText(target, text, [x, y + n * 15 * target.ratio], { align, ...style }));
}

/**
 * @param {Target} target
 * @param {string} text
 * @param {Vector} position
 * @param {{ align: CanvasTextAlign, baseline: CanvasTextBaseline, colour?: string, size?: number }} style
 */
export function writeText({ pen, ratio }, text, [x, y], { align, baseline, colour = INK, size = 15 }) {
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
export function createFont(size, ratio) {
  return `600 ${size * ratio}px system-ui, "Segoe UI", "Liberation Sans", sans-serif`;
}

/**
 * @param {Vector} vector
 * @param {number} axis
 * @param {number} value
 */
function replaceAt(vector, axis, value) {
  return vector.map((x, n) => (n === axis ? value : x));
}
