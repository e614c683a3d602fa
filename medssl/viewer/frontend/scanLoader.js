// @ts-check
// Scan loader: opens the volumes of a case, and fetches their voxels.
import { LabelEditor } from "./labelEditor.js";
import { createViews } from "./state.js";
import { RemoteVolume, createEmptyLabels, isAbort, loadSlabs } from "./volume.js";
/** @import { ViewerData, ViewerState } from "./types" */
/** @import { LoadingOverlay } from "./loadingOverlay.js" */
/** @import { Store } from "./store.js" */

export const IMAGES = /** @type {const} */ (["volume", "overlay", "probability", "uncertainty"]);
/** @typedef {Pick<ViewerData, "volume" | "overlay" | "probability" | "uncertainty">} ImageUrls */

export class ScanLoader {
  /** Whether every voxel is here. */
  isComplete = false;
  #store;
  #overlay;
  #onScan;
  /** @type {AbortController | null} */
  #abort = null;

  /**
   * @param {object} uses
   * @param {Store<ViewerState>} uses.store
   * @param {LoadingOverlay} uses.loadingOverlay
   * @param {() => void} uses.onScan called when another scan is opened, before its voxels arrive
   */
  constructor({ store, loadingOverlay, onScan }) {
    this.#store = store;
    this.#overlay = loadingOverlay;
    this.#onScan = onScan;
  }

  /**
   * Opens the volumes of a case. A signed address may change while the scan behind it stays the same: voxels that are
   * here are not fetched again.
   * @param {ImageUrls} urls
   */
  async open(urls) {
    this.#abort?.abort();
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    const state = this.#store.get();
    const previous = IMAGES.map((name) => state[name]);
    this.isComplete = false;
    if (state.volume?.url !== urls.volume) {
      this.#store.set({ volume: null }); // never one patient's scan next to another patient's findings
      this.#overlay.showLoading("Opening the scan", "Fetching the first planes");
    }
    try {
      const volumes = await Promise.all(
        IMAGES.map((name, n) => {
          const url = urls[name];
          return url ? new RemoteVolume(url, signal).open(previous[n]) : null;
        }),
      );
      this.#show(volumes, volumes[0] === previous[0]);
      await loadSlabs(
        volumes.filter((volume) => volume !== null),
        () => this.#store.get().cursor[2],
        () => this.#showSlab(),
      );
      this.#finish();
    } catch (error) {
      if (isAbort(error)) return;
      this.#overlay.showError("The scan cannot be shown", error instanceof Error ? error.message : String(error));
    }
  }

  /** Lets the reader draw once all of the mask is here: what arrives later would cover the strokes. */
  allowDrawing() {
    const { volume, overlay, editor, editable } = this.#store.get();
    if (!editable || !this.isComplete || !volume) return;
    const mask = overlay ?? createEmptyLabels(volume);
    this.#store.set({ overlay: mask, editor: editor ?? new LabelEditor(mask) });
  }

  close() {
    this.#abort?.abort();
  }

  /**
   * @param {(RemoteVolume | null)[]} volumes
   * @param {boolean} isSameScan
   */
  #show([volume, overlay, probability, uncertainty], isSameScan) {
    if (!volume) return;
    for (const other of [overlay, probability, uncertainty]) {
      if (other && String(other.header.shape) !== String(volume.header.shape)) {
        throw new Error("Scan and overlay are on different grids.");
      }
    }
    const state = this.#store.get();
    const isDrawnHere = isSameScan && !overlay && state.overlay?.url === null;
    const mask = isDrawnHere ? state.overlay : overlay;
    const editor = mask === state.overlay ? state.editor : null;
    this.#store.set({ volume, overlay: mask, probability, uncertainty, editor });
    if (isSameScan) return;
    const { shape, windows, window } = volume.header;
    this.#store.set({
      cursor: shape.map((size) => Math.floor(size / 2)),
      measures: [],
      longAxis: null,
      heldDrag: null,
      threshold: null,
      views: createViews(),
      window: windows.find(({ name }) => name === window) ?? windows[0],
    });
    this.#onScan();
  }

  #showSlab() {
    const { voxelVersion, overlayVersion } = this.#store.get();
    this.#store.set({ voxelVersion: voxelVersion + 1, overlayVersion: overlayVersion + 1 });
    this.#overlay.hide();
  }

  #finish() {
    this.isComplete = true;
    this.#overlay.hide();
    this.allowDrawing();
    this.#store.set({ overlayVersion: this.#store.get().overlayVersion + 1 });
  }
}
