// @ts-check
// View memory: keeps window, zoom, crosshair and measures of a case over a pause and a reload of the page.
/** @import { ViewerState } from "./types" */
/** @import { Store } from "./store.js" */

const KEPT = /** @type {const} */ (["window", "views", "measures", "cursor", "selected"]);

/**
 * @param {string} key name of the case
 * @param {Store<ViewerState>} store
 */
export function saveView(key, store) {
  const state = store.get();
  if (!state.volume) return;
  const view = Object.fromEntries(KEPT.map((name) => [name, state[name]]));
  try {
    sessionStorage.setItem(`medssl-view-${key}`, JSON.stringify({ ...view, shape: state.volume.header.shape }));
  } catch {
    // Without a storage, a pause resets the view.
  }
}

/**
 * Restores what was kept for this scan; the crosshair only where the same finding is still selected.
 * @param {string} key name of the case
 * @param {Store<ViewerState>} store
 */
export function restoreView(key, store) {
  const { volume, selected } = store.get();
  try {
    const view = JSON.parse(sessionStorage.getItem(`medssl-view-${key}`) ?? "null");
    if (!view || String(view.shape) !== String(volume?.header.shape)) return;
    const { window, views, measures } = view;
    store.set({ window, views, measures, ...(view.selected === selected && { cursor: view.cursor }) });
  } catch {
    // What was kept cannot be read: the view begins as for a new case.
  }
}
