// @ts-check
// Toolbar: tools, window presets, overlay, comparison and correction.
import { createButton, createElement, setPressed, setText, setVisible } from "./dom.js";
import { findToolKey, formatKey } from "./keys.js";
import { createMenu } from "./menu.js";
import { formatWindow } from "./paneTexts.js";
import { axesOf, decisionOf } from "./state.js";
import { TOOLS } from "./tools.js";
/** @import { Commands, Panel, ToolName, ViewerState } from "./types" */
/** @import { Store } from "./store.js" */

/**
 * @param {Store<ViewerState>} store
 * @param {Commands} commands
 * @returns {Panel}
 */
export function createToolbar(store, commands) {
  const tools = /** @type {ToolName[]} */ (Object.keys(TOOLS)).map((name) => createToolButton(store, commands, name));
  const presets = createPresets(store, commands);
  const overlay = createOverlayGroup(store, commands);
  const comparison = createComparisonGroup(store, commands);
  const correction = createCorrectionGroup(store, commands);
  const help = createButton("?", () => commands.toggleHelp(), { class: "mv-icon", title: "Keys (?)" });
  const [viewing, measuring, drawing] = [
    tools.filter(({ tool }) => !tool.drawsLabels && !tool.measures),
    tools.filter(({ tool }) => tool.measures),
    tools.filter(({ tool }) => tool.drawsLabels),
  ].map((list) => list.map((entry) => entry.node));
  const measure = createMenu("Measure", ...measuring);
  correction.node.prepend(...drawing);
  const groups = [presets, overlay, comparison, correction];
  const node = createElement("div", { class: "mv-bar" }, createGroup("Tools", ...viewing, measure.node));
  node.append(...groups.map((group) => group.node), createElement("span", { class: "mv-gap" }), help);
  const showTool = () => {
    const tool = TOOLS[store.get().tool];
    measure.setTitle(tool.measures ? tool.name : "Measure");
    measure.node.classList.toggle("mv-on", Boolean(tool.measures));
  };
  store.subscribe((changed) => changed.has("tool") && showTool());
  return { node, update: () => [...tools, ...groups].forEach((part) => part.update()) };
}

/**
 * @param {Store<ViewerState>} store
 * @param {Pick<Commands, "selectTool">} commands
 * @param {ToolName} name
 */
function createToolButton(store, commands, name) {
  const tool = TOOLS[name];
  const key = findToolKey(name);
  const title = key ? `${tool.hint} (${formatKey(key)})` : tool.hint;
  const node = createButton(tool.name, () => commands.selectTool(name), { title, "data-tool": name });
  const update = () => {
    const state = store.get();
    setVisible(node, !tool.recordsAxes || state.editable);
    setPressed(node, state.tool === name);
  };
  return { node, tool, update };
}

/**
 * @param {Store<ViewerState>} store
 * @param {Pick<Commands, "applyPreset">} commands
 * @returns {Panel}
 */
function createPresets(store, commands) {
  const { node, panel, setTitle } = createMenu("Window presets");
  const group = createGroup("Window", node);
  const update = () => {
    const { volume, window } = store.get();
    const windows = volume?.header?.windows ?? [];
    if (panel.childElementCount !== windows.length) {
      const buttons = windows.map(({ name, low, high }, n) =>
        createButton(name, () => commands.applyPreset(n), { title: `${low} to ${high} (${n + 1})` }),
      );
      panel.replaceChildren(...buttons);
    }
    setVisible(group, windows.length);
    setTitle(window ? formatWindow(window) : "Window");
    [...panel.children].forEach((button, n) => setPressed(button, window?.name === windows[n].name));
  };
  return { node: group, update };
}

/**
 * @param {Store<ViewerState>} store
 * @param {Pick<Commands, "toggle" | "toggleMesh" | "toggleUncertainty" | "setThreshold">} commands
 * @returns {Panel}
 */
function createOverlayGroup(store, commands) {
  const switches = [
    { field: /** @type {const} */ ("overlayVisible"), name: "Overlay" },
    { field: /** @type {const} */ ("fillVisible"), name: "Fill" },
    { field: /** @type {const} */ ("outlineVisible"), name: "Outline" },
    { field: /** @type {const} */ ("rejectedVisible"), name: "Rejected" },
    { field: /** @type {const} */ ("axesVisible"), name: "Axes" },
  ].map(({ field, name }) => ({ field, button: createButton(name, () => commands.toggle(field)) }));
  const opacity = createSlider("Opacity", [0, 1, 0.05], (value) => store.set({ opacity: value }));
  const confidence = createSlider("Confidence", [0, 1, 0.01], (value) => commands.setThreshold(value));
  const asStored = createButton("as stored", () => commands.setThreshold(null), {
    title: "The mask as the model stored it",
  });
  const uncertainty = createButton("Uncertainty", () => commands.toggleUncertainty(), {
    title: "Where the model is uncertain (Q)",
  });
  const mesh = createButton("3D", () => commands.toggleMesh(), { title: "The mask as a surface to turn (S)" });
  const buttons = switches.map(({ button }) => button);
  const [overlay, ...shown] = buttons;
  const menu = createMenu("Show", ...shown, mesh, uncertainty, confidence.node, asStored);
  const node = createGroup("Overlay", overlay, opacity.node, menu.node);
  const update = () => {
    const state = store.get();
    setVisible(node, state.overlay || state.editable);
    for (const { field, button } of switches) setPressed(button, state[field]);
    setVisible(
      buttons[3],
      state.findings.some((finding) => decisionOf(state, finding) === "reject"),
    );
    setVisible(
      buttons[4],
      state.findings.some((finding) => axesOf(state, finding)),
    );
    opacity.update(state.opacity, `${Math.round(state.opacity * 100)} %`);
    setPressed(mesh, state.meshVisible);
    setVisible(uncertainty, state.uncertainty ?? state.probability);
    setPressed(uncertainty, state.uncertaintyVisible);
    setVisible(confidence.node, state.probability);
    setVisible(asStored, state.probability && state.threshold !== null);
    confidence.update(state.threshold ?? 0.5, state.threshold === null ? "stored" : state.threshold.toFixed(2));
  };
  return { node, update };
}

/**
 * @param {Store<ViewerState>} store
 * @param {Pick<Commands, "showComparison" | "toggleLink">} commands
 * @returns {Panel}
 */
function createComparisonGroup(store, commands) {
  const entries = createElement("span");
  const link = createButton("Linked", () => commands.toggleLink(), {
    title: "Scroll both studies together, or each alone (J)",
  });
  const node = createGroup("Comparison", entries, link);
  const update = () => {
    const { comparisons, comparison, comparisonLinked } = store.get();
    setVisible(node, comparisons.length);
    if (entries.childElementCount !== comparisons.length) {
      const buttons = comparisons.map(({ id }) =>
        createButton("", () => commands.showComparison(store.get().comparison?.id === id ? null : id), {
          title: "Show it next to this study (C)",
        }),
      );
      entries.replaceChildren(...buttons);
    }
    comparisons.forEach(({ id, name }, n) => {
      setText(entries.children[n], name);
      setPressed(entries.children[n], comparison?.id === id);
    });
    setVisible(link, comparison);
    setPressed(link, comparisonLinked);
  };
  return { node, update };
}

/**
 * @param {Store<ViewerState>} store
 * @param {Pick<Commands, "toggle" | "interpolate" | "undo" | "redo">} commands
 * @returns {Panel}
 */
function createCorrectionGroup(store, commands) {
  const label = createElement("select", {
    "aria-label": "Label to draw",
    onchange: () => store.set({ label: Number(label.value) }),
  });
  const radius = createSlider("Size", [0.5, 30, 0.5], (value) => store.set({ radius_mm: value }));
  const ball = createButton("Ball", () => commands.toggle("ballBrush"), {
    title: "Draw a ball through the slices instead of a disc",
  });
  const interpolate = createButton("Interpolate", () => commands.interpolate(), {
    title: "Propose the slices between the drawn slices of this finding (I), and keep the proposal (I again)",
  });
  const undo = createButton("Undo", () => commands.undo(), { title: "Takes back your last act in this window (Z)" });
  const redo = createButton("Redo", () => commands.redo(), { title: "Redo (Shift Z)" });
  const node = createGroup("Correction", interpolate, label, radius.node, ball, undo, redo);
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
    setPressed(ball, state.ballBrush);
    undo.disabled = !state.canUndo;
    redo.disabled = !state.editor?.redoStack.length;
  };
  return { node, update };
}

/**
 * @param {string} name
 * @param {HTMLElement[]} children
 */
function createGroup(name, ...children) {
  return createElement("div", { class: "mv-group", role: "group", "aria-label": name }, ...children);
}

/**
 * @param {string} name
 * @param {[number, number, number]} range lowest value, highest value and step
 * @param {(value: number) => void} onInput
 */
function createSlider(name, [min, max, step], onInput) {
  const input = createElement("input", {
    type: "range",
    min,
    max,
    step,
    "aria-label": name,
    oninput: () => onInput(Number(input.value)),
    onclick: () => input.blur(), // the arrow keys scroll again
  });
  const text = createElement("output");
  const node = createElement("label", { class: "mv-slider" }, createElement("span", {}, name), input, text);
  /** @type {(value: number, shown: string) => void} */
  const update = (value, shown) => {
    input.value = String(value);
    setText(text, shown);
  };
  return { node, update };
}
