// Panels: toolbar, findings, status line and messages around the planes. Each has a node and an update.
import { anatomical, lengthMm, toMm } from "./geometry.js";
import { caveats } from "./state.js";
import { TOOLS } from "./tools.js";
import { hazeOf } from "./volume.js";
import { KEYS, keyName, keyOf } from "./keys.js";
import { el, hex, say, show } from "./dom.js";

const VERDICTS = [
  { decision: "accept", name: "Accept", key: "y" },
  { decision: "reject", name: "Reject", key: "x" },
  { decision: "edit", name: "Edit", key: "e" },
  { decision: "unsure", name: "Unsure", key: "u" },
];
const SAID = { accept: "accepted", reject: "rejected", edit: "edited", unsure: "unsure", relabel: "relabelled", missed: "added" };

export function toolbar(viewer) {
  const tools = Object.entries(TOOLS).map(([name, tool]) => toolButton(viewer, name, tool));
  const presets = el("div", { class: "mv-group", role: "group", "aria-label": "Window presets" });
  const overlay = overlayGroup(viewer);
  const edit = editGroup(viewer);
  const beside = besideGroup(viewer);
  const help = el("button", { class: "mv-icon", type: "button", title: "Keys (?)", onclick: () => viewer.help() }, "?");
  const reading = tools.filter((tool) => !tool.edits).map((tool) => tool.node);
  const drawing = tools.filter((tool) => tool.edits).map((tool) => tool.node);
  edit.node.prepend(...drawing);
  const node = el("div", { class: "mv-bar" }, group("Tools", ...reading), presets, overlay.node, beside.node, edit.node, el("span", { class: "mv-gap" }), help);
  const update = () => {
    const { state } = viewer;
    tools.forEach((tool) => tool.update(state));
    fillPresets(presets, viewer);
    overlay.update(state);
    beside.update(state);
    edit.update(state);
  };
  return { node, update };
}

export function findings(viewer) {
  const list = el("div", { class: "mv-list", role: "listbox", "aria-label": "Findings" });
  const count = el("span", { class: "mv-count" });
  const bar = el("i");
  const note = el("input", { class: "mv-note", placeholder: "Note for the next verdict", maxlength: "500", "aria-label": "Note", title: "Goes into the reports with the verdict: no names" });
  const reason = el("select", { class: "mv-note", "aria-label": "Reason" });
  const buttons = VERDICTS.map(({ decision, name, key }) =>
    el("button", { type: "button", class: `mv-verdict mv-${decision}`, onclick: () => viewer.reading.decide(decision) }, name, el("kbd", {}, keyName(key))),
  );
  const relabel = el("button", { type: "button", class: "mv-missed", onclick: () => viewer.reading.relabel() }, "Another label", el("kbd", {}, "K"));
  const missed = el("button", { type: "button", class: "mv-missed", onclick: () => viewer.reading.missed() }, "Add missed at crosshair", el("kbd", {}, "A"));
  const closed = el("div", { class: "mv-closed", role: "status" }, "Signed: this case is closed to changes.");
  const acts = el("div", { class: "mv-acts" }, closed, el("div", { class: "mv-verdicts" }, ...buttons), relabel, reason, note, missed);
  const labels = el("div", { class: "mv-labels" });
  const head = el("div", { class: "mv-head" }, "Findings", count);
  const node = el("aside", { class: "mv-side" }, head, el("div", { class: "mv-progress" }, bar), list, acts, labels);
  let drawn = "";
  const update = () => {
    const { findings: all, selected, volume, editable } = viewer.state;
    show(relabel, Object.keys(viewer.state.labels).length > 1);
    [...buttons, relabel].forEach((button) => (button.disabled = !all.length || !volume || !editable));
    for (const input of [missed, reason, note]) input.disabled = !volume || !editable;
    show(closed, volume && !editable);
    fillReasons(reason, viewer.state.reasons);
    const decided = all.filter((f) => viewer.reading.decisionOf(f)).length;
    say(count, all.length ? `${decided} of ${all.length} read` : "");
    bar.style.width = all.length ? `${(100 * decided) / all.length}%` : "0";
    const said = all.map((f) => ({ ...f, decision: viewer.reading.decisionOf(f), relabelled: viewer.reading.labelOf(f), axes: viewer.reading.axesOf(f) }));
    const now = JSON.stringify([selected, editable, said, viewer.state.labels, viewer.state.besides]);
    if (now === drawn) return;
    drawn = now;
    list.replaceChildren(...(all.length ? all.map((f, n) => card(viewer, f, n)) : [empty()]), ...elsewhere(viewer), ...(editable && all.length && decided === all.length ? [done()] : []));
    list.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
    labels.replaceChildren(...labelRows(viewer));
    show(labels, labels.childElementCount);
  };
  // What the reader gives with a verdict; asked once, then empty again.
  const given = () => {
    const said = { reason: reason.value, note: note.value.trim() };
    reason.value = note.value = "";
    return said;
  };
  return { node, update, given };
}

export function statusLine(viewer) {
  const value = el("span", { class: "mv-value" });
  const place = el("span", { class: "mv-place" });
  const badges = el("span", { class: "mv-badges", role: "status" });
  const saved = el("span", { class: "mv-saved", role: "status" });
  const node = el("footer", { class: "mv-status" }, value, place, el("span", { class: "mv-gap" }), badges, saved);
  const update = () => {
    const { volume, pointer, cursor } = viewer.state;
    show(node, volume);
    if (!volume) return;
    const index = pointer ?? cursor;
    const stored = volume.value(index);
    say(value, stored === null ? "not loaded" : `${rounded(stored, volume.header)} ${volume.header.unit}`);
    say(place, `${anatomical(toMm(volume.header.affine, index))} mm    voxel ${index.join(" ")}`);
    badges.replaceChildren(...caveats(viewer.state).map((text) => el("span", { class: "mv-badge" }, text)));
    const waiting = viewer.reading.outbox.waiting;
    say(saved, waiting ? `Saving ${waiting}` : viewer.reading.outbox.last ? "All saved" : "");
    saved.classList.toggle("mv-busy", waiting > 0);
  };
  return { node, update };
}

// What the colours of the uncertainty mean.
export function legend(viewer) {
  const scale = el("i");
  const stops = [0, 1 / 3, 2 / 3, 1].map(hazeOf).map(([red, green, blue, alpha]) => `rgb(${red} ${green} ${blue} / ${alpha / 255})`);
  scale.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  const node = el("div", { class: "mv-legend", "aria-label": "Colours of the uncertainty" }, "sure", scale, "in doubt");
  return { node, update: () => show(node, viewer.state.doubt()) };
}

// What stands in for the planes while there are none: opening, or an error with a way on.
export function curtain(viewer) {
  const title = el("b");
  const text = el("p");
  const again = el("button", { type: "button", onclick: () => viewer.open() }, "Try again");
  const node = el("div", { class: "mv-curtain", role: "status" }, el("div", { class: "mv-spinner" }), title, text, again);
  const set = (kind, heading, body) => {
    node.dataset.kind = kind;
    say(title, heading);
    say(text, body);
    show(again, kind === "error");
    show(node, kind !== "none");
  };
  return { node, set };
}

export function helpPage(viewer) {
  const rows = KEYS.filter((entry) => !entry.edits || viewer.state.editable).map(({ keys, does }) =>
    el("div", {}, el("span", {}, ...keys.map((key) => el("kbd", {}, keyName(key)))), does),
  );
  const mouse = ["Wheel: slices", "Ctrl + wheel: zoom", "Right button: window", "Shift or middle button: pan", "Double click: enlarge"];
  return el(
    "div", { class: "mv-help", role: "dialog", "aria-label": "Keys", onclick: () => viewer.help() },
    el("div", {}, el("h3", {}, "Keys"), el("div", { class: "mv-keys" }, ...rows), el("h3", {}, "Mouse"), el("p", {}, mouse.join("   ·   "))),
  );
}

function toolButton(viewer, name, tool) {
  const key = keyOf(name);
  const title = key ? `${tool.hint} (${keyName(key)})` : tool.hint;
  const node = el("button", { type: "button", title, "data-tool": name, onclick: () => viewer.take(name) }, tool.name);
  const update = (state) => {
    show(node, !tool.records || state.editable);
    node.setAttribute("aria-pressed", state.tool === name);
  };
  return { node, edits: tool.edits, update };
}

function fillPresets(node, viewer) {
  const { volume, window } = viewer.state;
  const windows = volume?.header?.windows ?? [];
  if (node.childElementCount !== windows.length) {
    node.replaceChildren(
      ...windows.map(({ name, low, high }, n) =>
        el("button", { type: "button", title: `${low} to ${high} (${n + 1})`, onclick: () => viewer.preset(n) }, name),
      ),
    );
  }
  show(node, windows.length);
  [...node.children].forEach((button, n) => button.setAttribute("aria-pressed", window?.name === windows[n].name));
}

function overlayGroup(viewer) {
  const switches = [["overlayOn", "Overlay"], ["filled", "Fill"], ["outlined", "Outline"]].map(([field, name]) => ({
    field,
    node: el("button", { type: "button", onclick: () => viewer.toggle(field) }, name),
  }));
  const opacity = slider("Opacity", 0, 1, 0.05, (value) => viewer.set({ opacity: value }));
  const sure = slider("Confidence", 0, 1, 0.01, (value) => viewer.setThreshold(value));
  const stored = el("button", { type: "button", title: "The mask as the model stored it", onclick: () => viewer.setThreshold(null) }, "as stored");
  const doubt = el("button", { type: "button", title: "Where the model doubts (Q)", onclick: () => viewer.doubt() }, "Uncertainty");
  const solid = el("button", { type: "button", title: "The mask as a body to turn (S)", onclick: () => viewer.solid.toggle() }, "3D");
  const node = group("Overlay", ...switches.map((s) => s.node), solid, opacity.node, doubt, sure.node, stored);
  const update = (state) => {
    show(node, state.overlay || state.editable);
    switches.forEach(({ field, node: button }) => button.setAttribute("aria-pressed", state[field]));
    opacity.set(state.opacity, `${Math.round(state.opacity * 100)} %`);
    solid.setAttribute("aria-pressed", viewer.solid.on);
    show(doubt, state.uncertainty ?? state.probability);
    doubt.setAttribute("aria-pressed", state.doubtOn);
    show(sure.node, state.probability);
    show(stored, state.probability && state.threshold !== null);
    sure.set(state.threshold ?? 0.5, state.threshold === null ? "stored" : state.threshold.toFixed(2));
  };
  return { node, update };
}

function besideGroup(viewer) {
  const entries = el("span");
  const link = el("button", { type: "button", title: "Scroll both together, or each alone (J)", onclick: () => viewer.beside.link() }, "Linked");
  const node = group("Beside", entries, link);
  const update = ({ besides }) => {
    const { shown, linked } = viewer.beside;
    show(node, besides.length);
    if (entries.childElementCount !== besides.length) entries.replaceChildren(...besides.map(({ id }) => el("button", { type: "button", title: "Look at it beside this study (C)", onclick: () => viewer.beside.choose(viewer.beside.shown?.id === id ? null : id) })));
    besides.forEach(({ id, name }, n) => {
      say(entries.children[n], name);
      entries.children[n].setAttribute("aria-pressed", shown?.id === id);
    });
    show(link, shown);
    link.setAttribute("aria-pressed", linked);
  };
  return { node, update };
}

function editGroup(viewer) {
  const label = el("select", { "aria-label": "Label to draw", onchange: () => viewer.set({ label: Number(label.value) }) });
  const radius = slider("Size", 0.5, 30, 0.5, (value) => viewer.set({ radius_mm: value }));
  const ball = el("button", { type: "button", title: "Draw a ball through the slices, not a disc", onclick: () => viewer.toggle("ball") }, "Ball");
  const between = el("button", { type: "button", title: "Fill the slices between drawn ones (I)", onclick: () => viewer.reading.interpolate() }, "Interpolate");
  const undo = el("button", { type: "button", title: "Undo (Z)", onclick: () => viewer.reading.undo() }, "Undo");
  const redo = el("button", { type: "button", title: "Redo (Shift Z)", onclick: () => viewer.reading.redo() }, "Redo");
  const node = group("Correction", between, label, radius.node, ball, undo, redo);
  const update = (state) => {
    show(node, state.editable);
    const names = Object.entries(state.labels);
    show(label, names.length > 1);
    if (label.options.length !== names.length) label.replaceChildren(...names.map(([n, { name }]) => el("option", { value: n }, name)));
    label.value = String(state.label);
    radius.set(state.radius_mm, `${state.radius_mm.toFixed(1)} mm`);
    ball.setAttribute("aria-pressed", state.ball);
    undo.disabled = !state.editor?.done.length;
    redo.disabled = !state.editor?.undone.length;
  };
  return { node, update };
}

function group(name, ...children) {
  return el("div", { class: "mv-group", role: "group", "aria-label": name }, ...children);
}

function slider(name, min, max, step, chosen) {
  const input = el("input", { type: "range", min, max, step, "aria-label": name, oninput: () => chosen(Number(input.value)), onclick: () => input.blur() });
  const text = el("output");
  const node = el("label", { class: "mv-slider" }, el("span", {}, name), input, text);
  const set = (value, shown) => {
    input.value = value;
    say(text, shown);
  };
  return { node, set };
}

function fillReasons(node, reasons) {
  show(node, reasons.length);
  if (node.options.length === reasons.length + 1) return;
  node.replaceChildren(el("option", { value: "" }, "No reason given"), ...reasons.map((name) => el("option", { value: name }, name)));
}

function card(viewer, finding, n) {
  const decision = viewer.reading.decisionOf(finding);
  const facts = [
    finding.diameter_mm && `${finding.diameter_mm.toFixed(1)} mm`,
    finding.volume_ml && `${finding.volume_ml.toPrecision(2)} ml`,
    viewer.reading.axesOf(finding) && `RECIST ${measured(viewer.reading.axesOf(finding))}`,
    Number.isFinite(finding.score) && `score ${finding.score.toFixed(2)}`,
  ].filter(Boolean);
  const dot = el("i", { class: "mv-dot" });
  dot.style.background = viewer.state.colour(finding.label);
  const chip = el("em", { "data-said": decision ?? "open" }, decision ? spoken(viewer, finding, decision) : "to read");
  return el(
    "button",
    { type: "button", class: "mv-card", role: "option", "aria-selected": String(finding.id === viewer.state.selected), "data-finding": finding.id, onclick: () => viewer.reading.select(finding.id) },
    el("span", { class: "mv-title" }, dot, `${n + 1}  ${finding.name}`, chip),
    el("span", { class: "mv-facts" }, facts.join("   ")),
    ...viewer.state.besides.map(({ pairs, none }) => el("span", { class: "mv-facts mv-beside" }, pairs[finding.id]?.said ?? none)),
  );
}

function spoken(viewer, finding, decision) {
  const name = viewer.state.labels[viewer.reading.labelOf(finding)]?.name;
  return decision === "relabel" && name ? `rather ${name}` : SAID[decision];
}

function measured({ long, short }) {
  return `${lengthMm(long).toFixed(1)} x ${lengthMm(short).toFixed(1)} mm`;
}

// What only the other side has: a lesion that is gone, or one that only the other model saw.
function elsewhere(viewer) {
  return viewer.state.besides.flatMap(({ id, only }) =>
    only.map(({ said, centre_mm }) => el("button", { type: "button", class: "mv-card mv-only", onclick: () => viewer.beside.visit(id, centre_mm) }, el("span", { class: "mv-facts mv-beside" }, said))),
  );
}

function empty() {
  return el("div", { class: "mv-empty" }, el("b", {}, "The model found nothing"), "Read the scan. If something is there, put the crosshair on it and add it below.");
}

function done() {
  return el("div", { class: "mv-empty mv-done" }, el("b", {}, "Every finding is read"), "Look for what the model missed, then sign the case.");
}

function labelRows(viewer) {
  return Object.entries(viewer.state.labels).map(([number, { name, visible }]) => {
    const box = el("input", { type: "checkbox", "aria-label": `Show ${name}`, onchange: () => viewer.look(number, { visible: box.checked }) });
    box.checked = visible !== false;
    const colour = el("input", { type: "color", "aria-label": `Colour of ${name}`, onchange: () => viewer.look(number, { colour: colour.value }) });
    colour.value = hex(viewer.state.colour(Number(number)));
    return el("label", { class: "mv-label" }, box, colour, name);
  });
}

function rounded(value, header) {
  return header.exact ? String(value) : String(Number(value.toPrecision(4)));
}
