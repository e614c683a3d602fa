// @ts-check
// Display: intensity window, label colours, confidence threshold and switches; keeps the colour tables up to date.
import { clamp } from "./geometry.js";
import { buildColourTable, buildLabelTable } from "./state.js";
import { buildGreyTable } from "./volume.js";
/** @import { Finding, IntensityWindow, LabelStyle, Notify, Projection, SwitchName, ViewerState } from "./types" */
/** @import { WindowMemory } from "./windowMemory.js" */
/** @import { RemoteVolume } from "./volume.js" */
/** @import { Store } from "./store.js" */

export class Display {
  #store;
  #notify;
  #windowMemory;
  /** @type {{ volume: RemoteVolume | null, label: number }} what the window was last chosen for */
  #windowed = { volume: null, label: 0 };

  /**
   * @param {object} uses
   * @param {Store<ViewerState>} uses.store
   * @param {Notify} uses.notify
   * @param {WindowMemory} uses.windowMemory
   */
  constructor({ store, notify, windowMemory }) {
    this.#store = store;
    this.#notify = notify;
    this.#windowMemory = windowMemory;
    this.#updateLabelTable();
    this.#updateColourTable();
    store.subscribe((changed) => {
      if (changed.has("findings") || changed.has("pendingVerdicts")) this.#updateLabelTable();
      if (changed.has("window") || changed.has("volume")) this.#updateGreyTable();
      if (["labels", "opacity", "labelTable"].some((name) => changed.has(/** @type {keyof ViewerState} */ (name)))) {
        this.#updateColourTable();
      }
    });
  }

  /** @param {SwitchName} name */
  toggle(name) {
    this.#store.set({ [name]: !this.#store.get()[name] });
  }

  toggleUncertainty() {
    const { uncertainty, probability } = this.#store.get();
    if (!uncertainty && !probability) return this.#notify("The model gave no uncertainty for this case.");
    this.toggle("uncertaintyVisible");
  }

  /** @param {number} number of a window of the scan, from 0 */
  applyPreset(number) {
    const window = this.#store.get().volume?.header.windows[number];
    if (!window) return;
    this.#store.set({ window });
    this.rememberWindow();
  }

  /** Keeps the window as the reader's choice for the label of the chosen finding. */
  rememberWindow() {
    const { volume, window, labels, label } = this.#store.get();
    if (volume && window && labels[label]) this.#windowMemory.remember(volume.header, labels[label].name, window);
  }

  /**
   * Applies the window of a finding's label where the finding before had another one: the reader's, or the label's own.
   * @param {Finding} finding
   */
  recallWindow({ label }) {
    const { volume, labels } = this.#store.get();
    if (!volume || (this.#windowed.volume === volume && this.#windowed.label === label)) return;
    this.#windowed = { volume, label };
    const style = labels[label];
    if (!style) return;
    const isOwn = (/** @type {IntensityWindow} */ { name }) => name === style.window;
    const window = this.#windowMemory.recall(volume.header, style.name) ?? volume.header.windows.find(isOwn);
    if (window) this.#store.set({ window });
  }

  /** @param {Projection["kind"]} kind */
  project(kind) {
    this.#store.set({ projection: { ...this.#store.get().projection, kind } });
  }

  /** Shows single slices, then the largest, the smallest and the mean value of a slab. */
  cycleProjection() {
    const kinds = /** @type {const} */ (["none", "MIP", "MinIP", "mean"]);
    this.project(kinds[(kinds.indexOf(this.#store.get().projection.kind) + 1) % kinds.length]);
  }

  /** @param {number | null} threshold */
  setThreshold(threshold) {
    this.#store.set({ threshold, overlayVersion: this.#store.get().overlayVersion + 1 });
  }

  /**
   * Changes the colour or the visibility of a label in this browser.
   * @param {string} number
   * @param {Partial<LabelStyle>} change
   */
  styleLabel(number, change) {
    const { labels, labelOverrides } = this.#store.get();
    this.#store.set({
      labelOverrides: { ...labelOverrides, [number]: { ...labelOverrides[number], ...change } },
      labels: { ...labels, [number]: { ...labels[number], ...change } },
    });
  }

  /** @param {number} factor */
  scaleBrush(factor) {
    const { radius_mm } = this.#store.get();
    this.#store.set({ radius_mm: clamp(Math.round(radius_mm * factor * 2) / 2, 0.5, 30) });
  }

  #updateGreyTable() {
    const { volume, window } = this.#store.get();
    if (volume && window) this.#store.set({ greyTable: buildGreyTable(volume.header, window) });
  }

  // The page sends its findings again after each event: a table that says the same is not worth a redraw.
  #updateLabelTable() {
    const state = this.#store.get();
    const labelTable = buildLabelTable(state);
    if (labelTable.some((label, n) => label !== state.labelTable[n])) this.#store.set({ labelTable });
  }

  #updateColourTable() {
    const state = this.#store.get();
    this.#store.set({ colourTable: buildColourTable(state), overlayVersion: state.overlayVersion + 1 });
  }
}
