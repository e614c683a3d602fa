// State: what a viewer shows and how; what a reader ought to know of it; the colours of the labels.
import { hex } from "./dom.js";
import { TABLE, ZERO, hazeTable } from "./volume.js";

const COLOURS = ["#ffb03b", "#4dd0e1", "#f06292", "#aed581", "#9575cd", "#fff176", "#64b5f6", "#ff8a65"];
// What the model doubts: as it was stored, or the variance of its confidence, 4p(1-p).
const STORED_DOUBT = hazeTable((share) => share);
const DERIVED_DOUBT = hazeTable((share) => 4 * share * (1 - share));

export function firstState(data) {
  const state = {
    volume: null, overlay: null, probability: null, uncertainty: null, editor: null, cursor: [0, 0, 0], pointer: null, window: null,
    tool: "navigate", measures: [], long: null, held: null, crosshair: true, overlayOn: true, filled: true, outlined: true, opacity: 0.3,
    doubtOn: false, doubtIs: "", threshold: null, label: 1, radius_mm: 4, ball: false, brushAt: null, looks: {},
    version: 0, overlayVersion: 0, tables: {}, selected: data.selected, findings: [], labels: {}, reasons: [], besides: [],
  }; // prettier-ignore
  state.shown = (label) => state.labels[label]?.visible !== false;
  state.colour = (label) => state.labels[label]?.colour ?? COLOURS[(label - 1) % COLOURS.length];
  state.doubt = () => {
    if (!state.doubtOn || !(state.uncertainty ?? state.probability)) return null;
    return state.uncertainty ? { volume: state.uncertainty, table: STORED_DOUBT } : { volume: state.probability, table: DERIVED_DOUBT };
  };
  return state;
}

// What is not plainly the stored voxels of the whole scan, in words.
export function caveats(state) {
  const { volume, overlay, probability, uncertainty, threshold, doubtOn } = state;
  const loading = [[volume, "loading"], [overlay, "mask loading"], [probability, "confidence loading"], [uncertainty, "uncertainty loading"]];
  const { oblique_degrees, exact } = volume.header;
  return [
    ...loading.filter(([v]) => v && v.count < v.planes).map(([v, name]) => `${name} ${v.count}/${v.planes}`),
    oblique_degrees ? `oblique ${oblique_degrees.toFixed(0)}°: shown along the scan's own axes` : null,
    exact ? null : "values rounded to 16 bits",
    threshold === null ? null : `mask at confidence ${threshold.toFixed(2)}, not as stored`,
    !doubtOn ? null : uncertainty ? `uncertainty: ${state.doubtIs || "as the model stored it"}` : "uncertainty: worked out of the confidence, 4p(1-p)",
  ].filter(Boolean);
}

// Label -> its colour, half transparent; nothing for those that are hidden.
export function colourTable(state) {
  const table = new Uint32Array(TABLE);
  const alpha = Math.round(state.opacity * 255);
  const known = {}; // the labels share a few colours, and to read a colour takes a canvas
  for (let label = 1; label < 256; label++) {
    const colour = state.colour(label);
    if (state.shown(label)) table[label + ZERO] = ((alpha << 24) | (known[colour] ??= packed(colour))) >>> 0;
  }
  return table;
}

function packed(colour) {
  const rgb = parseInt(hex(colour).slice(1), 16);
  return ((rgb & 255) << 16) | (rgb & 0xff00) | (rgb >> 16);
}
