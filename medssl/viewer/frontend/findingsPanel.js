// @ts-check
// Findings panel: the list of findings, the verdicts, and the labels.
import { toHexColour } from "./colours.js";
import { createButton, createElement, setText, setVisible } from "./dom.js";
import { groupFindings } from "./findingsOrder.js";
import { measureLength } from "./geometry.js";
import { formatKey } from "./keys.js";
import { createListControls } from "./listControls.js";
import { axesOf, correctedLabelOf, decisionOf, labelColour, shownLabelOf } from "./state.js";
/** @import { Axes, Commands, Finding, ViewerState } from "./types" */
/** @import { Store } from "./store.js" */

const VERDICTS = [
  { decision: "accept", name: "Accept", key: "y" },
  { decision: "reject", name: "Reject", key: "x" },
  { decision: "edit", name: "Edit", key: "e" },
  { decision: "unsure", name: "Unsure", key: "u" },
];
/** @type {Record<string, string>} */
const DECISION_TEXTS = {
  accept: "accepted",
  reject: "rejected",
  edit: "edited",
  unsure: "unsure",
  relabel: "relabelled",
  missed: "added",
};

/** @typedef {Pick<Commands, "selectFinding" | "visitUnmatched" | "styleLabel" | "acceptAll">} ListCommands */

/**
 * @param {Store<ViewerState>} store
 * @param {ListCommands & Pick<Commands, "decide" | "relabel" | "addMissed">} commands
 */
export function createFindingsPanel(store, commands) {
  const list = createElement("div", { class: "mv-list", role: "listbox", "aria-label": "Findings" });
  const count = createElement("span", { class: "mv-count" });
  const bar = createElement("i");
  const acts = createActs(commands);
  const labels = createElement("div", { class: "mv-labels" });
  const head = createElement("div", { class: "mv-head" }, "Findings", count);
  const progress = createElement("div", { class: "mv-progress" }, bar);
  const order = createListControls(store);
  const node = createElement("aside", { class: "mv-side" }, head, progress, order.node, list, acts.node, labels);
  let shown = "";
  const update = () => {
    const state = store.get();
    const { findings, selected, editable, comparisons } = state;
    acts.update(state);
    order.update();
    const decided = findings.filter((finding) => decisionOf(state, finding)).length;
    setText(count, findings.length ? `${decided} of ${findings.length} read` : "");
    bar.style.width = findings.length ? `${(100 * decided) / findings.length}%` : "0";
    const status = findings.map((finding) => ({
      ...finding,
      decision: decisionOf(state, finding),
      relabelled: correctedLabelOf(state, finding),
      axes: axesOf(state, finding),
    }));
    const content = JSON.stringify([selected, editable, status, state.labels, comparisons, state.list]);
    if (content === shown) return;
    shown = content;
    const cards = groupFindings(state).flatMap((group) => [
      ...createGroupHead(state, commands, group),
      ...group.findings.map((finding) => createCard(state, commands, finding, findings.indexOf(finding) + 1)),
    ]);
    if (!findings.length) cards.push(createEmptyMessage());
    cards.push(...createUnmatchedCards(state, commands));
    if (editable && findings.length && decided === findings.length) cards.push(createDoneMessage());
    list.replaceChildren(...cards);
    list.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
    labels.replaceChildren(...createLabelRows(state, commands));
    setVisible(labels, labels.childElementCount);
  };
  return { node, update, takeRemarks: acts.takeRemarks };
}

/** @param {Pick<Commands, "decide" | "relabel" | "addMissed">} commands */
function createActs(commands) {
  const note = createElement("input", {
    class: "mv-note",
    placeholder: "Note for the next verdict",
    maxlength: "500",
    "aria-label": "Note",
    title: "Goes into the reports with the verdict: no names",
  });
  const reason = createElement("select", { class: "mv-note", "aria-label": "Reason" });
  const verdicts = VERDICTS.map(({ decision, name, key }) =>
    createKeyButton(name, key, () => commands.decide(decision), `mv-verdict mv-${decision}`),
  );
  const relabel = createKeyButton("Another label", "k", () => commands.relabel(), "mv-missed");
  const missed = createKeyButton("Add missed at crosshair", "a", () => commands.addMissed(), "mv-missed");
  const closedText = "Signed: this case is closed to changes.";
  const closed = createElement("div", { class: "mv-closed", role: "status" }, closedText);
  const grid = createElement("div", { class: "mv-verdicts" }, ...verdicts);
  const node = createElement("div", { class: "mv-acts" }, closed, grid, relabel, reason, note, missed);
  /** @param {Readonly<ViewerState>} state */
  const update = ({ findings, volume, editable, labels, reasons }) => {
    setVisible(relabel, Object.keys(labels).length > 1);
    for (const button of [...verdicts, relabel]) button.disabled = !findings.length || !volume || !editable;
    for (const input of [missed, reason, note]) input.disabled = !volume || !editable;
    setVisible(closed, volume && !editable);
    fillReasons(reason, reasons);
  };
  /** Returns the reason and the note, and empties both. */
  const takeRemarks = () => {
    const remarks = { reason: reason.value, note: note.value.trim() };
    reason.value = note.value = "";
    return remarks;
  };
  return { node, update, takeRemarks };
}

/**
 * @param {HTMLSelectElement} node
 * @param {string[]} reasons
 */
function fillReasons(node, reasons) {
  setVisible(node, reasons.length);
  if (node.options.length === reasons.length + 1) return;
  const options = reasons.map((name) => createElement("option", { value: name }, name));
  node.replaceChildren(createElement("option", { value: "" }, "No reason given"), ...options);
}

/**
 * @param {string} name
 * @param {string} key
 * @param {() => void} onClick
 * @param {string} className
 */
function createKeyButton(name, key, onClick, className) {
  const button = createButton(name, onClick, { class: className });
  button.append(createElement("kbd", {}, formatKey(key)));
  return button;
}

/**
 * @param {Readonly<ViewerState>} state
 * @param {ListCommands} commands
 * @param {Finding} finding
 * @param {number} number
 * @returns {HTMLElement}
 */
function createCard(state, commands, finding, number) {
  const decision = decisionOf(state, finding);
  const dot = createElement("i", { class: "mv-dot" });
  dot.style.background = labelColour(state, shownLabelOf(state, finding) || finding.label);
  const verdict = decision ? describeDecision(state, finding, decision) : "to read";
  const chip = createElement("em", { "data-decision": decision ?? "open" }, verdict);
  const card = createButton("", () => commands.selectFinding(finding.id), {
    class: "mv-card",
    role: "option",
    "aria-selected": String(finding.id === state.selected),
    "data-finding": finding.id,
  });
  const studies = state.comparisons.filter(({ isSequence }) => !isSequence);
  const comparisons = studies.map(({ pairs, unpaired_text }) =>
    createElement("span", { class: "mv-facts mv-compared" }, pairs[finding.id]?.text ?? unpaired_text),
  );
  const facts = listFacts(finding, axesOf(state, finding)).join("   ");
  card.append(
    createElement("span", { class: "mv-title" }, dot, `${number}  ${finding.name}`, chip),
    createElement("span", { class: "mv-facts" }, facts),
    ...(finding.parts ?? []).map((part) =>
      createElement("span", { class: "mv-facts mv-part" }, `and apart: ${listSizes(part).join("   ")}`),
    ),
    ...comparisons,
  );
  return card;
}

/**
 * @param {Finding} finding
 * @param {Axes | null} axes
 */
function listFacts(finding, axes) {
  const { number, score } = finding;
  const facts = listSizes(finding);
  if (number && !facts.length) facts.push("nothing drawn");
  if (axes) facts.push(`RECIST ${measureLength(axes.long).toFixed(1)} x ${measureLength(axes.short).toFixed(1)} mm`);
  if (Number.isFinite(score)) facts.push(`score ${score?.toFixed(2)}`);
  return facts;
}

/** @param {{ diameter_mm?: number, volume_ml?: number, long_axis_mm?: number | null, short_axis_mm?: number | null }} sizes */
function listSizes({ diameter_mm, volume_ml, long_axis_mm, short_axis_mm }) {
  const sizes = [];
  if (long_axis_mm && short_axis_mm) sizes.push(`${long_axis_mm.toFixed(1)} x ${short_axis_mm.toFixed(1)} mm`);
  else if (diameter_mm) sizes.push(`${diameter_mm.toFixed(1)} mm`);
  if (volume_ml) sizes.push(formatVolume(volume_ml));
  return sizes;
}

/**
 * Writes a volume in plain digits, as medssl.finding.format_volume does.
 * @param {number} volume_ml
 */
export function formatVolume(volume_ml) {
  const digits = volume_ml < 1 ? 3 : volume_ml < 10 ? 2 : volume_ml < 100 ? 1 : 0;
  return `${volume_ml.toFixed(digits)} ml`;
}

/**
 * @param {Readonly<ViewerState>} state
 * @param {Finding} finding
 * @param {string} decision
 */
function describeDecision(state, finding, decision) {
  const label = correctedLabelOf(state, finding);
  const name = label === null ? null : state.labels[label]?.name;
  return decision === "relabel" && name ? `relabelled: ${name}` : DECISION_TEXTS[decision];
}

/**
 * Creates cards for the findings that only the other side has: a lesion that is gone, or that only the other model saw.
 * @param {Readonly<ViewerState>} state
 * @param {ListCommands} commands
 * @returns {HTMLElement[]}
 */
function createUnmatchedCards({ comparisons }, commands) {
  return comparisons.flatMap(({ id, unmatched }) =>
    unmatched.map(({ text, centre_mm }) => {
      const card = createButton("", () => commands.visitUnmatched(id, centre_mm), { class: "mv-card mv-unmatched" });
      card.append(createElement("span", { class: "mv-facts mv-compared" }, text));
      return card;
    }),
  );
}

/**
 * Creates the line above the findings of one label, with a button that accepts those without a verdict.
 * @param {Readonly<ViewerState>} state
 * @param {Pick<Commands, "acceptAll">} commands
 * @param {{ label: number | null, findings: Finding[] }} group
 */
function createGroupHead(state, commands, { label, findings }) {
  if (label === null) return [];
  const open = findings.filter((finding) => !decisionOf(state, finding)).length;
  const text = `${state.labels[label]?.name ?? `label ${label}`}  ${findings.length - open} of ${findings.length} read`;
  const accept = createButton("Accept all", () => commands.acceptAll(label), { title: `${open} without a verdict` });
  accept.disabled = !open || !state.editable || !state.volume;
  return [createElement("div", { class: "mv-grouped" }, text, accept)];
}

/** @returns {HTMLElement} */
function createEmptyMessage() {
  const title = createElement("b", {}, "The model found nothing");
  const text = "Read the scan. If something is there, put the crosshair on it and add it below.";
  return createElement("div", { class: "mv-empty" }, title, text);
}

/** @returns {HTMLElement} */
function createDoneMessage() {
  const title = createElement("b", {}, "Every finding is read");
  const text = "Look for what the model missed, then sign the case.";
  return createElement("div", { class: "mv-empty mv-done" }, title, text);
}

/**
 * @param {Readonly<ViewerState>} state
 * @param {ListCommands} commands
 */
function createLabelRows(state, commands) {
  return Object.entries(state.labels).map(([number, { name, visible }]) => {
    const box = createElement("input", {
      type: "checkbox",
      "aria-label": `Show ${name}`,
      onchange: () => commands.styleLabel(number, { visible: box.checked }),
    });
    box.checked = visible !== false;
    const colour = createElement("input", {
      type: "color",
      "aria-label": `Colour of ${name}`,
      onchange: () => commands.styleLabel(number, { colour: colour.value }),
    });
    colour.value = toHexColour(labelColour(state, Number(number)));
    return createElement("label", { class: "mv-label" }, box, colour, name);
  });
}
