// Keys: everything a reader does with the keyboard, in one table that is also the help page.
import { TOOLS, dab, push } from "./tools.js";

export const KEYS = [
  { keys: ["n"], does: "next finding", run: (v) => v.reading.step(1) },
  { keys: ["p"], does: "previous finding", run: (v) => v.reading.step(-1) },
  { keys: ["y"], does: "accept", run: (v) => v.reading.decide("accept") },
  { keys: ["x"], does: "reject", run: (v) => v.reading.decide("reject") },
  { keys: ["e"], does: "edit the mask of this finding", run: (v) => v.reading.decide("edit") },
  { keys: ["u"], does: "unsure", run: (v) => v.reading.decide("unsure") },
  { keys: ["k"], does: "another label for this finding", run: (v) => v.reading.relabel() },
  { keys: ["a"], does: "add a missed finding at the crosshair", run: (v) => v.reading.missed() },
  { keys: ["z"], does: "undo the last stroke or verdict", run: (v) => v.reading.undo() },
  { keys: ["Z"], does: "redo the stroke", run: (v) => v.reading.redo() },
  { keys: ["1", "2", "3", "4", "5", "6"], does: "window presets", run: (v, key) => v.preset(Number(key) - 1) },
  { keys: ["PageUp", "ArrowUp"], does: "one slice on", run: (v, key) => push(v, key) || v.scroll(v.active, 1) },
  { keys: ["PageDown", "ArrowDown"], does: "one slice back", run: (v, key) => push(v, key) || v.scroll(v.active, -1) },
  { keys: ["ArrowLeft", "ArrowRight"], does: "next plane for the keyboard", run: (v, key) => push(v, key) || v.turn(key === "ArrowLeft" ? -1 : 1) },
  { keys: ["+", "="], does: "zoom in", run: (v) => v.zoom(1.25) },
  { keys: ["-"], does: "zoom out", run: (v) => v.zoom(0.8) },
  { keys: ["0"], does: "whole image again", run: (v) => v.resetView() },
  { keys: ["f"], does: "enlarge this plane, or all three again", run: (v) => v.enlarge(v.active) },
  { keys: ["o"], does: "overlay on and off", run: (v) => v.toggle("overlayOn") },
  { keys: ["q"], does: "uncertainty on and off", run: (v) => v.doubt() },
  { keys: ["c"], does: "beside it: the earlier study, the other model, nothing", run: (v) => v.beside.cycle() },
  { keys: ["j"], does: "scroll both together, or each alone", run: (v) => v.beside.link() },
  { keys: ["s"], does: "3D view of the mask", run: (v) => v.solid.toggle() },
  { keys: ["h"], does: "crosshair on and off", run: (v) => v.toggle("crosshair") },
  { keys: ["g"], does: "tool: navigate", run: (v) => v.take("navigate") },
  { keys: ["w"], does: "tool: window (drag, or the arrows)", run: (v) => v.take("window") },
  { keys: ["v"], does: "tool: pan (drag, or the arrows)", run: (v) => v.take("pan") },
  { keys: ["m"], does: "tool: length in mm", run: (v) => v.take("length") },
  { keys: ["r"], does: "tool: RECIST, long and short axis of the finding", run: (v) => v.take("recist"), edits: true },
  { keys: ["b"], does: "tool: brush", run: (v) => v.take("brush"), edits: true },
  { keys: ["d"], does: "tool: erase", run: (v) => v.take("erase"), edits: true },
  { keys: ["t"], does: "tool: range brush, inside the window only", run: (v) => v.take("range"), edits: true },
  { keys: ["l"], does: "tool: fill an outline", run: (v) => v.take("fill"), edits: true },
  { keys: ["i"], does: "interpolate between slices", run: (v) => v.reading.interpolate(), edits: true },
  { keys: ["[", "]"], does: "smaller, larger brush", run: (v, key) => v.resizeBrush(key === "[" ? 0.8 : 1.25), edits: true },
  { keys: ["."], does: "use the tool at the crosshair, as a click", run: (v) => dab(v) },
  { keys: ["Escape"], does: "take measures and messages away", run: (v) => v.clear() },
  { keys: ["?"], does: "this help", run: (v) => v.help() },
];

const NAMES = { ArrowUp: "Up", ArrowDown: "Down", ArrowLeft: "Left", ArrowRight: "Right", PageUp: "PgUp", PageDown: "PgDn", Escape: "Esc", Z: "Shift Z" };

export function keyName(key) {
  return NAMES[key] ?? key.toUpperCase();
}

// The key that takes up a tool.
export function keyOf(tool) {
  return KEYS.find((entry) => entry.does.toLowerCase().startsWith(`tool: ${TOOLS[tool].name.toLowerCase()}`))?.keys[0];
}

// Keys work without a click into the viewer first, but never while somebody writes.
export function hearKeys(viewer) {
  const heard = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !viewer.listening() || viewer.choice.open) return;
    if (steers(event.composedPath()[0], event.key)) return;
    if (writes(event.composedPath()[0])) return event.key === "Escape" && event.composedPath()[0].blur();
    const entry = KEYS.find(({ keys, edits }) => keys.includes(event.key) && (!edits || viewer.state.editable));
    if (!entry) return;
    event.preventDefault();
    event.stopPropagation();
    if (!viewer.state.volume?.data) return viewer.notify("There is no scan on the screen yet: this key did nothing.");
    entry.run(viewer, event.key);
  };
  window.addEventListener("keydown", heard, true);
  return () => window.removeEventListener("keydown", heard, true);
}

// A slider or the 3D view that was tabbed to takes the arrows itself; a click gives the focus back.
function steers(node, key) {
  return /^(Arrow.*|[-+=])$/.test(key) && node instanceof Element && node.matches("input[type=range], .mv-solid canvas");
}

function writes(node) {
  return node instanceof Element && (node.matches("textarea, select, [contenteditable=true]") || node.matches("input:not([type=range]):not([type=checkbox])"));
}
