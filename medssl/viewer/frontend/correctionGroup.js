// @ts-check
// Correction group: what draws, and the menu of what changes the whole mask of the chosen finding.
import { createGroup, createSlider } from "./controls.js";
import { createButton, createElement, setPressed, setVisible } from "./dom.js";
import { createMenu } from "./menu.js";
/** @import { Commands, MaskEditName, Panel, ViewerState } from "./types" */
/** @import { Store } from "./store.js" */

/** @type {[MaskEditName, string, string][]} */
const EDITS = [
  ["grow", "Grow", "By the margin, into free voxels (Shift G)"],
  ["shrink", "Shrink", "By the margin (Shift H)"],
  ["smooth", "Smooth", "Majority of the voxels within the margin (Shift M)"],
  ["holes", "Fill holes", "Free voxels that the finding encloses on all sides (Shift F)"],
  ["islands", "Largest part", "Removes all other parts of the finding (Shift I)"],
];

/**
 * @param {Store<ViewerState>} store
 * @param {Pick<Commands, "toggle" | "interpolate" | "undo" | "redo" | "editMask" | "copySlice">} commands
 * @param {{ brushes: HTMLElement[], others: HTMLElement[] }} tools buttons of the tools that draw
 * @returns {Panel}
 */
export function createCorrectionGroup(store, commands, { brushes, others }) {
  const label = createElement("select", {
    "aria-label": "Label to draw",
    onchange: () => store.set({ label: Number(label.value) }),
  });
  const radius = createSlider("Size", [0.5, 30, 0.5], (value) => store.set({ radius_mm: value }));
  const ball = createButton("Ball", () => commands.toggle("ballBrush"), {
    title: "Draw a ball through the slices instead of a disc; scissors cut all slices",
  });
  const interpolate = createButton("Interpolate", () => commands.interpolate(), {
    title: "Propose the slices between the drawn slices of this finding (I), and keep the proposal (I again)",
  });
  const margin = createSlider("Margin", [0.5, 10, 0.5], (value) => store.set({ margin_mm: value }));
  const edits = EDITS.map(([name, text, title]) => createButton(text, () => commands.editMask(name), { title }));
  const copies = [1, -1].map((by) =>
    createButton(by > 0 ? "Copy to next slice" : "Copy to previous slice", () => commands.copySlice(by), {
      title: by > 0 ? "(>)" : "(<)",
    }),
  );
  const range = createRangeFields(store);
  const undo = createButton("Undo", () => commands.undo(), { title: "Takes back your last act in this window (Z)" });
  const redo = createButton("Redo", () => commands.redo(), { title: "Redo (Shift Z)" });
  const menu = createMenu("Edit", ...others, interpolate, ball, margin.node, ...edits, ...copies, range.node);
  const node = createGroup("Correction", ...brushes, menu.node, label, radius.node, undo, redo);
  const update = () => {
    const state = store.get();
    setVisible(node, state.editable);
    const labels = Object.entries(state.labels);
    setVisible(label, labels.length > 1);
    if (label.options.length !== labels.length) {
      label.replaceChildren(...labels.map(([value, { name }]) => createElement("option", { value }, name)));
    }
    label.value = String(state.label);
    radius.update(state.radius_mm, `${state.radius_mm.toFixed(1)} mm`);
    margin.update(state.margin_mm, `${state.margin_mm.toFixed(1)} mm`);
    range.update();
    setPressed(ball, state.ballBrush);
    undo.disabled = !state.canUndo;
    redo.disabled = !state.editor?.redoStack.length;
  };
  return { node, update };
}

/**
 * Creates the fields for the range of the range brush.
 * @param {Store<ViewerState>} store
 * @returns {Panel}
 */
function createRangeFields(store) {
  const apply = () => {
    const [low, high] = fields.map(({ value }) => Number(value));
    if (fields.every(({ value }) => value !== "") && low <= high) store.set({ range: { low, high } });
  };
  const fields = ["Lowest value", "Highest value"].map((name) =>
    createElement("input", { type: "number", step: "any", class: "mv-number", "aria-label": name, onchange: apply }),
  );
  const reset = createButton("As the window", () => store.set({ range: null }), { title: "Range of the range brush" });
  const node = createElement("div", { class: "mv-range" }, "Range", ...fields, reset);
  const update = () => {
    const { range, window } = store.get();
    const limits = range ?? window;
    setPressed(reset, !range);
    if (!limits || fields.some((field) => field.matches(":focus"))) return;
    [limits.low, limits.high].forEach((value, n) => (fields[n].value = String(Math.round(value * 100) / 100)));
  };
  return { node, update };
}
