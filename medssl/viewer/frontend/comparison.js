// @ts-check
// Comparison: another study of the patient, or another model's labels, next to the case and aligned with it in mm.
import { createElement, setText, setVisible } from "./dom.js";
import { PLANES, PLANE_NAMES, clamp, findNearestVoxel, toIndex, toMm } from "./geometry.js";
import { Pane } from "./pane.js";
import { DerivedStore } from "./store.js";
import { RemoteVolume, buildGreyTable, buildHotTable, isAbort, loadSlabs } from "./volume.js";
/** @import { ComparisonEntry, Finding, IntensityWindow, Notify, Plane, Vector, ViewerState } from "./types" */
/** @import { Store } from "./store.js" */

/** A plane at the scale of the pane that it is compared with, with the crosshair at the same place of the screen. */
class ComparisonPane extends Pane {
  #main;
  #position;

  /**
   * @param {Plane} plane
   * @param {Store<ViewerState>} store
   * @param {Pane} main the pane of the same plane of the case
   * @param {() => Vector} position the voxel of the other study at the crosshair, with fractions
   */
  constructor(plane, store, main, position) {
    super(plane, store);
    this.#main = main;
    this.#position = position;
  }

  /**
   * @override
   * @param {RemoteVolume} volume
   */
  createFrame(volume) {
    const frame = super.createFrame(volume);
    if (this.#main.frame) frame.align(this.#main.frame, this.#main.store.get().cursor, this.#position());
    return frame;
  }
}

export class Comparison {
  /** @type {Vector} from a point of the case to the same point of the other study */
  offset_mm = [0, 0, 0];
  /** @type {Vector} the voxel of the other study at the crosshair, with fractions */
  position = [0, 0, 0];
  #main;
  #notify;
  #redraw;
  /** @type {AbortController | null} */
  #abort = null;
  /** @type {Map<string, IntensityWindow>} the windows of the sequences, by their id */
  #windows = new Map();

  /**
   * @param {object} uses
   * @param {Store<ViewerState>} uses.store of the case
   * @param {Pane[]} uses.panes of the case
   * @param {Notify} uses.notify
   * @param {() => void} uses.redraw
   */
  constructor({ store, panes, notify, redraw }) {
    this.#main = store;
    this.#notify = notify;
    this.#redraw = redraw;
    // The settings of the case hold for both sides; the images and the crosshair do not.
    this.store = new DerivedStore(store, {
      volume: null,
      overlay: null,
      probability: null,
      uncertainty: null,
      uncertaintyVisible: false,
      threshold: null,
      cursor: [0, 0, 0],
      measures: [],
      longAxis: null,
      brushCursor: null,
      findings: [],
      facts: [],
      instances: null,
      layer: null,
      window: null,
      voxelVersion: 0,
      greyTable: store.get().greyTable,
    });
    this.store.subscribe((changed) => [...changed].some((key) => key !== "cursor") && redraw());
    store.subscribe((changed) => {
      if (changed.has("window") && !this.entry?.isSequence) this.#updateGreyTable();
      if (changed.has("overlay") && this.entry?.isSequence) this.store.set({ overlay: store.get().overlay });
    });
    this.panes = PLANE_NAMES.map((plane, n) => new ComparisonPane(plane, this.store, panes[n], () => this.position));
    this.caption = createElement("div", { class: "mv-caption" });
    this.node = createElement("div", { class: "mv-half", hidden: true }, this.caption);
    this.node.append(...this.panes.map((pane) => pane.node));
  }

  /** The study that is shown, or null. */
  get entry() {
    return this.#main.get().comparison;
  }

  get isLinked() {
    return this.#main.get().comparisonLinked;
  }

  /** The window of the sequence that is shown, or null. */
  get window() {
    return this.store.get().window;
  }

  /**
   * Returns whether a pane shows a sequence, which has a window of its own.
   * @param {Pane} pane
   */
  hasOwnWindow(pane) {
    return Boolean(this.entry?.isSequence) && (pane.store !== this.#main || this.#main.get().comparisonLayered);
  }

  /** @param {IntensityWindow} window of the sequence that is shown */
  setWindow(window) {
    if (this.entry) this.#windows.set(this.entry.id, window);
    this.#updateGreyTable();
  }

  /**
   * Applies a preset to the sequence that lies in place of the image. Returns whether there is one.
   * @param {number} number of a window of the sequence, from 0
   */
  applyPreset(number) {
    const { volume } = this.store.get();
    if (!this.#main.get().comparisonLayered || !volume) return false;
    const window = volume.header.windows[number];
    if (window) this.setWindow(window);
    return true;
  }

  /** Shows one sequence after the other in place of the image, then the image again. */
  cycleLayer() {
    const { comparison, comparisons, comparisonLayered } = this.#main.get();
    const sequences = comparisons.filter(({ isSequence }) => isSequence);
    if (!sequences.length) return this.#notify("This case has one sequence.");
    const number = comparisonLayered ? sequences.findIndex(({ id }) => id === comparison?.id) : -1;
    this.choose(sequences[number + 1]?.id ?? null, number + 1 < sequences.length);
  }

  /** Follows a new list of studies; closes the comparison if its study is no longer listed. */
  update() {
    const { comparison, comparisons } = this.#main.get();
    const entry = comparisons.find(({ id }) => id === comparison?.id);
    if (comparison && !entry) this.choose(null);
    else this.#main.set({ comparison: entry ?? null });
  }

  /** Shows one study after the other, then none. */
  cycle() {
    const { comparison, comparisons } = this.#main.get();
    if (!comparisons.length) return this.#notify("Nothing to compare with: no earlier study and no other model.");
    const number = comparisons.findIndex(({ id }) => id === comparison?.id);
    this.choose(comparisons[number + 1]?.id ?? null);
  }

  /**
   * @param {string | null} id of a study, or null to show none
   * @param {boolean} isLayered whether a sequence lies in place of the image
   */
  async choose(id, isLayered = false) {
    this.#abort?.abort();
    this.#abort = new AbortController();
    this.store.set({ volume: null, overlay: null, measures: [] });
    this.offset_mm = [0, 0, 0];
    const entry = this.#main.get().comparisons.find((other) => other.id === id) ?? null;
    this.#main.set({ comparison: entry, comparisonLinked: true, comparisonLayered: isLayered, layer: null });
    if (!entry) return;
    try {
      await this.#open(entry, this.#abort.signal);
    } catch (error) {
      if (!isAbort(error)) {
        this.#notify(`${entry.name} cannot be shown. ${error instanceof Error ? error.message : ""}`);
      }
    }
  }

  /**
   * Aligns both studies where they hold the same finding.
   * @param {Finding | undefined} finding
   */
  align(finding) {
    const pair = finding && this.entry?.pairs[finding.id];
    if (!pair || this.entry?.volume === this.#main.get().volumeUrl) return;
    this.offset_mm = pair.centre_mm.map((x, axis) => x - finding.centre_mm[axis]);
    this.#main.set({ comparisonLinked: true });
    this.#redraw();
  }

  /**
   * Moves the crosshair to a finding that only the other side has.
   * @param {string} id of the study
   * @param {Vector} centre_mm
   */
  async visit(id, centre_mm) {
    if (this.entry?.id !== id) await this.choose(id);
    this.#main.set({ comparisonLinked: true });
    this.#moveMainCursor(centre_mm);
  }

  /** Lets each side scroll alone, or links both again where they are. */
  toggleLink() {
    const { volume, cursor, comparisonLinked } = this.#main.get();
    const other = this.store.get();
    if (!volume || !other.volume) return this.#notify("No comparison is shown (C shows one).");
    if (!comparisonLinked) {
      const main_mm = toMm(volume.header.affine, cursor);
      this.offset_mm = toMm(other.volume.header.affine, other.cursor).map((x, axis) => x - main_mm[axis]);
    }
    this.#main.set({ comparisonLinked: !comparisonLinked });
  }

  /**
   * @param {Plane} plane
   * @param {number} by
   */
  scroll(plane, by) {
    const { volume } = this.store.get();
    if (!volume) return;
    const { across } = PLANES[plane];
    const index = [...this.position];
    index[across] = clamp(Math.round(index[across]) + by, 0, volume.header.shape[across] - 1);
    this.moveTo(index);
  }

  /** @param {Vector} index of the voxel of the other study that comes to the crosshair */
  moveTo(index) {
    const { volume } = this.store.get();
    if (!this.isLinked) this.position = index;
    else if (volume) this.#moveMainCursor(toMm(volume.header.affine, index));
    this.#redraw();
  }

  draw() {
    const isBeside = this.entry && !this.#main.get().comparisonLayered;
    setVisible(this.node, isBeside);
    if (!this.entry || !isBeside) return;
    const { volume } = this.store.get();
    const state = volume ? (volume.isComplete ? "" : `  loading ${volume.loadedPlanes}/${volume.planes}`) : "  loading";
    setText(this.caption, `${this.entry.name}${this.isLinked ? "" : "  not linked (J links)"}${state}`);
    if (!volume) return;
    const main = this.#main.get();
    if (this.isLinked && main.volume) {
      const mm = toMm(main.volume.header.affine, main.cursor).map((x, axis) => x + this.offset_mm[axis]);
      this.position = toIndex(volume.header.affine, mm);
    }
    this.store.set({ cursor: findNearestVoxel(volume.header, this.position) });
    for (const pane of this.panes) {
      pane.fit();
      pane.draw();
    }
  }

  close() {
    this.#abort?.abort();
  }

  /**
   * @param {ComparisonEntry} entry
   * @param {AbortSignal} signal
   */
  async #open(entry, signal) {
    const main = this.#main.get();
    const isSameScan = entry.volume === main.volumeUrl;
    const [volume, overlay] = await Promise.all([
      isSameScan ? main.volume : new RemoteVolume(entry.volume, signal).open(),
      entry.isSequence ? main.overlay : new RemoteVolume(entry.overlay, signal).open(),
    ]);
    if (!volume) throw new Error("The scan itself is still loading.");
    const grid = entry.isSequence ? main.volume : overlay;
    if (String(volume.header.shape) !== String(grid?.header.shape)) {
      throw new Error(entry.isSequence ? "It is on another grid." : "Its labels are on another grid.");
    }
    this.store.set({ volume, overlay });
    this.#updateGreyTable();
    const { findings, selected } = this.#main.get();
    this.align(findings.find(({ id }) => id === selected));
    const own = [isSameScan ? null : volume, entry.isSequence ? null : overlay].filter((image) => image !== null);
    await loadSlabs(
      own,
      () => this.#main.get().cursor[2],
      () => this.#showSlab(),
    );
  }

  #showSlab() {
    this.store.set({ voxelVersion: this.store.get().voxelVersion + 1 });
    this.#updateLayer();
  }

  #updateGreyTable() {
    const { volume } = this.store.get();
    const window = volume && this.entry?.isSequence ? this.#windowOfSequence(volume) : this.#main.get().window;
    if (volume && window) this.store.set({ window, greyTable: buildGreyTable(volume.header, window) });
    this.#updateLayer();
  }

  /** @param {RemoteVolume} volume */
  #windowOfSequence({ header }) {
    const chosen = this.#windows.get(this.entry?.id ?? "");
    return chosen ?? header.windows.find(({ name }) => name === header.window) ?? header.windows[0];
  }

  #updateLayer() {
    const { volume, window, greyTable } = this.store.get();
    if (!this.#main.get().comparisonLayered || !this.entry || !volume || !window) return;
    const hotTable = this.entry.isHot ? buildHotTable(volume.header, window) : null;
    this.#main.set({ layer: { name: this.entry.name, volume, window, greyTable, hotTable } });
  }

  /** @param {Vector} mm in the other study */
  #moveMainCursor(mm) {
    const { volume } = this.#main.get();
    if (!volume) return;
    const { header } = volume;
    const main_mm = mm.map((x, axis) => x - this.offset_mm[axis]);
    this.#main.set({ cursor: findNearestVoxel(header, toIndex(header.affine, main_mm)) });
  }
}
