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
    const { volume, pointer, cursor, unsavedEvents, lastSeq } = state;
    setVisible(node, volume);
    if (!volume) return;
    const index = pointer ?? cursor;
    const stored = volume.valueAt(index);
    setText(value, stored === null ? "not loaded" : formatValue(stored, volume.header));
    setText(position, `${formatPosition(toMm(volume.header.affine, index))} mm    voxel ${index.join(" ")}`);
    badges.replaceChildren(...listCaveats(state).map((text) => createElement("span", { class: "mv-badge" }, text)));
    setText(saved, unsavedEvents ? `Saving ${unsavedEvents}` : lastSeq ? "All saved" : "");
    saved.classList.toggle("mv-busy", unsavedEvents > 0);
  };
  return { node, update };
}

/**
 * @param {number} value
 * @param {VolumeHeader} header
 */
function formatValue(value, { exact, unit }) {
  return `${exact ? value : Number(value.toPrecision(4))} ${unit}`;
}
