// @ts-check
// Reading: what the reader decides, measures and corrects, sent to the server through the outbox.
import { findNearestVoxel, measureLength, toIndex, toMm } from "./geometry.js";
import { interpolateSlices } from "./interpolation.js";
import { Outbox } from "./outbox.js";
import { decisionOf, shownLabelAt, shownLabelOf, valueToDraw } from "./state.js";
import { selectTool } from "./tools.js";
/** @import { Finding, Line, Notify, NumberedEvent, Plane, Run, ViewerData, ViewerState } from "./types" */
/** @import { Store } from "./store.js" */

const SELECT_DELAY_MS = 400;
/** @typedef {{ reason: string, note: string }} Remarks */
/** @typedef {{ seq: number, finding: string, isMeasurement: boolean }} LastEvent */

export class Reading {
  #store;
  #notify;
  #takeRemarks;
  #askLabel;
  #alignComparison;
  /** @type {string[]} */
  #handledEvents = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} a selection that was not sent yet */
  #selectTimer;
  #selectedAt = performance.now();
  /** @type {LastEvent | null} the event that undo takes back */
  #lastEvent = null;

  /**
   * @param {ViewerData} data
   * @param {object} uses
   * @param {Store<ViewerState>} uses.store
   * @param {Notify} uses.notify
   * @param {(events: NumberedEvent[]) => void} uses.send
   * @param {() => Remarks} uses.takeRemarks returns the reason and the note that go with one event
   * @param {(title: string, names: string[], onChoice: (number: number) => void) => void} uses.askLabel
   * @param {(finding: Finding) => void} uses.alignComparison
   */
  constructor(data, { store, notify, send, takeRemarks, askLabel, alignComparison }) {
    this.#store = store;
    this.#notify = notify;
    this.#takeRemarks = takeRemarks;
    this.#askLabel = askLabel;
    this.#alignComparison = alignComparison;
    this.outbox = new Outbox(data.key, data.acked_seq, send, ({ pending, lastSeq }) =>
      store.set({ unsavedEvents: pending.length, lastSeq }),
    );
  }

  /**
   * Follows the server. It leads to another finding only if it knows everything that was done here.
   * @param {ViewerData} data
   * @param {ViewerData | null} previous
   */
  update(data, previous) {
    this.#handledEvents = data.handled_events;
    this.outbox.acknowledge(data.acked_seq);
    const { pendingVerdicts, pendingAxes } = this.#store.get();
    this.#store.set({
      pendingVerdicts: dropAcknowledged(pendingVerdicts, data.acked_seq),
      pendingAxes: dropAcknowledged(pendingAxes, data.acked_seq),
    });
    const isSettled = previous && !this.outbox.pending.length && !this.#selectTimer;
    const { selected } = this.#store.get();
    if (isSettled && data.selected && data.selected !== previous.selected && data.selected !== selected) {
      this.select(data.selected, false);
    }
  }

  /**
   * Selects the finding that a case opens with: the server's choice, or the first without a verdict.
   * @param {string | null} selected
   */
  begin(selected) {
    const state = this.#store.get();
    const { findings } = state;
    const finding = findings.find(({ id }) => id === selected) ?? findings.find((other) => !decisionOf(state, other));
    if (finding) this.select(finding.id, false);
  }

  /**
   * Selects a finding, and moves the crosshair to it.
   * @param {string} id
   * @param {boolean} isSent whether the server gets the selection
   */
  select(id, isSent = true) {
    const { findings, volume, label } = this.#store.get();
    const finding = findings.find((other) => other.id === id);
    if (!finding) return;
    const state = this.#store.get();
    this.#store.set({ selected: id, label: shownLabelOf(state, finding) || finding.label || label, proposal: null });
    this.#selectedAt = performance.now();
    if (volume) {
      const index = toIndex(volume.header.affine, finding.centre_mm);
      this.#store.set({ cursor: findNearestVoxel(volume.header, index) });
    }
    this.#alignComparison(finding);
    if (isSent && this.#handledEvents.includes("select")) this.#scheduleSelect(id);
  }

  /** @param {number} by number of findings */
  step(by) {
    const { findings, selected } = this.#store.get();
    if (!findings.length) return;
    const number = findings.findIndex(({ id }) => id === selected);
    this.select(findings[(number + by + findings.length) % findings.length].id);
  }

  /**
   * Records a verdict on the selected finding, and goes on to the next finding without one.
   * @param {string} decision
   * @param {number} [label]
   */
  decide(decision, label) {
    const state = this.#store.get();
    const { findings, selected } = state;
    if (!state.volume || !this.#checkEditable()) return;
    const number = findings.findIndex(({ id }) => id === selected);
    if (number < 0 || !selected) return this.#notify("Choose a finding first.");
    const dwell_ms = Math.round(performance.now() - this.#selectedAt);
    const others = [...findings.slice(number + 1), ...findings.slice(0, number)];
    const waiting = others.find((finding) => !decisionOf(state, finding));
    const next = decision === "edit" ? selected : (waiting?.id ?? selected);
    const event = { kind: "verdict", finding: selected, decision, dwell_ms, next };
    const seq = this.outbox.add({ ...event, ...this.#takeRemarks(), ...(label && { label }) });
    this.#setPendingVerdict(selected, { decision, label, seq });
    this.#lastEvent = { seq, finding: selected, isMeasurement: false };
    if (decision === "edit") selectTool(this.#store, "brush");
    this.#cancelSelect();
    if (next !== selected) this.select(next, false);
  }

  /** Asks for another label of the selected finding. */
  relabel() {
    const { findings, selected, labels } = this.#store.get();
    if (!this.#checkEditable()) return;
    const finding = findings.find(({ id }) => id === selected);
    if (!finding) return this.#notify("Choose a finding first.");
    const others = Object.keys(labels)
      .map(Number)
      .filter((label) => label !== finding.label);
    if (!others.length) return this.#notify("There is no other label.");
    const names = others.map((label) => labels[label].name);
    this.#askLabel(`Another label for ${finding.name}`, names, (n) => this.decide("relabel", others[n]));
  }

  /** Records a finding at the crosshair that the model missed. */
  addMissed() {
    const { volume, cursor, label } = this.#store.get();
    if (!this.#checkEditable() || !volume) return;
    const centre_mm = toMm(volume.header.affine, cursor);
    this.outbox.add({ kind: "missed", centre_mm, label, ...this.#takeRemarks() });
    this.#notify("Added at the crosshair.");
  }

  /**
   * Records both axes of the selected finding, the longer one first, as points in the patient.
   * @param {Line} first
   * @param {Line} second
   */
  recordAxes(first, second) {
    const { volume, selected, pendingAxes } = this.#store.get();
    if (!volume || !selected) return;
    const lines = [first, second].map(({ from, to }) => [from, to].map((end) => toMm(volume.header.affine, end)));
    const [long, short] = lines.sort((a, b) => measureLength(b) - measureLength(a));
    const axes = { plane: first.plane, long, short };
    const seq = this.outbox.add({ kind: "measure", finding: selected, ...axes });
    this.#store.set({ pendingAxes: { ...pendingAxes, [selected]: { axes, seq } } });
    this.#lastEvent = { seq, finding: selected, isMeasurement: true };
  }

  /**
   * Ends the current stroke, and records it. Returns whether it changed anything.
   * @param {string} tool
   */
  finishStroke(tool) {
    const { editor } = this.#store.get();
    if (!editor) return false;
    const runs = editor.endStroke();
    this.#showStrokes();
    if (!runs) return false;
    editor.markSent(this.outbox.add({ kind: "stroke", tool, ...this.#describeRuns(runs) }));
    return true;
  }

  /**
   * Proposes to fill the slices between those on which the chosen finding is drawn; the second call keeps the proposal.
   * @param {Plane} plane
   */
  interpolate(plane) {
    const state = this.#store.get();
    const { editor, overlay, proposal } = state;
    if (!editor || !overlay) return;
    if (proposal) {
      editor.beginStroke();
      proposal.offsets.forEach((offset) => editor.setLabel(offset, proposal.value));
      this.finishStroke("interpolate");
      return this.#notify("Kept the interpolation.");
    }
    const value = valueToDraw(state);
    const offsets = interpolateSlices(overlay, plane, value, (other) => shownLabelAt(state, other));
    if (!offsets.length) {
      const text = `draw this finding on two ${plane} slices with empty slices between them.`;
      return this.#notify(`Nothing to interpolate: ${text}`);
    }
    this.#store.set({ proposal: { offsets, value } });
    this.#notify(`Interpolation of ${offsets.length} voxels: I again keeps it, Esc drops it.`);
  }

  /** Takes back the last stroke, or else the last verdict or measurement. */
  undo() {
    if (!this.#checkEditable()) return;
    const stroke = this.#store.get().editor?.undo();
    if (stroke) {
      this.outbox.add({ kind: "undo", of: stroke.seq });
      this.#showStrokes();
    } else if (this.#lastEvent) {
      const { seq: of, finding, isMeasurement } = this.#lastEvent;
      const seq = this.outbox.add({ kind: "undo", of });
      const { pendingAxes } = this.#store.get();
      if (isMeasurement) this.#store.set({ pendingAxes: { ...pendingAxes, [finding]: { axes: null, seq } } });
      else this.#setPendingVerdict(finding, { decision: null, seq });
      this.#lastEvent = null;
      this.select(finding);
    } else this.#notify("Nothing to undo.");
  }

  /** Repeats the last stroke that was taken back. */
  redo() {
    const { editor } = this.#store.get();
    const stroke = editor?.redo();
    if (!editor || !stroke) return;
    editor.markSent(this.outbox.add({ kind: "stroke", tool: "redo", ...this.#describeRuns(stroke.after) }));
    this.#showStrokes();
  }

  close() {
    this.#cancelSelect();
    this.outbox.close();
  }

  #checkEditable() {
    const { editable } = this.#store.get();
    if (!editable) this.#notify("This case is closed to changes. Reopen it above the images.");
    return editable;
  }

  /**
   * @param {string} finding
   * @param {ViewerState["pendingVerdicts"][string]} verdict
   */
  #setPendingVerdict(finding, verdict) {
    this.#store.set({ pendingVerdicts: { ...this.#store.get().pendingVerdicts, [finding]: verdict } });
  }

  #showStrokes() {
    this.#store.set({ overlayVersion: this.#store.get().overlayVersion + 1, proposal: null });
  }

  /**
   * Returns runs as the record holds them: with labels, and the finding that they were drawn for.
   * @param {Run[]} runs with values of the overlay
   */
  #describeRuns(runs) {
    const { findings, selected } = this.#store.get();
    const owner = findings.find(({ number }) => number && runs.some((run) => run[2] === number));
    const chosen = findings.find(({ id }) => id === selected);
    const isErased = runs.every((run) => run[2] === 0);
    const labelled = runs.map(([start, length, value]) => [
      start,
      length,
      value === owner?.number ? owner.label : value,
    ]);
    // A label that the chosen finding does not have was drawn for no finding.
    return { runs: labelled, finding: owner?.id ?? (isErased || !chosen?.number ? selected : null) };
  }

  /**
   * Sends a selection once the reader has stayed on it: the findings passed on the way are not sent.
   * @param {string} finding
   */
  #scheduleSelect(finding) {
    this.#cancelSelect();
    this.#selectTimer = setTimeout(() => {
      this.#selectTimer = undefined;
      this.outbox.add({ kind: "select", finding });
    }, SELECT_DELAY_MS);
  }

  // A verdict itself says which finding comes next.
  #cancelSelect() {
    clearTimeout(this.#selectTimer);
    this.#selectTimer = undefined;
  }
}

/**
 * Returns the entries that the server has not stored yet; the same object if it has stored none of them.
 * @template {{ seq: number }} T
 * @param {Record<string, T>} pending
 * @param {number} ackedSeq
 */
function dropAcknowledged(pending, ackedSeq) {
  const entries = Object.entries(pending).filter(([, { seq }]) => seq > ackedSeq);
  return entries.length === Object.keys(pending).length ? pending : Object.fromEntries(entries);
}
