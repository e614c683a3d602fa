// @ts-check
// Viewer: one volume in three linked planes, its findings, and what the reader decides.
import { Assistant } from "./assistant.js";
import { createCaseBar } from "./caseBar.js";
import { createCommands } from "./commands.js";
import { Comparison } from "./comparison.js";
import { Display } from "./display.js";
import { createElement, setText } from "./dom.js";
import { createFindingsPanel } from "./findingsPanel.js";
import { PLANE_NAMES } from "./geometry.js";
import { HelpPage } from "./helpPage.js";
import { bindKeys } from "./keys.js";
import { LabelDialog } from "./labelDialog.js";
import { guardLeaving } from "./leaveGuard.js";
import { LoadingOverlay } from "./loadingOverlay.js";
import { MaskEdits } from "./maskEdits.js";
import { MeshView } from "./meshView.js";
import { Navigation } from "./navigation.js";
import { Notice } from "./notice.js";
import { Pane } from "./pane.js";
import { bindPointer } from "./pointer.js";
import { Activity, Siblings } from "./presence.js";
import { Reading } from "./reading.js";
import { IMAGES, ScanLoader } from "./scanLoader.js";
import { axesOf, createState } from "./state.js";
import { createStatusLine } from "./statusLine.js";
import { Store, keepEqual } from "./store.js";
import { STYLESHEET } from "./stylesheet.js";
import { createToolbar } from "./toolbar.js";
import { createUncertaintyLegend } from "./uncertaintyLegend.js";
import { restoreView, saveView } from "./viewMemory.js";
import { measureRestOfWindow } from "./windowHeight.js";
import { WindowMemory } from "./windowMemory.js";
/** @import { SendTrigger, ViewerData, ViewerState } from "./types" */
/** @import { ToolContext } from "./tools.js" */

const NARROW_PIXELS = 760;
/** @type {(keyof ViewerState)[]} values that change what the planes show */
const DRAWN = [
  "volume",
  "overlay",
  "probability",
  "uncertainty",
  "voxelVersion",
  "overlayVersion",
  "cursor",
  "views",
  "greyTable",
  "colourTable",
  "threshold",
  "overlayVisible",
  "fillVisible",
  "outlineVisible",
  "crosshairVisible",
  "uncertaintyVisible",
  "meshVisible",
  "measures",
  "pendingAxes",
  "rejectedVisible",
  "axesVisible",
  "proposal",
  "assist",
  "brushCursor",
  "comparison",
  "comparisonLinked",
  "comparisonLayered",
  "layer",
  "facts",
  "instances",
  "projection",
  "smoothed",
];

class Viewer {
  /** @type {ViewerData | null} */
  #data = null;
  #drawnFacts = "";
  #isStale = false;
  /** @type {number} the requested animation frame, or 0 */
  frameRequest = 0;

  /**
   * @param {Element} parent
   * @param {ViewerData} data
   * @param {SendTrigger} send
   */
  constructor(parent, data, send) {
    this.send = send;
    /** @type {Store<ViewerState>} */
    this.store = new Store(createState(data));
    const { store } = this;
    const redraw = () => this.redraw();
    this.notice = new Notice();
    const notify = (/** @type {string} */ text) => this.notice.show(text);
    const commands = createCommands(this);

    this.panes = PLANE_NAMES.map((plane) => new Pane(plane, store));
    this.display = new Display({ store, notify, windowMemory: new WindowMemory(data.reader ?? "") });
    this.comparison = new Comparison({ store, panes: this.panes, notify, redraw });
    this.meshView = new MeshView({ store, notify, redraw });
    this.labelDialog = new LabelDialog();
    this.loadingOverlay = new LoadingOverlay(() => commands.reopen());
    this.caseBar = createCaseBar(store, commands);
    this.toolbar = createToolbar(store, commands);
    this.findingsPanel = createFindingsPanel(store, commands);
    this.statusLine = createStatusLine(store);
    this.legend = createUncertaintyLegend(store);
    this.caption = createElement("div", { class: "mv-caption" });
    this.stage = this.#buildStage();
    this.root = this.#buildRoot();
    this.help = new HelpPage(this.root, () => store.get().editable);
    this.reading = new Reading(data, {
      store,
      notify,
      send: (events) => this.send("events", events),
      takeRemarks: this.findingsPanel.takeRemarks,
      askLabel: (title, names, onChoice) => this.labelDialog.ask(title, names, onChoice),
      showFinding: (finding) => {
        this.navigation.showFinding(finding);
        this.display.recallWindow(finding);
        this.comparison.align(finding);
      },
      fetchMask: (version) => this.loader?.fetchMask(version),
      onStored: () => this.siblings.reportRecord(),
    });
    this.maskEdits = new MaskEdits({ store, notify, finishStroke: (tool) => this.reading.finishStroke(tool) });
    this.assistant = new Assistant({
      store,
      notify,
      finishStroke: (tool, facts) => this.reading.finishStroke(tool, facts),
      getUrl: () => this.#data?.assist ?? null,
    });
    this.siblings = new Siblings(
      data.key,
      this.reading.outbox.client,
      (hasSibling) => store.set({ hasSibling }),
      () => this.#reportActivity(),
    );
    this.loader = new ScanLoader({
      store,
      loadingOverlay: this.loadingOverlay,
      onScan: () => {
        this.reading.begin(this.#data?.selected ?? null);
        restoreView(data.key, store);
      },
      onComplete: () => this.reading.mask.drawPending(),
      onMask: (mask, drawn) => this.reading.mask.show(mask, drawn),
    });
    this.navigation = new Navigation({
      store,
      panes: this.panes,
      comparison: this.comparison,
      stage: this.stage,
      onUse: () => (lastUsed = this),
    });
    /** @type {ToolContext} */
    this.tools = {
      store,
      notify,
      moveCursor: (pane, voxel) => this.navigation.moveCursor(pane, voxel),
      selectAt: (voxel) => this.reading.selectAt(voxel),
      windowOf: (pane) => (this.comparison.hasOwnWindow(pane) ? this.comparison.window : store.get().window),
      setWindow: (pane, window) =>
        this.comparison.hasOwnWindow(pane) ? this.comparison.setWindow(window) : store.set({ window }),
      rememberWindow: () => this.display.rememberWindow(),
      finishStroke: (tool) => this.reading.finishStroke(tool),
      markVoxel: (index, isInside) => this.assistant.mark(index, isInside),
      requestProposal: () => this.assistant.request(),
      recordAxes: (long, short) => this.reading.recordAxes(long, short),
    };
    store.subscribe((changed) => (DRAWN.some((key) => changed.has(key)) ? this.redraw() : this.refresh()));
    parent.append(this.root);
    this.unbindKeys = bindKeys({
      commands,
      isListening: () => lastUsed === this && this.root.isConnected && !this.labelDialog.isOpen,
      isEditable: () => store.get().editable,
      checkReady: () => this.#checkReady(),
    });
    this.resizeObserver = new ResizeObserver(redraw);
    for (const pane of [...this.panes, ...this.comparison.panes]) {
      bindPointer(pane, this.tools, this.navigation);
      this.resizeObserver.observe(pane.node);
    }
    this.activity = new Activity(() => this.#reportActivity());
    this.endLeaveGuard = guardLeaving({
      root: this.root,
      describeWaiting: () => describeWaiting(store.get()),
      ask: (question, leave) =>
        this.labelDialog.ask(question, ["Stay until everything is saved", "Leave now"], (n) => n === 1 && leave()),
    });
    this.keepView = () => saveView(data.key, store);
    this.fitHeight = () => this.#fitHeight();
    window.addEventListener("pagehide", this.keepView);
    window.addEventListener("resize", this.fitHeight);
    this.update(data);
  }

  get state() {
    return this.store.get();
  }

  /** Whether every voxel is here. */
  get complete() {
    return this.loader.isComplete;
  }

  /**
   * Follows new data from the server; what the reader chose here stays.
   * @param {ViewerData} data
   */
  update(data) {
    const previous = this.#data;
    this.#data = data;
    this.fitHeight();
    const { labels, labelOverrides } = this.state;
    const styled = Object.fromEntries(
      Object.entries(data.labels).map(([number, style]) => [number, { ...style, ...labelOverrides[number] }]),
    );
    this.store.set({
      volumeUrl: data.volume,
      caseStatus: data.case ?? null,
      findings: data.findings,
      reasons: data.reasons,
      uncertaintySource: data.uncertainty_source ?? "",
      instances: keepEqual(this.state.instances, data.instances ?? null),
      facts: keepEqual(this.state.facts, data.facts ?? []),
      comparisons: data.comparisons ?? [],
      labels: keepEqual(labels, styled),
    });
    this.comparison.update();
    this.activity.setInterval(data.alive_s ?? 0);
    const hasNewImage = IMAGES.some((name) => name !== "overlay" && data[name] !== previous?.[name]);
    if (!previous || hasNewImage || (data.overlay === null) !== (previous.overlay === null)) this.loader.open(data);
    this.reading.update(data, previous);
    this.loader.allowDrawing();
    this.refresh();
    const drawnFacts = JSON.stringify([data.findings.map((finding) => axesOf(this.state, finding)), data.comparisons]);
    if (drawnFacts !== this.#drawnFacts) this.redraw();
    this.#drawnFacts = drawnFacts;
  }

  /** Draws planes and panels with the next animation frame. */
  redraw() {
    this.#isStale = true;
    this.refresh();
  }

  /** Updates the panels with the next animation frame, and draws the planes if `redraw` requested it. */
  refresh() {
    if (this.frameRequest) return;
    this.frameRequest = requestAnimationFrame(() => {
      this.frameRequest = 0;
      this.drawPanels();
      if (this.#isStale) this.drawPlanes();
    });
  }

  draw() {
    this.drawPanels();
    this.drawPlanes();
  }

  drawPanels() {
    this.root.classList.toggle("mv-narrow", this.root.clientWidth < NARROW_PIXELS);
    for (const panel of [this.caseBar, this.toolbar, this.findingsPanel, this.statusLine, this.legend]) panel.update();
    const { comparison, comparisonLayered } = this.state;
    this.stage.classList.toggle("mv-two", comparison !== null && !comparisonLayered);
    setText(this.caption, this.#data?.name ?? "");
  }

  drawPlanes() {
    this.#isStale = false;
    if (!this.state.volume) return;
    for (const pane of this.panes) {
      pane.fit();
      pane.draw();
    }
    this.comparison.draw();
    this.meshView.draw();
  }

  /** Removes measurements, the message and the help page. */
  clear() {
    this.help.close();
    this.notice.hide();
    this.store.set({ measures: [], longAxis: null, heldDrag: null, proposal: null, assist: null });
  }

  /** Fetches the scan again. */
  reopen() {
    if (this.#data) this.loader.open(this.#data);
  }

  close() {
    this.keepView();
    window.removeEventListener("pagehide", this.keepView);
    window.removeEventListener("resize", this.fitHeight);
    this.loader.close();
    this.reading.close();
    this.siblings.close();
    this.activity.close();
    this.endLeaveGuard();
    this.comparison.close();
    this.unbindKeys();
    this.resizeObserver.disconnect();
    this.root.remove();
  }

  /** Runs the page again, so that it follows the record and knows that the reader is at work. */
  #reportActivity() {
    this.send("alive", Date.now());
  }

  #fitHeight() {
    this.root.style.height = `${this.#data?.height ?? measureRestOfWindow(this.root)}px`;
  }

  #buildStage() {
    const half = createElement("div", { class: "mv-half" }, this.caption, ...this.panes.map((pane) => pane.node));
    return createElement(
      "div",
      { class: "mv-stage", "data-main": "axial" },
      half,
      this.comparison.node,
      this.meshView.node,
      this.legend.node,
      this.loadingOverlay.node,
      this.notice.node,
    );
  }

  #buildRoot() {
    const root = createElement(
      "div",
      { class: "mv", tabindex: "0" },
      createElement("style", {}, STYLESHEET),
      this.caseBar.node,
      this.toolbar.node,
      this.stage,
      this.findingsPanel.node,
      this.statusLine.node,
      this.labelDialog.node,
    );
    return Object.assign(root, { viewer: this });
  }

  #checkReady() {
    if (this.state.volume?.data) return true;
    this.notice.show("There is no scan on the screen yet: this key did nothing.");
    return false;
  }
}

/**
 * Asks about leaving while acts wait; empty if nothing waits.
 * @param {ViewerState} state
 */
function describeWaiting({ unsavedEvents, isKept }) {
  if (!unsavedEvents) return "";
  const count = unsavedEvents === 1 ? "1 change is" : `${unsavedEvents} changes are`;
  const fate = isKept ? "This browser keeps and sends them when you open the review again." : "Leaving loses them.";
  return `${count} not saved yet. ${fate}`;
}

/** @type {Viewer | null} the viewer that the reader used last: it gets the keys */
let lastUsed = null;
/** @type {WeakMap<Element, Viewer>} */
const viewers = new WeakMap();

/**
 * Shows the viewer in an element. Streamlit calls this after every run of the page.
 * @param {{ data: ViewerData, parentElement: Element, setTriggerValue: SendTrigger }} component
 * @returns {() => void} removes the viewer
 */
export default function mount({ data, parentElement, setTriggerValue }) {
  const viewer = viewers.get(parentElement);
  if (viewer) {
    viewer.send = setTriggerValue;
    viewer.update(data);
  } else {
    // After an update of the server, another version of this module takes over: it does not know the viewer shown here.
    for (const node of parentElement.querySelectorAll(".mv")) /** @type {any} */ (node).viewer.close();
    viewers.set(parentElement, new Viewer(parentElement, data, setTriggerValue));
  }
  return () => {
    viewers.get(parentElement)?.close();
    viewers.delete(parentElement);
  };
}
