// @ts-check
// Toolbar: tools, window presets, overlay, comparison and correction.
import { createButton, createElement, setPressed, setText, setVisible } from "./dom.js";
import { findToolKey, formatKey } from "./keys.js";
import { createGroup, createSlider } from "./controls.js";
import { createCorrectionGroup } from "./correctionGroup.js";
import { createMenu } from "./menu.js";
import { formatWindow } from "./paneTexts.js";
import { axesOf, decisionOf } from "./state.js";
import { TOOLS } from "./tools.js";
/** @import { Commands, Panel, ToolName, ViewerState } from "./types" */
/** @import { Store } from "./store.js" */

const BRUSHES = ["brush", "erase", "range"];
const KINDS = /** @type {const} */ (["MIP", "MinIP", "mean"]);

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
  const help = createButton("?", () => commands.toggleHelp(), { class: "mv-icon", title: "Keys (?)" });
  const [viewing, measuring, drawing] = [
    tools.filter(({ tool }) => !tool.drawsLabels && !tool.measures),
    tools.filter(({ tool }) => tool.measures),
    tools.filter(({ tool }) => tool.drawsLabels),
  ].map((list) => list.map((entry) => entry.node));
  const measure = createMenu("Measure", ...measuring);
  const brushes = drawing.filter((node) => BRUSHES.includes(node.dataset.tool ?? ""));
  const others = drawing.filter((node) => !brushes.includes(node));
  const correction = createCorrectionGroup(store, commands, { brushes, others });
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
 * @param {Pick<Commands, "toggle" | "toggleMesh" | "toggleUncertainty" | "setThreshold" | "project">} commands
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
  const smooth = createButton("Smooth image", () => commands.toggle("smoothed"), {
    title: "Smooth between the voxels, or show each voxel as it is (Shift S)",
  });
  const slabs = KINDS.map((kind) =>
    createButton(`Slab: ${kind}`, () => commands.project(store.get().projection.kind === kind ? "none" : kind), {
      title: "Largest, smallest or mean value of several slices (Shift P)",
    }),
  );
  const slab = createSlider("Slab", [1, 100, 1], (slab_mm) =>
    store.set({ projection: { ...store.get().projection, slab_mm } }),
  );
  const image = [smooth, ...slabs, slab.node];
  const menu = createMenu("Show", ...shown, mesh, uncertainty, confidence.node, asStored, ...image);
  const node = createGroup("Overlay", overlay, opacity.node, menu.node);
  const update = () => {
    const state = store.get();
    for (const part of [overlay, opacity.node]) setVisible(part, state.overlay || state.editable);
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
    setPressed(smooth, state.smoothed);
    slabs.forEach((button, n) => setPressed(button, state.projection.kind === KINDS[n]));
    slab.update(state.projection.slab_mm, `${state.projection.slab_mm} mm`);
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
