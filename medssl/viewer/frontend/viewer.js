// Viewer: one volume in three linked planes, its findings, and what the reader decides.
import { PLANE_NAMES, PLANES, inside, nearestVoxel } from "./geometry.js";
import { RemoteVolume, emptyLabels, greyTable, loadAll } from "./volume.js";
import { colourTable, firstState } from "./state.js";
import { Editor } from "./edit.js";
import { Pane } from "./pane.js";
import { Reading } from "./reading.js";
import { Beside } from "./beside.js";
import { Solid } from "./solid.js";
import { listen, zoom } from "./tools.js";
import { curtain, findings, helpPage, legend, statusLine, toolbar } from "./panels.js";
import { hearKeys } from "./keys.js";
import { Choice } from "./choice.js";
import { clamp, el, say, show } from "./dom.js";
import { STYLE } from "./style.js";

const NOTE_MS = 6000;
const IMAGES = ["volume", "overlay", "probability", "uncertainty"];

class Viewer {
  constructor(parent, data, send) {
    this.send = send;
    this.state = firstState(data);
    this.reading = new Reading(this, data);
    this.state.axesOf = (finding) => this.reading.axesOf(finding);
    this.panes = PLANE_NAMES.map((plane) => new Pane(plane, this.state));
    this.active = this.panes[0];
    this.beside = new Beside(this);
    this.solid = new Solid(this);
    this.build(parent);
    this.stopKeys = hearKeys(this);
    this.watcher = new ResizeObserver(() => this.redraw());
    [...this.panes, ...this.beside.panes].forEach((pane) => {
      listen(this, pane);
      this.watcher.observe(pane.node);
    });
    this.warn = (event) => this.reading.outbox.waiting && event.preventDefault();
    window.addEventListener("beforeunload", this.warn);
    this.update(data);
  }

  build(parent) {
    this.bar = toolbar(this);
    this.side = findings(this);
    this.line = statusLine(this);
    this.curtain = curtain(this);
    this.legend = legend(this);
    this.choice = new Choice();
    this.note = el("div", { class: "mv-notice", role: "alert", hidden: true });
    this.caption = el("div", { class: "mv-caption" });
    const half = el("div", { class: "mv-half" }, this.caption, ...this.panes.map((pane) => pane.node));
    this.stage = el("div", { class: "mv-stage", "data-main": "axial" }, half, this.beside.node, this.solid.node, this.legend.node, this.curtain.node, this.note);
    this.root = el("div", { class: "mv", tabindex: "0" }, el("style", {}, STYLE), this.bar.node, this.stage, this.side.node, this.line.node, this.choice.node);
    this.root.viewer = this;
    parent.append(this.root);
    this.focus(this.active);
  }

  // New facts from the server; what the reader chose here stays.
  update(data) {
    const { state } = this;
    const other = !this.data || IMAGES.some((name) => data[name] !== this.data[name]);
    const before = this.data;
    this.data = data;
    this.root.style.height = `${data.height}px`;
    state.editable = data.editable;
    state.findings = data.findings;
    state.reasons = data.reasons;
    state.doubtIs = data.doubt;
    state.besides = data.besides ?? [];
    this.beside.update();
    state.labels = Object.fromEntries(Object.entries(data.labels).map(([n, look]) => [n, { ...look, ...state.looks[n] }]));
    if (other) this.open();
    else this.allowDrawing();
    this.reading.update(data, before);
    this.refresh();
    const seen = JSON.stringify([state.labels, data.findings.map(state.axesOf), data.besides]);
    if (seen !== this.seen) this.recolour();
    this.seen = seen;
  }

  // A signed address may change while the scan behind it stays: voxels that are here are not fetched again.
  async open() {
    this.stop?.abort();
    this.stop = new AbortController();
    const { signal } = this.stop;
    const before = IMAGES.map((name) => this.state[name]);
    this.complete = false;
    if (before[0]?.url !== this.data.volume) {
      this.state.volume = null; // never one patient's scan beside another's findings
      this.curtain.set("loading", "Opening the scan", "Fetching the first planes");
    }
    try {
      const urls = IMAGES.map((name) => this.data[name]);
      const opened = await Promise.all(urls.map((url, n) => (url ? new RemoteVolume(url, signal).open(before[n]) : null)));
      this.started(opened, opened[0] === before[0]);
      await loadAll(opened.filter(Boolean), () => this.state.cursor[2], () => this.arrived());
      this.finished();
    } catch (error) {
      if (error.name !== "AbortError") this.curtain.set("error", "The scan cannot be shown", error.message);
    }
  }

  started([volume, overlay, probability, uncertainty], same) {
    for (const other of [overlay, probability, uncertainty]) {
      if (other && String(other.header.shape) !== String(volume.header.shape)) throw new Error("Scan and overlay are on different grids.");
    }
    const { state } = this;
    const { header } = volume;
    const drawn = same && !overlay && state.overlay?.url === null ? state.overlay : overlay;
    if (drawn !== state.overlay) state.editor = null;
    Object.assign(state, { volume, overlay: drawn, probability, uncertainty });
    if (same) return;
    Object.assign(state, { cursor: header.shape.map((n) => Math.floor(n / 2)), measures: [], long: null, held: null, threshold: null });
    this.resetView();
    this.setWindow(header.windows.find(({ name }) => name === header.window) ?? header.windows[0]);
    this.reading.begin(this.data.selected);
  }

  arrived() {
    this.state.version++;
    this.state.overlayVersion++;
    this.curtain.set("none", "", "");
    this.redraw();
  }

  finished() {
    this.complete = true;
    this.curtain.set("none", "", "");
    this.allowDrawing();
    this.overlayChanged();
  }

  // A mask can be drawn on once all of it is here: what arrives later would cover the strokes.
  allowDrawing() {
    const { state } = this;
    if (!state.editable || !this.complete) return;
    state.overlay ??= emptyLabels(state.volume);
    state.editor ??= new Editor(state.overlay);
  }

  // ---- drawing ----

  redraw() {
    this.stale = true;
    this.refresh();
  }

  // What stands around the planes; they themselves are drawn again only if `redraw` asked for it.
  refresh() {
    if (this.planned || !this.root) return;
    this.planned = requestAnimationFrame(() => {
      this.planned = 0;
      this.drawPanels();
      if (this.stale) this.drawPlanes();
    });
  }

  draw() {
    this.drawPanels();
    this.drawPlanes();
  }

  drawPanels() {
    this.root.classList.toggle("mv-narrow", this.root.clientWidth < 760);
    this.bar.update();
    this.side.update();
    this.line.update();
    this.legend.update();
    this.stage.classList.toggle("mv-two", Boolean(this.beside.shown));
    say(this.caption, this.data.name ?? "");
  }

  drawPlanes() {
    this.stale = false;
    if (!this.state.volume) return;
    for (const pane of this.panes) {
      pane.fit();
      pane.draw();
    }
    this.beside.draw();
    this.solid.draw();
  }

  recolour() {
    this.state.tables.colours = colourTable(this.state);
    this.overlayChanged();
  }

  overlayChanged() {
    this.state.overlayVersion++;
    this.redraw();
  }

  set(change) {
    Object.assign(this.state, change);
    if ("opacity" in change) this.recolour();
    this.redraw();
  }

  toggle(field) {
    this.set({ [field]: !this.state[field] });
  }

  doubt() {
    if (!this.state.uncertainty && !this.state.probability) return this.notify("The model told no uncertainty of this case.");
    this.toggle("doubtOn");
  }

  look(number, change) {
    this.state.looks[number] = { ...this.state.looks[number], ...change };
    this.state.labels[number] = { ...this.state.labels[number], ...change };
    this.recolour();
  }

  setWindow({ name, low, high }) {
    this.state.window = { name, low, high };
    this.state.tables.grey = greyTable(this.state.volume.header, { low, high });
    this.beside.window({ low, high });
    this.redraw();
  }

  preset(n) {
    const chosen = this.state.volume.header.windows[n];
    if (chosen) this.setWindow(chosen);
  }

  setThreshold(threshold) {
    this.state.threshold = threshold;
    this.overlayChanged();
  }

  // ---- moving about ----

  moveTo(index) {
    this.state.cursor = index;
    this.redraw();
  }

  // Whether a pane shows this study, not the one beside it.
  owns(pane) {
    return pane.state === this.state;
  }

  scroll(pane, by) {
    if (!this.owns(pane) && !this.beside.linked) return this.beside.scroll(pane, by);
    const axis = PLANES[pane.plane].across;
    const next = [...this.state.cursor];
    next[axis] = clamp(next[axis] + by, 0, this.state.volume.header.shape[axis] - 1);
    this.moveTo(next);
  }

  take(tool) {
    const { held, measures } = this.state;
    this.set({ tool, held: null, measures: measures.filter((line) => line !== held?.line) }); // not one with a single end
  }

  resizeBrush(factor) {
    this.set({ radius_mm: clamp(Math.round(this.state.radius_mm * factor * 2) / 2, 0.5, 30) });
  }

  hover(pane, index) {
    const { state } = this;
    const within = pane && this.owns(pane) && state.volume && inside(state.volume.header, index);
    state.pointer = within ? nearestVoxel(state.volume.header, index) : null;
    const draws = within && ["brush", "erase", "range"].includes(state.tool);
    const drew = state.brushAt;
    state.brushAt = draws ? { plane: pane.plane, index, radius_mm: state.radius_mm } : null;
    if (pane) last = this;
    if (draws || drew) this.redraw();
    else this.refresh();
  }

  focus(pane) {
    this.active = pane;
    last = this;
    [...this.panes, ...this.beside.panes].forEach((other) => other.node.classList.toggle("mv-active", other === pane));
  }

  turn(by) {
    this.focus(this.panes[(this.panes.indexOf(this.active) + by + 3) % 3]);
  }

  zoom(factor) {
    zoom(this, this.active, this.active.frame.toPixel(this.active.state.cursor), factor);
  }

  resetView() {
    this.panes.forEach((pane) => (pane.view = { zoom: 1, pan: [0, 0] }));
    this.redraw();
  }

  enlarge(pane) {
    const { dataset } = this.stage;
    if (dataset.main !== pane.plane) dataset.main = pane.plane;
    else if (dataset.alone) delete dataset.alone;
    else dataset.alone = "yes";
    this.focus(pane);
  }

  listening() {
    return last === this && this.root.isConnected;
  }

  // ---- messages ----

  notify(text) {
    say(this.note, text);
    show(this.note, true);
    clearTimeout(this.noting);
    this.noting = setTimeout(() => show(this.note, false), NOTE_MS);
  }

  help() {
    if (this.page) this.page.remove();
    else this.root.append((this.page = helpPage(this)));
    if (!this.page.isConnected) this.page = null;
  }

  clear() {
    if (this.page) this.help();
    Object.assign(this.state, { measures: [], long: null, held: null });
    show(this.note, false);
    this.redraw();
  }

  close() {
    this.stop?.abort();
    this.reading.close();
    this.beside.close();
    this.stopKeys();
    this.watcher.disconnect();
    window.removeEventListener("beforeunload", this.warn);
    this.root.remove();
  }
}

// The viewer that the reader used last hears the keys. Streamlit calls mount again after every run.
let last = null;
const viewers = new WeakMap();

export function mount({ data, parentElement, setTriggerValue }) {
  const known = viewers.get(parentElement);
  if (known) {
    known.send = setTriggerValue;
    known.update(data);
  } else {
    // A server that came back with another version sends another module, which does not know the viewer that is here.
    for (const { viewer } of parentElement.querySelectorAll(".mv")) viewer.close();
    viewers.set(parentElement, new Viewer(parentElement, data, setTriggerValue));
  }
  return () => {
    viewers.get(parentElement)?.close();
    viewers.delete(parentElement);
  };
}
