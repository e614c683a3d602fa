// Pane: one plane on two canvases, voxels below, and lines and letters above.
import { PLANES, Frame, lengthMm, toIndex } from "./geometry.js";
import { ZERO, cut } from "./volume.js";
import { el } from "./dom.js";

const INK = "#e6edf5";
const SHADE = "#05070a";
const CROSS = "rgba(120, 205, 255, 0.65)";
const MEASURE = "#ffd54f";
const SCALE_MM = [1, 2, 5, 10, 20, 50, 100, 200];

export class Pane {
  constructor(plane, state) {
    this.plane = plane;
    this.state = state;
    this.view = { zoom: 1, pan: [0, 0] };
    this.base = el("canvas", { class: "mv-base" });
    this.top = el("canvas", { class: "mv-top", "data-plane": plane });
    this.node = el("div", { class: "mv-pane", "data-plane": plane }, this.base, this.top);
    this.image = new Layer();
    this.fill = new Layer();
    this.haze = new Layer();
    this.seen = {};
  }

  get index() {
    return this.state.cursor[PLANES[this.plane].across];
  }

  // Follows the size of its box; true if that changed.
  fit() {
    this.ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.node.clientWidth, this.node.clientHeight].map((n) => Math.round(n * this.ratio));
    if (this.top.width === width && this.top.height === height) return false;
    for (const canvas of [this.base, this.top]) Object.assign(canvas, { width, height });
    return true;
  }

  draw() {
    if (!this.top.width || !this.top.height) return;
    this.frame = this.framed();
    this.recut();
    this.drawVoxels();
    this.drawLines();
  }

  framed() {
    return new Frame(this.state.volume.header, this.plane, this.top.width, this.top.height, this.view);
  }

  // Takes the plane out of the volume again only if another one is wanted or new voxels have come.
  recut() {
    const { volume, overlay, version, tables, overlayVersion } = this.state;
    const place = `${this.index} ${version}`;
    const moved = this.seen.place !== place || this.seen.volume !== volume;
    const [width, height] = this.frame.count;
    if (moved) this.values = this.cutOf(volume, this.values);
    if (moved || this.seen.grey !== tables.grey) this.image.paint(this.values, width, height, tables.grey, this.present(volume));
    if (overlay && (moved || this.seen.overlay !== overlayVersion)) {
      this.labelled = !this.blank(overlay);
      if (this.labelled) this.labels = this.effective(overlay);
      this.labelled &&= anything(this.labels);
      if (this.labelled) this.fill.paint(this.labels, width, height, tables.colours, this.present(overlay));
      this.contours = this.labelled ? outlines(this.labels, width, height, this.state.shown) : null;
    }
    const doubt = this.state.doubt();
    if (doubt && (moved || this.seen.haze !== doubt.table)) {
      this.doubts = this.cutOf(doubt.volume, this.doubts);
      this.haze.paint(this.doubts, width, height, doubt.table, this.present(doubt.volume));
    }
    this.seen = { place, volume, grey: tables.grey, overlay: overlayVersion, haze: doubt?.table };
  }

  // Whether there is nothing to show, known without looking at the voxels.
  blank(overlay) {
    const { probability, threshold } = this.state;
    return (!probability || threshold === null) && overlay.empty(PLANES[this.plane].across, this.index);
  }

  // The labels as they are shown: as stored, or where the model is at least as sure as the reader asks for.
  effective(overlay) {
    const labels = this.cutOf(overlay, this.labels);
    const { probability, threshold } = this.state;
    if (!probability || threshold === null) return labels;
    this.sure = this.cutOf(probability, this.sure);
    const least = threshold * 255;
    for (let n = 0; n < labels.length; n++) labels[n] = this.sure[n] >= least ? labels[n] || 1 : 0;
    return labels;
  }

  cutOf(volume, before) {
    const size = this.frame.count[0] * this.frame.count[1];
    const fits = before && before.length === size && before.constructor === volume.data.constructor;
    return cut(volume.data, volume.header.shape, this.plane, this.index, fits ? before : new volume.data.constructor(size));
  }

  // Which rows of this plane have arrived, top down.
  present(volume) {
    const [, height] = this.frame.count;
    if (this.plane === "axial") return new Uint8Array(height).fill(volume.loaded[this.index]);
    return Uint8Array.from(volume.loaded).reverse();
  }

  drawVoxels() {
    const pen = this.base.getContext("2d", { alpha: false });
    const { origin, step, count } = this.frame;
    const box = [origin[0], origin[1], step[0] * count[0], step[1] * count[1]];
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, this.base.width, this.base.height);
    pen.fillStyle = "#141b26";
    pen.fillRect(...box);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(this.image.canvas, ...box);
    const { overlay, overlayOn, filled } = this.state;
    if (overlay && overlayOn && filled && this.labelled) pen.drawImage(this.fill.canvas, ...box);
    if (this.state.doubt()) pen.drawImage(this.haze.canvas, ...box);
  }

  drawLines() {
    const pen = this.top.getContext("2d");
    pen.clearRect(0, 0, this.top.width, this.top.height);
    if (this.state.overlay && this.state.overlayOn && this.state.outlined) this.drawContours(pen);
    if (this.state.crosshair) this.drawCrosshair(pen);
    for (const line of [...this.state.measures, ...this.axes()]) this.drawMeasure(pen, line);
    if (this.state.brushAt?.plane === this.plane) this.drawBrush(pen);
    this.drawLetters(pen);
    this.drawScale(pen);
  }

  drawContours(pen) {
    const { origin, step } = this.frame;
    pen.lineWidth = 1.5 * this.ratio;
    for (const [label, path] of this.contours ?? []) {
      const placed = new Path2D();
      placed.addPath(path, new DOMMatrix([step[0], 0, 0, step[1], origin[0], origin[1]]));
      pen.strokeStyle = this.state.colour(label);
      pen.stroke(placed);
    }
  }

  drawCrosshair(pen) {
    const [x, y] = this.frame.toPixel(this.state.cursor).map((n) => Math.round(n) + 0.5);
    const gap = Math.max(10 * this.ratio, this.frame.step[0]);
    pen.strokeStyle = CROSS;
    pen.lineWidth = this.ratio;
    line(pen, 0, y, x - gap, y);
    line(pen, x + gap, y, this.top.width, y);
    line(pen, x, 0, x, y - gap);
    line(pen, x, y + gap, x, this.top.height);
  }

  drawMeasure(pen, { plane, from, to, text }) {
    const across = PLANES[plane].across;
    if (plane !== this.plane || Math.round(from[across]) !== this.index) return;
    const [a, b] = [this.frame.toPixel(from), this.frame.toPixel(to)];
    pen.strokeStyle = MEASURE;
    pen.lineWidth = 1.5 * this.ratio;
    line(pen, ...a, ...b);
    for (const end of [a, b]) pen.strokeRect(end[0] - 3 * this.ratio, end[1] - 3 * this.ratio, 6 * this.ratio, 6 * this.ratio);
    this.write(pen, text, b[0] + 8 * this.ratio, b[1], "left", "middle", MEASURE, 12);
  }

  // The measured axes of the findings, as lines between voxels.
  axes() {
    const { affine } = this.state.volume.header;
    const lines = this.state.findings.map(this.state.axesOf).filter(Boolean).map(({ plane, long, short }) =>
      [long, short].map((ends) => {
        const [from, to] = ends.map((end) => toIndex(affine, end));
        return { plane, from, to, text: `${lengthMm(ends).toFixed(1)} mm` };
      }),
    );
    return lines.flat();
  }

  drawBrush(pen) {
    const { index, radius_mm } = this.state.brushAt;
    const [x, y] = this.frame.toPixel(index);
    const radius = radius_mm * this.frame.pixelsPerMm;
    pen.strokeStyle = INK;
    pen.lineWidth = this.ratio;
    pen.beginPath();
    pen.ellipse(x, y, radius, radius, 0, 0, 2 * Math.PI);
    pen.stroke();
  }

  drawLetters(pen) {
    const [left, right, top, bottom] = this.state.volume.header.letters[this.plane];
    const { width, height } = this.top;
    const pad = 7 * this.ratio;
    this.write(pen, left, pad, height / 2, "left", "middle", INK, 15);
    this.write(pen, right, width - pad, height / 2, "right", "middle", INK, 15);
    this.write(pen, top, width / 2, pad, "center", "top", INK, 15);
    this.write(pen, bottom, width / 2, height - pad, "center", "bottom", INK, 15);
    const slices = this.state.volume.header.shape[PLANES[this.plane].across];
    this.write(pen, `${this.plane}  ${this.index + 1} / ${slices}`, pad, pad, "left", "top", "#9fb0c3", 11);
    if (this.view.zoom !== 1) this.write(pen, `${this.view.zoom.toFixed(1)}x`, this.top.width - pad, pad, "right", "top", "#9fb0c3", 11);
  }

  // A bar of a round length, at most a quarter of the width.
  drawScale(pen) {
    const most = this.top.width / 4 / this.frame.pixelsPerMm;
    const mm = SCALE_MM.filter((n) => n <= most).pop();
    if (!mm) return;
    const [right, y] = [this.top.width - 10 * this.ratio, this.top.height - 10 * this.ratio];
    const left = right - mm * this.frame.pixelsPerMm;
    for (const [colour, width] of [[SHADE, 4], ["#c3d0de", 1.5]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width * this.ratio;
      line(pen, left, y, right, y);
    }
    this.write(pen, mm >= 10 ? `${mm / 10} cm` : `${mm} mm`, right, y - 5 * this.ratio, "right", "bottom", "#9fb0c3", 10);
  }

  write(pen, text, x, y, align, baseline, colour, size) {
    pen.font = `600 ${size * this.ratio}px system-ui, "Segoe UI", "Liberation Sans", sans-serif`;
    pen.textAlign = align;
    pen.textBaseline = baseline;
    pen.lineWidth = 3 * this.ratio;
    pen.lineJoin = "round";
    pen.strokeStyle = SHADE;
    pen.strokeText(text, x, y);
    pen.fillStyle = colour;
    pen.fillText(text, x, y);
  }
}

function line(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}

// A picture of one voxel a pixel.
class Layer {
  constructor() {
    this.canvas = document.createElement("canvas");
  }

  paint(values, width, height, table, present) {
    const { canvas } = this;
    if (!this.picture || canvas.width !== width || canvas.height !== height) {
      Object.assign(canvas, { width, height });
      this.picture = new ImageData(width, height);
      this.pixels = new Uint32Array(this.picture.data.buffer);
    }
    const { pixels } = this;
    for (let n = 0; n < pixels.length; n++) pixels[n] = table[values[n] + ZERO];
    for (let row = 0; row < height; row++) if (!present[row]) pixels.fill(0, row * width, (row + 1) * width);
    canvas.getContext("2d").putImageData(this.picture, 0, 0);
  }
}

function anything(labels) {
  for (let n = 0; n < labels.length; n++) if (labels[n]) return true;
  return false;
}

// The edges between each shown label and what is not it, as one path a label, in voxels from the plane's corner.
function outlines(labels, width, height, shown) {
  const paths = new Map();
  const at = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : labels[y * width + x]);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const label = labels[y * width + x];
      if (!label || !shown(label)) continue;
      if (!paths.has(label)) paths.set(label, new Path2D());
      const path = paths.get(label);
      if (at(x - 1, y) !== label) edge(path, x, y, x, y + 1);
      if (at(x + 1, y) !== label) edge(path, x + 1, y, x + 1, y + 1);
      if (at(x, y - 1) !== label) edge(path, x, y, x + 1, y);
      if (at(x, y + 1) !== label) edge(path, x, y + 1, x + 1, y + 1);
    }
  }
  return paths;
}

function edge(path, x0, y0, x1, y1) {
  path.moveTo(x0, y0);
  path.lineTo(x1, y1);
}
