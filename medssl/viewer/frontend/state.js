// @ts-check
// State: the first values of the store, and what follows from them: label colours, verdicts and warnings.
import { createEmptyTable, packColour } from "./colours.js";
import { TABLE_SIZE, ZERO } from "./volume.js";
/** @import { Axes, Finding, ViewerData, ViewerState } from "./types" */

const DEFAULT_COLOURS = ["#ffb03b", "#4dd0e1", "#f06292", "#aed581", "#9575cd", "#fff176", "#64b5f6", "#ff8a65"];

/**
 * @param {Pick<ViewerData, "selected">} data
 * @returns {ViewerState}
 */
export function createState({ selected }) {
  return {
    volumeUrl: null,
    volume: null,
    overlay: null,
    probability: null,
    uncertainty: null,
    editor: null,
    cursor: [0, 0, 0],
    pointer: null,
    views: createViews(),
    window: null,
    tool: "navigate",
    measures: [],
    longAxis: null,
    heldDrag: null,
    crosshairVisible: true,
    overlayVisible: true,
    fillVisible: true,
    outlineVisible: true,
    uncertaintyVisible: false,
    meshVisible: false,
    uncertaintySource: "",
    opacity: 0.3,
    threshold: null,
    facts: [],
    instances: null,
    projection: { kind: "none", slab_mm: 10 },
    label: 1,
    radius_mm: 4,
    margin_mm: 1,
    range: null,
    smoothed: false,
    ballBrush: false,
    rejectedVisible: false,
    axesVisible: true,
    proposal: null,
    assist: null,
    brushCursor: null,
    greyTable: createEmptyTable(),
    labelTable: buildLabelTable({ findings: [], pendingVerdicts: {} }),
    colourTable: createEmptyTable(),
    voxelVersion: 0,
    overlayVersion: 0,
    labels: {},
    labelOverrides: {},
    findings: [],
    selected,
    list: { sort: "given", label: null, isGrouped: false },
    reasons: [],
    editable: false,
    pendingVerdicts: {},
    pendingAxes: {},
    comparisons: [],
    comparison: null,
    comparisonLinked: true,
    comparisonLayered: false,
    layer: null,
    unsavedEvents: 0,
    hasActed: false,
    isKept: true,
    waitingKinds: [],
    refused: null,
    canUndo: false,
    drawn: [],
    isMaskCurrent: true,
    isMaskUndone: false,
    caseStatus: null,
    hasSibling: false,
  };
}

/** @returns {ViewerState["views"]} */
export function createViews() {
  const view = { zoom: 1, pan: [0, 0] };
  return { axial: view, coronal: view, sagittal: view };
}

/**
 * @param {Pick<ViewerState, "labels">} state
 * @param {number} label
 */
export function isLabelVisible({ labels }, label) {
  return labels[label]?.visible !== false;
}

/**
 * @param {Pick<ViewerState, "labels">} state
 * @param {number} label
 */
export function labelColour({ labels }, label) {
  return labels[label]?.colour ?? DEFAULT_COLOURS[(label - 1) % DEFAULT_COLOURS.length];
}

/**
 * Builds the table from the values of the overlay to the labels that they show: a voxel holds the number of its
 * finding, or a label if it belongs to none.
 * @param {Pick<ViewerState, "findings" | "pendingVerdicts">} state
 */
export function buildLabelTable(state) {
  const table = new Uint16Array(TABLE_SIZE);
  for (let label = 1; label < 256; label++) table[label + ZERO] = label;
  for (const finding of state.findings) {
    if (finding.number) table[finding.number + ZERO] = shownLabelOf(state, finding);
  }
  return table;
}

/**
 * Builds the table from the values of the overlay to colours at the chosen opacity; hidden labels stay transparent.
 * @param {Pick<ViewerState, "labels" | "opacity" | "labelTable">} state
 */
export function buildColourTable(state) {
  const table = createEmptyTable();
  const alpha = Math.round(state.opacity * 255);
  /** @type {Record<string, number>} */
  const packed = {}; // the labels share a few colours, and reading a colour takes a canvas
  for (let n = ZERO + 1; n < TABLE_SIZE; n++) {
    const label = state.labelTable[n];
    if (!label || !isLabelVisible(state, label)) continue;
    const colour = labelColour(state, label);
    table[n] = ((alpha << 24) | (packed[colour] ??= packColour(colour))) >>> 0;
  }
  return table;
}

/**
 * Returns the label of a value of the overlay after the verdicts.
 * @param {Pick<ViewerState, "labelTable">} state
 * @param {number} value
 */
export function shownLabelAt({ labelTable }, value) {
  return labelTable[value + ZERO];
}

/**
 * Returns the value that a voxel gets from drawing: that of the chosen finding if it has the label that is drawn, else
 * that of the organ with this label, else the label itself.
 * @param {Pick<ViewerState, "findings" | "selected" | "label" | "pendingVerdicts">} state
 */
export function valueToDraw(state) {
  const { findings, selected, label } = state;
  const withLabel = findings.filter((finding) => shownLabelOf(state, finding) === label);
  const chosen = withLabel.find(({ id }) => id === selected) ?? withLabel.find(({ kind }) => kind === "organ");
  return chosen?.number ?? label;
}

/**
 * Returns the verdict on a finding, including one that the server has not stored yet; null without a verdict.
 * @param {Pick<ViewerState, "pendingVerdicts">} state
 * @param {Finding} finding
 */
export function decisionOf({ pendingVerdicts }, finding) {
  const pending = pendingVerdicts[finding.id];
  return pending ? pending.decision : (finding.decision ?? null);
}

/**
 * Returns the label that the reader gave a finding in place of the model's, or null.
 * @param {Pick<ViewerState, "pendingVerdicts">} state
 * @param {Finding} finding
 */
export function correctedLabelOf({ pendingVerdicts }, finding) {
  const pending = pendingVerdicts[finding.id];
  return (pending ? pending.label : finding.relabelled) ?? null;
}

/**
 * Returns the label of a finding after the verdict on it; 0 if it was rejected.
 * @param {Pick<ViewerState, "pendingVerdicts">} state
 * @param {Finding} finding
 */
export function shownLabelOf(state, finding) {
  return decisionOf(state, finding) === "reject" ? 0 : (correctedLabelOf(state, finding) ?? finding.label);
}

/**
 * Returns the measured axes of a finding, or null.
 * @param {Pick<ViewerState, "pendingAxes">} state
 * @param {Finding} finding
 * @returns {Axes | null}
 */
export function axesOf({ pendingAxes }, finding) {
  const pending = pendingAxes[finding.id];
  return pending ? pending.axes : (finding.axes ?? null);
}

/**
 * Lists in words how the picture differs from the stored voxels of the whole scan.
 * @param {ViewerState} state
 * @returns {string[]}
 */
export function listCaveats(state) {
  const { volume, overlay, probability, uncertainty, threshold, uncertaintyVisible, uncertaintySource } = state;
  const { projection, smoothed } = state;
  if (!volume) return [];
  const { oblique_degrees, exact } = volume.header;
  const images = [
    { image: volume, name: "loading" },
    { image: overlay, name: "mask loading" },
    { image: probability, name: "confidence loading" },
    { image: uncertainty, name: "uncertainty loading" },
  ];
  const caveats = images.flatMap(({ image, name }) =>
    image && !image.isComplete ? [`${name} ${image.loadedPlanes}/${image.planes}`] : [],
  );
  if (oblique_degrees) caveats.push(`oblique ${oblique_degrees.toFixed(0)}°: shown along the scan's own axes`);
  if (projection.kind !== "none") caveats.push(`${projection.kind} of ${projection.slab_mm} mm: several slices in one`);
  if (smoothed) caveats.push("smoothed between the voxels");
  if (!exact) caveats.push("values rounded to 16 bits");
  if (threshold !== null) caveats.push(`mask at confidence ${threshold.toFixed(2)}, not as stored`);
  if (uncertaintyVisible) {
    const stored = uncertaintySource || "as the model stored it";
    caveats.push(`uncertainty: ${uncertainty ? stored : "derived from the confidence, 4p(1-p)"}`);
  }
  return caveats;
}
