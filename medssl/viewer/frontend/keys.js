// @ts-check
// Keys: everything that the reader can do with the keyboard, in one table that is also the help page.
import { TOOLS } from "./tools.js";
/** @import { Commands, MaskEditName, ToolName } from "./types" */

/**
 * @typedef {object} KeyBinding
 * @property {string[]} keys
 * @property {string} help
 * @property {(commands: Commands, key: string) => void} run
 * @property {ToolName} [tool] that the key chooses
 * @property {boolean} [edits] the key works only in a case that is open to changes
 */

/** @type {KeyBinding[]} */
export const KEYS = [
  { keys: ["n"], help: "next finding", run: (c) => c.stepFinding(1) },
  { keys: ["p"], help: "previous finding", run: (c) => c.stepFinding(-1) },
  { keys: ["y"], help: "accept", run: (c) => c.decide("accept") },
  { keys: ["x"], help: "reject", run: (c) => c.decide("reject") },
  { keys: ["e"], help: "edit the mask of this finding", run: (c) => c.decide("edit") },
  { keys: ["u"], help: "unsure", run: (c) => c.decide("unsure") },
  { keys: ["k"], help: "another label for this finding", run: (c) => c.relabel() },
  { keys: ["a"], help: "add a missed finding at the crosshair", run: (c) => c.addMissed() },
  { keys: ["z"], help: "undo the last stroke or verdict", run: (c) => c.undo() },
  { keys: ["Z"], help: "redo the stroke", run: (c) => c.redo() },
  { keys: ["1", "2", "3", "4", "5", "6"], help: "window presets", run: (c, key) => c.applyPreset(Number(key) - 1) },
  { keys: ["PageUp", "ArrowUp"], help: "next slice", run: (c, key) => c.nudge(key) || c.scroll(1) },
  { keys: ["PageDown", "ArrowDown"], help: "previous slice", run: (c, key) => c.nudge(key) || c.scroll(-1) },
  {
    keys: ["ArrowLeft", "ArrowRight"],
    help: "move the keyboard to the next plane",
    run: (c, key) => c.nudge(key) || c.turnPane(key === "ArrowLeft" ? -1 : 1),
  },
  { keys: ["+", "="], help: "zoom in", run: (c) => c.zoom(1.25) },
  { keys: ["-"], help: "zoom out", run: (c) => c.zoom(0.8) },
  { keys: ["0"], help: "show the whole image again", run: (c) => c.resetView() },
  { keys: ["f"], help: "enlarge this plane, or show all three again", run: (c) => c.enlarge() },
  { keys: ["o"], help: "overlay on and off", run: (c) => c.toggle("overlayVisible") },
  { keys: ["X"], help: "outlines of rejected findings on and off", run: (c) => c.toggle("rejectedVisible") },
  { keys: ["R"], help: "measured axes on and off", run: (c) => c.toggle("axesVisible") },
  { keys: ["q"], help: "uncertainty on and off", run: (c) => c.toggleUncertainty() },
  { keys: ["c"], help: "comparison: earlier study, other model, none", run: (c) => c.cycleComparison() },
  { keys: ["Q"], help: "next sequence in place of this one", run: (c) => c.cycleLayer() },
  { keys: ["j"], help: "scroll both studies together, or each alone", run: (c) => c.toggleLink() },
  { keys: ["P"], help: "slab: MIP, MinIP, mean, single slices", run: (c) => c.cycleProjection() },
  { keys: ["S"], help: "image smooth or as its voxels", run: (c) => c.toggle("smoothed") },
  { keys: ["s"], help: "3D view of the mask", run: (c) => c.toggleMesh() },
  { keys: ["h"], help: "crosshair on and off", run: (c) => c.toggle("crosshairVisible") },
  bindTool("g", "navigate", "navigate"),
  bindTool("w", "window", "window (drag, or the arrows)"),
  bindTool("v", "pan", "pan (drag, or the arrows)"),
  bindTool("m", "length", "length in mm"),
  bindTool("A", "angle", "angle"),
  bindTool("W", "arrow", "arrow"),
  bindTool("O", "ellipse", "ellipse: mean, SD, smallest and largest value, area"),
  bindTool("L", "freehand", "outline by hand, with the same values"),
  bindTool("B", "sphere", "sphere, with the same values and its volume"),
  bindTool("r", "recist", "RECIST, long and short axis of the finding"),
  bindTool("b", "brush", "brush"),
  bindTool("d", "erase", "erase"),
  bindTool("t", "range", "range brush, inside the window or an own range only"),
  bindTool("l", "fill", "fill an outline"),
  bindTool("D", "scissors", "scissors"),
  bindTool(
    "C",
    "assist",
    "assist: complete the finding from drawn slices, or from clicks inside and with Ctrl outside",
  ),
  { keys: ["Enter"], help: "keep the proposal of the assist tool", run: (c) => c.acceptProposal(), edits: true },
  bindEdit("G", "grow", "grow this finding by the margin"),
  bindEdit("H", "shrink", "shrink it by the margin"),
  bindEdit("M", "smooth", "smooth it"),
  bindEdit("F", "holes", "fill its holes"),
  bindEdit("I", "islands", "keep its largest part"),
  {
    keys: [">", "<"],
    help: "copy this finding to the next, the previous slice",
    run: (c, key) => c.copySlice(key === ">" ? 1 : -1),
    edits: true,
  },
  {
    keys: ["i"],
    help: "interpolate between the slices of this finding, again to keep it",
    run: (c) => c.interpolate(),
    edits: true,
  },
  {
    keys: ["[", "]"],
    help: "smaller, larger brush",
    run: (c, key) => c.scaleBrush(key === "[" ? 0.8 : 1.25),
    edits: true,
  },
  { keys: ["."], help: "use the tool at the crosshair, as a click", run: (c) => c.applyAtCursor() },
  { keys: [","], help: "the same, as a click with Ctrl", run: (c) => c.applyAtCursor(true) },
  { keys: ["Escape"], help: "remove measurements, proposals and messages", run: (c) => c.clear() },
  { keys: ["?"], help: "this help", run: (c) => c.toggleHelp() },
];

/** @type {Record<string, string>} */
const KEY_NAMES = {
  ArrowUp: "Up",
  ArrowDown: "Down",
  ArrowLeft: "Left",
  ArrowRight: "Right",
  PageUp: "PgUp",
  PageDown: "PgDn",
  Escape: "Esc",
};

/**
 * Returns the name of a key as it is printed on a keyboard.
 * @param {string} key
 */
export function formatKey(key) {
  return KEY_NAMES[key] ?? (/^[A-Z]$/.test(key) ? `Shift ${key}` : key.toUpperCase());
}

/**
 * Finds the key that chooses a tool.
 * @param {ToolName} tool
 */
export function findToolKey(tool) {
  return KEYS.find((binding) => binding.tool === tool)?.keys[0];
}

/**
 * Lets the keys run the commands, without a click into the viewer first, but never while the reader writes. Returns the
 * function that ends this.
 * @param {object} uses
 * @param {Commands} uses.commands
 * @param {() => boolean} uses.isListening whether the keys belong to this viewer now
 * @param {() => boolean} uses.isEditable
 * @param {(key: string) => boolean} uses.checkReady whether there is a scan; if not, a message says so
 */
export function bindKeys({ commands, isListening, isEditable, checkReady }) {
  /** @param {KeyboardEvent} event */
  const handleKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !isListening()) return;
    const target = event.composedPath()[0];
    if (usesKeyItself(target, event.key)) return;
    if (isTextField(target)) {
      if (event.key === "Escape") /** @type {HTMLElement} */ (target).blur();
      return;
    }
    const binding = KEYS.find(({ keys, edits }) => keys.includes(event.key) && (!edits || isEditable()));
    if (!binding) return;
    event.preventDefault();
    event.stopPropagation();
    if (checkReady(event.key)) binding.run(commands, event.key);
  };
  window.addEventListener("keydown", handleKey, true);
  return () => window.removeEventListener("keydown", handleKey, true);
}

/**
 * @param {string} key
 * @param {ToolName} tool
 * @param {string} help
 * @returns {KeyBinding}
 */
function bindTool(key, tool, help) {
  const edits = Boolean(TOOLS[tool].drawsLabels || TOOLS[tool].recordsAxes);
  return { keys: [key], help: `tool: ${help}`, tool, edits, run: (c) => c.selectTool(tool) };
}

/**
 * @param {string} key
 * @param {MaskEditName} name
 * @param {string} help
 * @returns {KeyBinding}
 */
function bindEdit(key, name, help) {
  return { keys: [key], help, edits: true, run: (c) => c.editMask(name) };
}

/**
 * Returns whether a button, a slider, the 3D view or an open menu that has the focus uses a key itself.
 * @param {EventTarget} node
 * @param {string} key
 */
function usesKeyItself(node, key) {
  if (key === "Escape" && node instanceof Element && node.closest(".mv-menu[open]")) return true;
  if (key === "Enter") return node instanceof Element && node.matches("button, summary, a");
  const selector = "input[type=range], .mv-mesh canvas";
  return /^(Arrow.*|[-+=])$/.test(key) && node instanceof Element && node.matches(selector);
}

/** @param {EventTarget} node */
function isTextField(node) {
  const selector = "textarea, select, [contenteditable=true], input:not([type=range]):not([type=checkbox])";
  return node instanceof Element && node.matches(selector);
}
