// @ts-check
// Mesh view: the mask as a shaded surface that the reader can turn, drawn on a plain canvas without a graphics card.
import { toRgb } from "./colours.js";
import { createButton, createElement, getContext, setText, setVisible } from "./dom.js";
import { clamp, toMm } from "./geometry.js";
import { extractSurface } from "./meshSurface.js";
import { isLabelVisible, labelColour, shownLabelAt } from "./state.js";
/** @import { Notify, Vector, ViewerState } from "./types" */
/** @import { Surface } from "./meshSurface.js" */
/** @import { Store } from "./store.js" */
/** @import { RemoteVolume } from "./volume.js" */

const SIZE = 340;
const LIGHT = [0.35, 0.45, 0.82]; // from above the reader's right shoulder: across, up, towards the reader
/** @type {Record<string, Vector>} */
const SIDES = { R: [1, 0, 0], L: [-1, 0, 0], A: [0, 1, 0], P: [0, -1, 0], S: [0, 0, 1], I: [0, 0, -1] };
/** @type {Record<string, Vector>} */
const TURNS = { ArrowLeft: [-0.2, 0], ArrowRight: [0.2, 0], ArrowUp: [0, -0.2], ArrowDown: [0, 0.2] };

export class MeshView {
  yaw = 0;
  pitch = 0;
  zoom = 1;
  #store;
  #notify;
  #redraw;
  /** @type {Surface | null} */
  #surface = null;
  #surfaceVersion = "";
  #note = createElement("span");

  /**
   * @param {object} uses
   * @param {Store<ViewerState>} uses.store
   * @param {Notify} uses.notify
   * @param {() => void} uses.redraw
   */
  constructor({ store, notify, redraw }) {
    this.#store = store;
    this.#notify = notify;
    this.#redraw = redraw;
    this.canvas = createElement("canvas", {
      width: SIZE,
      height: SIZE,
      tabindex: "0",
      title: "Drag or arrows turn, wheel or + and - zoom",
      onkeydown: ({ key }) => this.#handleKey(key),
      onclick: () => this.canvas.blur(),
      onpointermove: (event) => event.buttons && this.turn(event.movementX / 90, event.movementY / 90),
    });
    this.canvas.addEventListener("wheel", (event) => this.#handleWheel(event), { passive: false });
    const close = createButton("×", () => this.toggle(), { "aria-label": "Close the 3D view" });
    const head = createElement("div", {}, "3D view of the mask", this.#note, close);
    this.node = createElement("div", { class: "mv-mesh", hidden: true }, head, this.canvas);
  }

  get isOpen() {
    return this.#store.get().meshVisible;
  }

  toggle() {
    const { overlay, meshVisible } = this.#store.get();
    if (!overlay) return this.#notify("There is no mask to show.");
    this.#store.set({ meshVisible: !meshVisible });
  }

  /**
   * Turns the surface by angles in radians.
   * @param {number} yaw
   * @param {number} pitch
   */
  turn(yaw, pitch) {
    this.yaw += yaw;
    this.pitch = clamp(this.pitch + pitch, -Math.PI / 2, Math.PI / 2);
    this.#redraw();
  }

  /** @param {number} factor */
  magnify(factor) {
    this.zoom = clamp(this.zoom * factor, 0.3, 12);
    this.#redraw();
  }

  draw() {
    const state = this.#store.get();
    const { volume, overlay, meshVisible } = state;
    setVisible(this.node, meshVisible && overlay);
    if (!meshVisible || !volume || !overlay) return;
    const version = `${state.overlayVersion} ${state.voxelVersion} ${overlay.url}`;
    if (!this.#surface || version !== this.#surfaceVersion) {
      this.#surface = extractSurface(overlay, (value) => {
        const label = shownLabelAt(state, value);
        return label > 0 && isLabelVisible(state, label);
      });
      this.#surfaceVersion = version;
    }
    setText(this.#note, this.#surface.step > 1 ? `every ${this.#surface.step}th voxel` : "");
    const axes = computeViewAxes(this.yaw, this.pitch);
    const scale = (this.zoom * (SIZE / 2 - 24)) / this.#surface.radius_mm;
    this.#drawSurface(this.#surface, overlay, axes, scale);
    this.#drawMarks(this.#surface, volume, axes, scale);
  }

  /** @param {string} key */
  #handleKey(key) {
    const turn = TURNS[key];
    if (turn) this.turn(turn[0], turn[1]);
    else if ("+=-".includes(key)) this.magnify(key === "-" ? 0.8 : 1.25);
  }

  /** @param {WheelEvent} event */
  #handleWheel(event) {
    event.preventDefault();
    this.magnify(Math.exp(-event.deltaY / 400));
  }

  /**
   * Draws each voxel as a square; the nearest voxel wins each pixel.
   * @param {Surface} surface
   * @param {RemoteVolume} overlay
   * @param {Vector[]} axes
   * @param {number} scale pixels per mm
   */
  #drawSurface({ points, labels, normals, centre_mm }, overlay, axes, scale) {
    const state = this.#store.get();
    const size = Math.max(1, Math.ceil(Math.max(...overlay.header.spacing_mm) * scale));
    const picture = new ImageData(SIZE, SIZE);
    const pixels = new Uint32Array(picture.data.buffer).fill(0xff120d0a);
    const depth = new Float32Array(SIZE * SIZE).fill(-Infinity);
    /** @type {Map<number, number[]>} */
    const colours = new Map();
    for (let n = 0; n < labels.length; n++) {
      const [px, py, pz] = [points[3 * n], points[3 * n + 1], points[3 * n + 2]];
      const [x, y, z] = rotate(axes, px - centre_mm[0], py - centre_mm[1], pz - centre_mm[2]);
      const [nx, ny, nz] = rotate(axes, normals[3 * n], normals[3 * n + 1], normals[3 * n + 2]);
      const rgb = colours.get(labels[n]) ?? toRgb(labelColour(state, shownLabelAt(state, labels[n])));
      colours.set(labels[n], rgb);
      const shade = 0.3 + 0.7 * Math.max(0, nx * LIGHT[0] + ny * LIGHT[1] + nz * LIGHT[2]);
      const [red, green, blue] = rgb.map((c) => Math.round(c * shade));
      const colour = (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;
      const left = Math.round(SIZE / 2 + x * scale - size / 2);
      const top = Math.round(SIZE / 2 - y * scale - size / 2);
      for (let row = Math.max(0, top); row < Math.min(SIZE, top + size); row++) {
        for (let column = Math.max(0, left); column < Math.min(SIZE, left + size); column++) {
          const pixel = row * SIZE + column;
          if (z <= depth[pixel]) continue;
          depth[pixel] = z;
          pixels[pixel] = colour;
        }
      }
    }
    getContext(this.canvas).putImageData(picture, 0, 0);
  }

  /**
   * Draws the letters of the patient's sides, and a circle at the crosshair.
   * @param {Surface} surface
   * @param {RemoteVolume} volume
   * @param {Vector[]} axes
   * @param {number} scale pixels per mm
   */
  #drawMarks({ centre_mm }, volume, axes, scale) {
    const pen = getContext(this.canvas);
    pen.font = '600 13px system-ui, "Liberation Sans", sans-serif';
    Object.assign(pen, { textAlign: "center", textBaseline: "middle", fillStyle: "#9fb0c3", strokeStyle: "#78cdff" });
    const reach = SIZE / 2 - 12;
    for (const [letter, [right, anterior, superior]] of Object.entries(SIDES)) {
      const [x, y, z] = rotate(axes, right, anterior, superior);
      if (z > -0.75 && z < 0.75) pen.fillText(letter, SIZE / 2 + x * reach, SIZE / 2 - y * reach);
    }
    const mm = toMm(volume.header.affine, this.#store.get().cursor).map((x, axis) => x - centre_mm[axis]);
    const [x, y] = rotate(axes, mm[0], mm[1], mm[2]);
    pen.beginPath();
    pen.arc(SIZE / 2 + x * scale, SIZE / 2 - y * scale, 5, 0, 2 * Math.PI);
    pen.stroke();
  }
}

/**
 * Computes the directions across, up and towards the reader. At first the reader faces the patient, so that the
 * patient's right lies at the left.
 * @param {number} yaw
 * @param {number} pitch
 */
function computeViewAxes(yaw, pitch) {
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  return [
    [-cy, sy, 0],
    [-sy * sp, -cy * sp, cp],
    [sy * cp, cy * cp, sp],
  ];
}

/**
 * @param {Vector[]} axes
 * @param {number} x
 * @param {number} y
 * @param {number} z
 */
function rotate(axes, x, y, z) {
  return axes.map((axis) => axis[0] * x + axis[1] * y + axis[2] * z);
}
