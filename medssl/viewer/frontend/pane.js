// @ts-check
// Pane: one plane on two canvases, the voxels on the lower one, and lines and letters on the upper one.
import { drawAnnotations } from "./annotations.js";
import { createElement, getContext } from "./dom.js";
import { Frame, PLANES, clamp } from "./geometry.js";
import { hasLabels, traceOutlines } from "./outlines.js";
import { PixelLayer } from "./pixelLayer.js";
import { isLabelVisible, shownLabelAt } from "./state.js";
import { chooseUncertaintyLayer } from "./uncertaintyColour.js";
import { findSlab, projectSlab } from "./projection.js";
import { cutPlane } from "./volume.js";
/** @import { Plane, Projection, View, ViewerState } from "./types" */
/** @import { Store } from "./store.js" */
/** @import { RemoteVolume, Voxels } from "./volume.js" */

/** Width of a pane in CSS pixels from which its texts and lines grow with it. */
const TEXT_WIDTH = 1100;

export class Pane {
  /** @type {Frame | null} */
  frame = null;
  ratio = 1; // device pixels per CSS pixel
  /** Whether the plane shows a label. */
  labelled = false;
  #image = new PixelLayer();
  #hotLayer = new PixelLayer();
  #labelLayer = new PixelLayer();
  #uncertaintyLayer = new PixelLayer();
  /** @type {Record<string, Voxels>} the planes that were cut last, kept for their memory */
  #cuts = {};
  /** @type {Map<number, Path2D>} by the value of the overlay */
  #outlines = new Map();
  /** @type {Record<string, unknown>} what the layers show */
  #painted = {};

  /**
   * @param {Plane} plane
   * @param {Store<ViewerState>} store
   */
  constructor(plane, store) {
    this.plane = plane;
    this.store = store;
    this.base = createElement("canvas", { class: "mv-base" });
    this.top = createElement("canvas", { class: "mv-top", "data-plane": plane });
    this.node = createElement("div", { class: "mv-pane", "data-plane": plane }, this.base, this.top);
  }

  /** @returns {View} */
  get view() {
    return this.store.get().views[this.plane];
  }

  get index() {
    return this.store.get().cursor[PLANES[this.plane].across];
  }

  /** Makes the canvases as large as their box. */
  fit() {
    this.ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.node.clientWidth, this.node.clientHeight].map((n) => Math.round(n * this.ratio));
    if (this.top.width === width && this.top.height === height) return;
    for (const canvas of [this.base, this.top]) Object.assign(canvas, { width, height });
  }

  draw() {
    const state = this.store.get();
    const { volume } = state;
    if (!volume || !this.top.width || !this.top.height) return;
    const frame = this.createFrame(volume);
    this.frame = frame;
    this.#updateLayers(state, volume, frame);
    this.#drawVoxels(state, frame);
    this.#drawAnnotations(state, volume, frame);
  }

  /** @param {RemoteVolume} volume */
  createFrame(volume) {
    return new Frame(volume.header, this.plane, this.top.width, this.top.height, this.view);
  }

  /**
   * Cuts the plane from the volumes again only if another plane is wanted or new voxels have arrived.
   * @param {Readonly<ViewerState>} state
   * @param {RemoteVolume} volume
   * @param {Frame} frame
   */
  #updateLayers(state, volume, { count: [width, height] }) {
    const { overlay, colourTable, overlayVersion, layer } = state;
    const hot = layer?.hotTable ? layer : null;
    const image = layer && !hot ? layer.volume : volume;
    const greyTable = layer && !hot ? layer.greyTable : state.greyTable;
    const painted = this.#painted;
    const { kind, slab_mm } = state.projection;
    const position = `${this.index} ${state.voxelVersion} ${kind} ${slab_mm}`;
    const moved = painted.position !== position || painted.image !== image || painted.layer !== layer;
    if (moved) this.#cuts.image = this.#cutImage(state, image);
    if (moved || painted.greyTable !== greyTable) {
      this.#image.paint(this.#cuts.image, width, height, greyTable, this.#loadedRows(image, height, state.projection));
    }
    if (hot?.hotTable && moved) {
      this.#cuts.hot = this.#cut(hot.volume, this.#cuts.hot);
      this.#hotLayer.paint(this.#cuts.hot, width, height, hot.hotTable, this.#loadedRows(hot.volume, height));
    }
    if (overlay && (moved || painted.overlayVersion !== overlayVersion)) {
      const labels = this.#isBlank(state, overlay) ? null : this.#cutLabels(state, overlay);
      this.labelled = labels !== null && hasLabels(labels);
      if (labels && this.labelled) {
        this.#labelLayer.paint(labels, width, height, colourTable, this.#loadedRows(overlay, height));
        this.#outlines = traceOutlines(labels, width, height, (value) =>
          isLabelVisible(state, shownLabelAt(state, value)),
        );
      } else this.#outlines = new Map();
    }
    const uncertainty = chooseUncertaintyLayer(state);
    if (uncertainty && (moved || painted.uncertaintyTable !== uncertainty.table)) {
      const values = (this.#cuts.uncertainty = this.#cut(uncertainty.volume, this.#cuts.uncertainty));
      const rows = this.#loadedRows(uncertainty.volume, height);
      this.#uncertaintyLayer.paint(values, width, height, uncertainty.table, rows);
    }
    this.#painted = { position, image, layer, greyTable, overlayVersion, uncertaintyTable: uncertainty?.table };
  }

  /**
   * Returns whether the plane is known to hold no label, without a look at its voxels.
   * @param {Readonly<ViewerState>} state
   * @param {RemoteVolume} overlay
   */
  #isBlank({ probability, threshold }, overlay) {
    return (!probability || threshold === null) && overlay.isPlaneEmpty(PLANES[this.plane].across, this.index);
  }

  /**
   * Cuts the labels as stored, or where the confidence of the model reaches the threshold.
   * @param {Readonly<ViewerState>} state
   * @param {RemoteVolume} overlay
   */
  #cutLabels({ probability, threshold }, overlay) {
    const labels = (this.#cuts.labels = this.#cut(overlay, this.#cuts.labels));
    if (!probability || threshold === null) return labels;
    const confidence = (this.#cuts.confidence = this.#cut(probability, this.#cuts.confidence));
    const lowest = threshold * 255;
    for (let n = 0; n < labels.length; n++) labels[n] = confidence[n] >= lowest ? labels[n] || 1 : 0;
    return labels;
  }

  /**
   * Cuts the image, or joins the slices of the slab around the crosshair.
   * @param {Readonly<ViewerState>} state
   * @param {RemoteVolume} volume
   */
  #cutImage({ projection }, volume) {
    if (projection.kind === "none") return this.#cut(volume, this.#cuts.image);
    return projectSlab(volume, this.plane, this.index, projection, this.#allocate(volume, this.#cuts.image));
  }

  /**
   * @param {RemoteVolume} volume
   * @param {Voxels | undefined} previous a cut whose memory is used again if it fits
   */
  #cut(volume, previous) {
    return cutPlane(volume.data, volume.header.shape, this.plane, this.index, this.#allocate(volume, previous));
  }

  /**
   * @param {RemoteVolume} volume
   * @param {Voxels | undefined} previous
   */
  #allocate(volume, previous) {
    const [width, height] = PLANES[this.plane].along.map((axis) => volume.header.shape[axis]);
    const fits = previous?.length === width * height && previous.constructor === volume.data.constructor;
    const Voxels = volume.data instanceof Uint8Array ? Uint8Array : Int16Array;
    return fits ? previous : new Voxels(width * height);
  }

  /**
   * Returns 1 for each row of this plane that is loaded, from top to bottom.
   * @param {RemoteVolume} volume
   * @param {number} height
   * @param {Projection} [projection]
   */
  #loadedRows(volume, height, projection) {
    if (this.plane === "axial") {
      const isSlab = projection && projection.kind !== "none";
      const [first, last] = isSlab
        ? findSlab(volume.header, "axial", this.index, projection)
        : [this.index, this.index];
      return new Uint8Array(height).fill(Math.min(...volume.loaded.subarray(first, last + 1)));
    }
    return Uint8Array.from(volume.loaded).reverse();
  }

  /**
   * @param {Readonly<ViewerState>} state
   * @param {Frame} frame
   */
  #drawVoxels(state, { origin, step, count }) {
    const pen = getContext(this.base, { alpha: false });
    const [width, height] = [step[0] * count[0], step[1] * count[1]];
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, this.base.width, this.base.height);
    pen.fillStyle = "#141b26";
    pen.fillRect(origin[0], origin[1], width, height);
    pen.imageSmoothingEnabled = state.smoothed;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.#image.canvas, origin[0], origin[1], width, height);
    if (state.layer?.hotTable) pen.drawImage(this.#hotLayer.canvas, origin[0], origin[1], width, height);
    pen.imageSmoothingEnabled = false;
    const layers = [];
    if (state.overlay && state.overlayVisible && state.fillVisible && this.labelled) layers.push(this.#labelLayer);
    if (chooseUncertaintyLayer(state)) layers.push(this.#uncertaintyLayer);
    for (const { canvas } of layers) pen.drawImage(canvas, origin[0], origin[1], width, height);
  }

  /**
   * @param {Readonly<ViewerState>} state
   * @param {RemoteVolume} volume
   * @param {Frame} frame
   */
  #drawAnnotations(state, volume, frame) {
    const { plane, index, ratio } = this;
    const pen = getContext(this.top);
    const textRatio = ratio * clamp(this.top.width / ratio / TEXT_WIDTH, 1, 1.7);
    pen.clearRect(0, 0, this.top.width, this.top.height);
    const outlines = state.overlay && state.overlayVisible && state.outlineVisible ? this.#outlines : new Map();
    drawAnnotations({ pen, state, header: volume.header, frame, plane, index, ratio: textRatio }, outlines);
  }
}
