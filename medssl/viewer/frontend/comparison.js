// @ts-check
// Comparison: another study of the patient, or another model's labels, next to the case and aligned with it in mm.
import { createElement, setText, setVisible } from "./dom.js";
import { PLANES, PLANE_NAMES, clamp, findNearestVoxel, toIndex, toMm } from "./geometry.js";
import { Pane } from "./pane.js";
import { DerivedStore } from "./store.js";
import { RemoteVolume, buildGreyTable, isAbort, loadSlabs } from "./volume.js";
/** @import { ComparisonEntry, Finding, Notify, Plane, Vector, ViewerState } from "./types" */
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
      voxelVersion: 0,
      greyTable: store.get().greyTable,
    });
    this.store.subscribe((changed) => [...changed].some((key) => key !== "cursor") && redraw());
    store.subscribe((changed) => changed.has("window") && this.#updateGreyTable());
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

  /** @param {string | null} id of a study, or null to show none */
  async choose(id) {
    this.#abort?.abort();
    this.#abort = new AbortController();
    this.store.set({ volume: null, overlay: null, measures: [] });
    this.offset_mm = [0, 0, 0];
    const entry = this.#main.get().comparisons.find((other) => other.id === id) ?? null;
    this.#main.set({ comparison: entry, comparisonLinked: true });
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
    setVisible(this.node, this.entry);
    if (!this.entry) return;
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
      new RemoteVolume(entry.overlay, signal).open(),
    ]);
    if (!volume) throw new Error("The scan itself is still loading.");
    if (String(volume.header.shape) !== String(overlay.header.shape)) {
      throw new Error("Its labels are on another grid.");
    }
    this.store.set({ volume, overlay });
    this.#updateGreyTable();
    const { findings, selected } = this.#main.get();
    this.align(findings.find(({ id }) => id === selected));
    await loadSlabs(
      isSameScan ? [overlay] : [volume, overlay],
      () => this.store.get().cursor[2],
      () => this.store.set({ voxelVersion: this.store.get().voxelVersion + 1 }),
    );
  }

  #updateGreyTable() {
    const { volume } = this.store.get();
    const { window } = this.#main.get();
    if (volume && window) this.store.set({ greyTable: buildGreyTable(volume.header, window) });
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
