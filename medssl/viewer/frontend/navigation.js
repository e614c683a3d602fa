// @ts-check
// Navigation: the crosshair, the active pane, zoom, and the arrangement of the panes.
import { PLANES, clamp, findNearestVoxel, isInside, toIndex, viewAround } from "./geometry.js";
import { createViews } from "./state.js";
/** @import { Finding, Vector, ViewerState } from "./types" */
/** @import { Comparison } from "./comparison.js" */
/** @import { Pane } from "./pane.js" */
/** @import { Store } from "./store.js" */

const BRUSHES = ["brush", "erase", "range"];
/** The field around a lesion: this many diameters, and at least this many mm. */
const CONTEXT = 4;
const LEAST_FIELD_MM = 80;

export class Navigation {
  #store;
  #panes;
  #comparison;
  #stage;
  #onUse;

  /**
   * @param {object} uses
   * @param {Store<ViewerState>} uses.store of the case
   * @param {Pane[]} uses.panes of the case
   * @param {Comparison} uses.comparison
   * @param {HTMLElement} uses.stage the node around all panes
   * @param {() => void} uses.onUse called when the reader uses a pane
   */
  constructor({ store, panes, comparison, stage, onUse }) {
    this.#store = store;
    this.#panes = panes;
    this.#comparison = comparison;
    this.#stage = stage;
    this.#onUse = onUse;
    this.active = panes[0];
    this.focus(this.active);
  }

  /**
   * Moves the crosshair to a voxel of the study that a pane shows.
   * @param {Pane} pane
   * @param {Vector} voxel
   */
  moveCursor(pane, voxel) {
    if (this.#isOfCase(pane)) this.#store.set({ cursor: voxel });
    else this.#comparison.moveTo(voxel);
  }

  /**
   * Moves the crosshair to a finding; a lesion is enlarged with its surroundings.
   * @param {Finding} finding
   */
  showFinding({ centre_mm, diameter_mm, kind }) {
    const { volume } = this.#store.get();
    if (!volume) return;
    const { header } = volume;
    const index = toIndex(header.affine, centre_mm);
    this.#store.set({ cursor: findNearestVoxel(header, index) });
    if (!diameter_mm || kind === "organ") return;
    const field_mm = Math.max(LEAST_FIELD_MM, CONTEXT * diameter_mm);
    const views = this.#panes.map((pane) => {
      pane.fit();
      return [pane.plane, viewAround(header, pane.plane, [pane.top.width, pane.top.height], index, field_mm)];
    });
    this.#store.set({ views: Object.fromEntries(views) });
  }

  /**
   * @param {Pane} pane
   * @param {number} by number of slices
   */
  scroll(pane, by) {
    if (!this.#isOfCase(pane) && !this.#comparison.isLinked) return this.#comparison.scroll(pane.plane, by);
    const { volume, cursor } = this.#store.get();
    if (!volume) return;
    const { across } = PLANES[pane.plane];
    const index = [...cursor];
    index[across] = clamp(index[across] + by, 0, volume.header.shape[across] - 1);
    this.#store.set({ cursor: index });
  }

  /**
   * Follows the pointer over a pane: the value under it, and the outline of a brush.
   * @param {Pane} pane
   * @param {Vector} index
   */
  hover(pane, index) {
    const { volume, tool, radius_mm } = this.#store.get();
    this.#onUse();
    if (!volume || !this.#isOfCase(pane) || !isInside(volume.header, index)) return this.leave();
    const brushCursor = BRUSHES.includes(tool) ? { plane: pane.plane, index, radius_mm } : null;
    this.#store.set({ pointer: findNearestVoxel(volume.header, index), brushCursor });
  }

  leave() {
    this.#store.set({ pointer: null, brushCursor: null });
  }

  /** @param {Pane} pane that the keyboard works on from now on */
  focus(pane) {
    this.active = pane;
    this.#onUse();
    for (const other of [...this.#panes, ...this.#comparison.panes]) {
      other.node.classList.toggle("mv-active", other === pane);
    }
  }

  /** @param {number} by number of panes */
  turn(by) {
    this.focus(this.#panes[(this.#panes.indexOf(this.active) + by + 3) % 3]);
  }

  /**
   * Zooms so that what lies at a pixel stays there.
   * @param {Pane} pane
   * @param {Vector} pixel
   * @param {number} factor
   */
  zoom({ frame, top, plane, view }, pixel, factor) {
    if (!frame) return;
    const centre = [top.width / 2, top.height / 2];
    const zoom = clamp(view.zoom * factor, 0.5, 40);
    const pixelsPerMm = (frame.pixelsPerMm * zoom) / view.zoom;
    const pan = pixel.map((x, a) => view.pan[a] + (x - centre[a]) * (1 / pixelsPerMm - 1 / frame.pixelsPerMm));
    this.#store.set({ views: { ...this.#store.get().views, [plane]: { zoom, pan } } });
  }

  /** @param {number} factor by which the active pane is zoomed around the crosshair */
  zoomAtCursor(factor) {
    const { frame, store } = this.active;
    if (frame) this.zoom(this.active, frame.toPixel(store.get().cursor), factor);
  }

  resetView() {
    this.#store.set({ views: createViews() });
  }

  /**
   * Gives a pane the largest place, then the whole place, then shows all panes again.
   * @param {Pane} pane
   */
  enlarge(pane) {
    const { dataset } = this.#stage;
    if (dataset.main !== pane.plane) dataset.main = pane.plane;
    else if (dataset.alone) delete dataset.alone;
    else dataset.alone = "yes";
    this.focus(pane);
  }

  /** @param {Pane} pane */
  #isOfCase(pane) {
    return pane.store === this.#store;
  }
}
