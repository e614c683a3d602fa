// @ts-check
// Status line: the value and the position under the pointer, warnings, and whether everything is saved.
import { createElement, setText, setVisible } from "./dom.js";
import { formatPosition, toMm } from "./geometry.js";
import { listCaveats } from "./state.js";
/** @import { Panel, VolumeHeader, ViewerState } from "./types" */
/** @import { Store } from "./store.js" */

/**
 * @param {Store<ViewerState>} store
 * @returns {Panel}
 */
export function createStatusLine(store) {
  const value = createElement("span", { class: "mv-value" });
  const position = createElement("span", { class: "mv-place" });
  const badges = createElement("span", { class: "mv-badges", role: "status" });
  const saved = createElement("span", { class: "mv-saved", role: "status" });
  const gap = createElement("span", { class: "mv-gap" });
  const node = createElement("footer", { class: "mv-status" }, value, position, gap, badges, saved);
  const update = () => {
    const state = store.get();
    const { volume, pointer, cursor } = state;
    setVisible(node, volume);
    if (!volume) return;
    const index = pointer ?? cursor;
    const shown = state.layer?.volume ?? volume;
    const stored = shown.valueAt(index);
    setText(value, stored === null ? "not loaded" : formatValue(stored, shown.header));
    setText(position, `${formatPosition(toMm(volume.header.affine, index))} mm    voxel ${index.join(" ")}`);
    badges.replaceChildren(...listCaveats(state).map((text) => createElement("span", { class: "mv-badge" }, text)));
    const text = describeSaving(state);
    setText(saved, text);
    saved.classList.toggle("mv-busy", text !== "" && text !== "All saved");
  };
  return { node, update };
}

/**
 * Says whether everything is saved: only if nothing waits and the mask on the screen is the stored one.
 * @param {ViewerState} state
 */
function describeSaving({ unsavedEvents, refused, isKept, isMaskCurrent, overlay, hasActed }) {
  if (refused) return `Not saved ${unsavedEvents}`;
  const lost = isKept ? "" : ": keep this window open, the browser has no room to keep them";
  if (unsavedEvents) return `Saving ${unsavedEvents}${lost}`;
  if (!isMaskCurrent || (hasActed && overlay && !overlay.isComplete)) return "Updating the mask";
  return hasActed ? "All saved" : "";
}

/**
 * @param {number} value
 * @param {VolumeHeader} header
 */
function formatValue(value, { exact, unit }) {
  return `${exact ? value : Number(value.toPrecision(4))} ${unit}`;
}
