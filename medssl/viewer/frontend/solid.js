// Solid: the masks as a shaded body that can be turned, on a plain canvas: no graphics card is needed.
import { toMm } from "./geometry.js";
import { clamp, el, hex, say, show } from "./dom.js";

const SIDE = 340;
const LEAST_MM = 15; // a small lesion is not blown up beyond this
const MOST = 200000; // voxels of the surface that are drawn; more are thinned out, and the panel says so
const LIGHT = [0.35, 0.45, 0.82]; // from above the reader's right shoulder; across, up, towards the reader
const ENDS = { R: [1, 0, 0], L: [-1, 0, 0], A: [0, 1, 0], P: [0, -1, 0], S: [0, 0, 1], I: [0, 0, -1] };

export class Solid {
  constructor(viewer) {
    this.viewer = viewer;
    Object.assign(this, { on: false, yaw: 0, pitch: 0, zoom: 1, surface: null, seen: "" });
    this.canvas = el("canvas", { width: SIDE, height: SIDE, tabindex: "0", title: "Drag or arrows turn, wheel or + and - zoom", onkeydown: ({ key }) => this.heard(key), onclick: () => this.canvas.blur() });
    this.note = el("span");
    const away = el("button", { type: "button", "aria-label": "Close the 3D view", onclick: () => this.toggle() }, "×");
    this.node = el("div", { class: "mv-solid", hidden: true }, el("div", {}, "3D view of the mask", this.note, away), this.canvas);
    this.canvas.addEventListener("pointermove", (event) => event.buttons && this.turn(event.movementX / 90, event.movementY / 90));
    this.canvas.addEventListener("wheel", (event) => event.preventDefault() ?? this.enlarge(Math.exp(-event.deltaY / 400)), { passive: false });
  }

  turn(yaw, pitch) {
    this.yaw += yaw;
    this.pitch = clamp(this.pitch + pitch, -Math.PI / 2, Math.PI / 2);
    this.viewer.redraw();
  }

  enlarge(factor) {
    this.zoom = clamp(this.zoom * factor, 0.3, 12);
    this.viewer.redraw();
  }

  heard(key) {
    const way = { ArrowLeft: [-0.2, 0], ArrowRight: [0.2, 0], ArrowUp: [0, -0.2], ArrowDown: [0, 0.2] }[key];
    if (way) this.turn(...way);
    else if ("+=-".includes(key)) this.enlarge(key === "-" ? 0.8 : 1.25);
  }

  toggle() {
    if (!this.viewer.state.overlay) return this.viewer.notify("There is no mask to show.");
    this.on = !this.on;
    this.viewer.redraw();
  }

  draw() {
    const { state } = this.viewer;
    show(this.node, this.on && state.overlay);
    if (!this.on || !state.overlay) return;
    const now = `${state.overlayVersion} ${state.version} ${state.overlay.url}`;
    if (now !== this.seen) this.surface = surface(state.overlay, state.shown);
    this.seen = now;
    say(this.note, this.surface.step > 1 ? `every ${this.surface.step}th voxel` : "");
    const axes = facing(this.yaw, this.pitch);
    this.paint(axes);
    this.write(axes);
  }

  // The nearest voxel wins each pixel.
  paint(axes) {
    const { state } = this.viewer;
    const { header } = state.overlay;
    const { points, labels, normals, middle, radius_mm } = this.surface;
    this.scale = (this.zoom * (SIDE / 2 - 24)) / radius_mm;
    const size = Math.max(1, Math.ceil(Math.max(...header.spacing_mm) * this.scale));
    const picture = new ImageData(SIDE, SIDE);
    const pixels = new Uint32Array(picture.data.buffer).fill(0xff120d0a);
    const depth = new Float32Array(SIDE * SIDE).fill(-Infinity);
    const colours = new Map();
    for (let n = 0; n < labels.length; n++) {
      const [x, y, z] = placed(axes, points[3 * n] - middle[0], points[3 * n + 1] - middle[1], points[3 * n + 2] - middle[2]);
      const [nx, ny, nz] = placed(axes, normals[3 * n], normals[3 * n + 1], normals[3 * n + 2]);
      if (!colours.has(labels[n])) colours.set(labels[n], rgb(state.colour(labels[n])));
      const shade = 0.3 + 0.7 * Math.max(0, nx * LIGHT[0] + ny * LIGHT[1] + nz * LIGHT[2]);
      const [red, green, blue] = colours.get(labels[n]).map((c) => Math.round(c * shade));
      const colour = (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;
      const [left, top] = [SIDE / 2 + x * this.scale - size / 2, SIDE / 2 - y * this.scale - size / 2].map(Math.round);
      for (let row = Math.max(0, top); row < Math.min(SIDE, top + size); row++) {
        for (let column = Math.max(0, left); column < Math.min(SIDE, left + size); column++) {
          const at = row * SIDE + column;
          if (z <= depth[at]) continue;
          depth[at] = z;
          pixels[at] = colour;
        }
      }
    }
    this.canvas.getContext("2d").putImageData(picture, 0, 0);
  }

  // The sides of the patient, and where the crosshair is.
  write(axes) {
    const pen = this.canvas.getContext("2d");
    pen.font = '600 13px system-ui, "Liberation Sans", sans-serif';
    Object.assign(pen, { textAlign: "center", textBaseline: "middle", fillStyle: "#9fb0c3", strokeStyle: "#78cdff" });
    for (const [letter, end] of Object.entries(ENDS)) {
      const [x, y, z] = placed(axes, ...end);
      if (z > -0.75 && z < 0.75) pen.fillText(letter, SIDE / 2 + x * (SIDE / 2 - 12), SIDE / 2 - y * (SIDE / 2 - 12));
    }
    const { volume, cursor } = this.viewer.state;
    const [x, y] = placed(axes, ...toMm(volume.header.affine, cursor).map((mm, axis) => mm - this.surface.middle[axis]));
    pen.beginPath();
    pen.arc(SIDE / 2 + x * this.scale, SIDE / 2 - y * this.scale, 5, 0, 2 * Math.PI);
    pen.stroke();
  }
}

// The directions across, up and towards the reader, who first stands before the patient: the right lies at the left.
function facing(yaw, pitch) {
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  return [[-cy, sy, 0], [-sy * sp, -cy * sp, cp], [sy * cp, cy * cp, sp]]; // prettier-ignore
}

function placed(axes, x, y, z) {
  return axes.map((axis) => axis[0] * x + axis[1] * y + axis[2] * z);
}

// Every voxel of a shown label with another label at one of its faces: place in mm, label, and the way out.
function surface({ data, header }, shown) {
  const [ni, nj, nk] = header.shape;
  const [points, labels, normals] = [[], [], []];
  const outward = [0, 1, 2].map((axis) => toMm(header.affine, unit(axis)).map((x, r) => (x - header.affine[r][3]) / header.spacing_mm[axis]));
  for (let k = 0; k < nk; k++) {
    for (let j = 0; j < nj; j++) {
      for (let i = 0, at = ni * (j + nj * k); i < ni; i++, at++) {
        const label = data[at];
        if (!label || !shown(label)) continue;
        const [left, right] = [i === 0 || data[at - 1] !== label, i === ni - 1 || data[at + 1] !== label];
        const [back, front] = [j === 0 || data[at - ni] !== label, j === nj - 1 || data[at + ni] !== label];
        const [under, over] = [k === 0 || data[at - ni * nj] !== label, k === nk - 1 || data[at + ni * nj] !== label];
        if (!(left || right || back || front || under || over)) continue;
        const ways = [right - left, front - back, over - under];
        const out = [0, 1, 2].map((r) => ways.reduce((sum, way, axis) => sum + way * outward[axis][r], 0));
        const length = Math.hypot(...out) || 1;
        points.push(...toMm(header.affine, [i, j, k]));
        normals.push(...out.map((x) => x / length));
        labels.push(label);
      }
    }
  }
  return { ...thinned(points, labels, normals), ...extent(points) };
}

// The middle of the mask's box, and how far from it the mask reaches.
function extent(points) {
  const [low, high] = [[Infinity, Infinity, Infinity], [-Infinity, -Infinity, -Infinity]];
  points.forEach((x, n) => {
    low[n % 3] = Math.min(low[n % 3], x);
    high[n % 3] = Math.max(high[n % 3], x);
  });
  if (!points.length) return { middle: [0, 0, 0], radius_mm: LEAST_MM };
  const middle = low.map((x, axis) => (x + high[axis]) / 2);
  return { middle, radius_mm: Math.max(LEAST_MM, Math.hypot(...low.map((x, axis) => (high[axis] - x) / 2))) };
}

function thinned(points, labels, normals) {
  const step = Math.ceil(labels.length / MOST) || 1;
  if (step === 1) return { points, labels, normals, step };
  const three = (list) => list.filter((_, n) => Math.floor(n / 3) % step === 0);
  return { points: three(points), labels: labels.filter((_, n) => n % step === 0), normals: three(normals), step };
}

function unit(axis) {
  return [0, 1, 2].map((a) => Number(a === axis));
}

function rgb(colour) {
  return [1, 3, 5].map((n) => parseInt(hex(colour).slice(n, n + 2), 16));
}
