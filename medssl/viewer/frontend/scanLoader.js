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
  #onComplete;
  #onMask;
  /** @type {AbortController | null} */
  #abort = null;
  /** @type {AbortController | null} */
  #maskAbort = null;
  /** @type {string | null} the address of the mask that is being fetched alone */
  #maskUrl = null;

  /**
   * @param {object} uses
   * @param {Store<ViewerState>} uses.store
   * @param {LoadingOverlay} uses.loadingOverlay
   * @param {() => void} uses.onScan called when another scan is opened, before its voxels arrive
   * @param {() => void} uses.onComplete called when every voxel is here
   * @param {(mask: RemoteVolume, drawn: string[]) => void} uses.onMask called with each mask that was fetched alone
   */
  constructor({ store, loadingOverlay, onScan, onComplete, onMask }) {
    this.#store = store;
    this.#overlay = loadingOverlay;
    this.#onScan = onScan;
    this.#onComplete = onComplete;
    this.#onMask = onMask;
  }

  /**
   * Opens the volumes of a case. A signed address may change while the scan behind it stays the same: voxels that are
   * here are not fetched again, except for a mask that was drawn on.
   * @param {ImageUrls & { drawn: string[] }} urls
   */
  async open(urls) {
    this.#abort?.abort();
    this.#maskAbort?.abort();
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
          const reusable = previous[n]?.isEdited ? null : previous[n];
          return url ? new RemoteVolume(url, signal).open(reusable) : null;
        }),
      );
      this.#show(volumes, volumes[0] === previous[0], urls.drawn);
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

  /**
   * Fetches another version of the mask while the one on the screen stays.
   * @param {{ overlay: string | null, drawn: string[] }} version
   */
  async fetchMask({ overlay, drawn }) {
    const { volume } = this.#store.get();
    if (!overlay || !volume || overlay === this.#maskUrl) return;
    this.#maskAbort?.abort();
    const { signal } = (this.#maskAbort = new AbortController());
    this.#maskUrl = overlay;
    try {
      const mask = await new RemoteVolume(overlay, signal).open();
      requireSameGrid(volume, mask);
      await loadSlabs(
        [mask],
        () => this.#store.get().cursor[2],
        () => {},
      );
      this.#maskUrl = null;
      if (!signal.aborted) this.#onMask(mask, drawn);
    } catch (error) {
      if (isAbort(error)) return;
      this.#maskUrl = null; // the next answer of the server tries again
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
    this.#maskAbort?.abort();
  }

  /**
   * @param {(RemoteVolume | null)[]} volumes
   * @param {boolean} isSameScan
   * @param {string[]} drawn the strokes that the mask contains
   */
  #show([volume, overlay, probability, uncertainty], isSameScan, drawn) {
    if (!volume) return;
    for (const other of [overlay, probability, uncertainty]) if (other) requireSameGrid(volume, other);
    const state = this.#store.get();
    const isDrawnHere = isSameScan && !overlay && state.overlay?.url === null;
    const mask = isDrawnHere ? state.overlay : overlay;
    const editor = mask === state.overlay ? state.editor : null;
    this.#store.set({ volume, overlay: mask, probability, uncertainty, editor });
    if (mask === overlay) this.#store.set({ drawn });
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
    this.#onComplete();
  }
}

/**
 * @param {RemoteVolume} volume
 * @param {RemoteVolume} other
 */
function requireSameGrid(volume, other) {
  if (String(other.header.shape) !== String(volume.header.shape)) {
    throw new Error("Scan and overlay are on different grids.");
  }
}
