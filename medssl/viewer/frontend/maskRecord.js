// @ts-check
// Mask record: keeps the mask on the screen equal to the stored strokes and those that wait to be stored.
import { LabelEditor } from "./labelEditor.js";
/** @import { PendingStroke } from "./pendingActs.js" */
/** @import { RemoteVolume } from "./volume.js" */
/** @import { Finding, Run, ViewerData, ViewerState } from "./types" */
/** @import { Store } from "./store.js" */
/** @typedef {Pick<ViewerData, "overlay" | "drawn" | "findings">} MaskVersion */

export class MaskRecord {
  #store;
  #fetchMask;
  #listPending;
  /** @type {MaskVersion} what the server has stored */
  #version = { overlay: null, drawn: [], findings: [] };
  /** @type {{ mask: RemoteVolume, drawn: string[] } | null} a mask that waits for the end of a stroke */
  #next = null;

  /**
   * @param {object} uses
   * @param {Store<ViewerState>} uses.store
   * @param {(version: MaskVersion) => void} uses.fetchMask fetches a version of the mask, which then goes to `show`
   * @param {() => { strokes: PendingStroke[], isSettled: boolean }} uses.listPending the strokes that wait, and
   *   whether no act waits at all
   */
  constructor({ store, fetchMask, listPending }) {
    this.#store = store;
    this.#fetchMask = fetchMask;
    this.#listPending = listPending;
  }

  /** Follows the server: once nothing waits, a mask that differs from the record is fetched again. */
  follow(/** @type {MaskVersion} */ version) {
    const added = listAdded(version);
    const isRenumbered = !listAdded(this.#version).every((id, n) => added[n] === id);
    this.#version = version;
    if (isRenumbered) this.#store.set({ drawn: ["numbers of findings that were taken back"] });
    this.#compare();
  }

  /** Draws the strokes that wait, once the mask is complete and can be drawn on. */
  drawPending() {
    const { editor, drawn, findings } = this.#store.get();
    if (editor) {
      const missing = this.#listPending().strokes.filter(({ id }) => !drawn.includes(id));
      for (const { id, runs, finding } of missing) editor.repeat(id, numberRuns(findings, finding, runs));
      if (missing.length) this.#setDrawn([...drawn, ...missing.map(({ id }) => id)]);
    }
    this.#compare();
  }

  /**
   * Shows a mask that was fetched, unless the record has changed since.
   * @param {RemoteVolume} mask
   * @param {string[]} drawn
   */
  show(mask, drawn) {
    const { editor, editable, overlayVersion } = this.#store.get();
    if (!isSame(drawn, this.#version.drawn)) return this.#compare();
    if (editor?.isDrawing) {
      this.#next = { mask, drawn };
      return;
    }
    const nextEditor = editable ? new LabelEditor(mask) : null;
    this.#store.set({ overlay: mask, editor: nextEditor, drawn, overlayVersion: overlayVersion + 1 });
    this.drawPending();
  }

  /** @param {string} id of a stroke that was drawn here */
  add(id) {
    this.#setDrawn([...this.#store.get().drawn, id]);
    if (this.#next) this.show(this.#next.mask, this.#next.drawn);
    this.#next = null;
  }

  /** @param {string} id of a stroke that was taken back here */
  remove(id) {
    this.#setDrawn(this.#store.get().drawn.filter((other) => other !== id));
  }

  /** @param {string[]} drawn */
  #setDrawn(drawn) {
    this.#store.set({ drawn, overlayVersion: this.#store.get().overlayVersion + 1 });
  }

  #compare() {
    const { drawn, overlay } = this.#store.get();
    const { isSettled } = this.#listPending();
    const isCurrent = isSame(drawn, this.#version.drawn);
    this.#store.set({ isMaskCurrent: isCurrent || !isSettled });
    if (isSettled && !isCurrent && overlay?.isComplete && this.#version.overlay) this.#fetchMask(this.#version);
  }
}

/**
 * Returns the runs of a stroke with the number of its finding in place of its label, as the overlay holds them.
 * @param {Finding[]} findings
 * @param {string | null} finding that the stroke was drawn for
 * @param {Run[]} runs
 * @returns {Run[]}
 */
function numberRuns(findings, finding, runs) {
  return runs.map(([start, length, label]) => {
    const isOwner = (/** @type {Finding} */ { id, kind }) => id === finding || kind === "organ";
    const owner = findings.find((other) => other.number && other.label === label && isOwner(other));
    return [start, length, owner?.number ?? label];
  });
}

/**
 * Lists the findings that the reader added, which are numbered in this order.
 * @param {MaskVersion} version
 */
function listAdded({ findings }) {
  return findings.filter(({ source }) => source === "reader").map(({ id }) => id);
}

/**
 * @param {string[]} first
 * @param {string[]} second
 */
function isSame(first, second) {
  return first.length === second.length && first.every((id, n) => id === second[n]);
}
