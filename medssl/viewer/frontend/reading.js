// @ts-check
// Reading: what the reader decides, measures and corrects, sent to the server through the outbox.
import { ActHistory } from "./actHistory.js";
import { findSignObstacle } from "./caseBar.js";
import { listInOrder } from "./findingsOrder.js";
import { measureLength, toMm } from "./geometry.js";
import { interpolateSlices } from "./interpolation.js";
import { MaskRecord } from "./maskRecord.js";
import { Outbox, eventId } from "./outbox.js";
import { summarizePending } from "./pendingActs.js";
import { decisionOf, shownLabelAt, shownLabelOf, valueToDraw } from "./state.js";
import { keepEqual } from "./store.js";
import { selectTool } from "./tools.js";
/** @import { PastAct } from "./actHistory.js" */
/** @import { MaskVersion } from "./maskRecord.js" */
/** @import { Finding, Line, Notify, NumberedEvent, Plane, ReviewEvent, Run, Vector, ViewerData, ViewerState } from "./types" */
/** @import { Store } from "./store.js" */

const SELECT_DELAY_MS = 400;
/** @typedef {{ reason: string, note: string }} Remarks */

export class Reading {
  #store;
  #notify;
  #takeRemarks;
  #askLabel;
  #showFinding;
  #onStored;
  #history;
  /** @type {ViewerData} */
  #data;
  /** @type {ReturnType<typeof setTimeout> | undefined} a selection that was not sent yet */
  #selectTimer;
  #selectedAt = performance.now();

  /**
   * @param {ViewerData} data
   * @param {object} uses
   * @param {Store<ViewerState>} uses.store
   * @param {Notify} uses.notify
   * @param {(events: NumberedEvent[]) => void} uses.send
   * @param {() => Remarks} uses.takeRemarks returns the reason and the note that go with one event
   * @param {(title: string, names: string[], onChoice: (number: number) => void) => void} uses.askLabel
   * @param {(finding: Finding) => void} uses.showFinding
   * @param {(version: MaskVersion) => void} uses.fetchMask
   * @param {() => void} uses.onStored called when the server has stored an act
   */
  constructor(data, { store, notify, send, takeRemarks, askLabel, showFinding, fetchMask, onStored }) {
    this.#data = data;
    this.#store = store;
    this.#notify = notify;
    this.#takeRemarks = takeRemarks;
    this.#askLabel = askLabel;
    this.#showFinding = showFinding;
    this.#onStored = onStored;
    this.#history = new ActHistory(data.key);
    this.mask = new MaskRecord({
      store,
      fetchMask,
      listPending: () => ({
        strokes: summarizePending(this.outbox.pending).strokes,
        isSettled: !this.outbox.waiting.length,
      }),
    });
    this.outbox = new Outbox(data.key, send, (outbox) => this.#showPending(outbox));
    this.#showPending(this.outbox);
  }

  /**
   * Follows the server. It leads to another finding only if it knows everything that was done here.
   * @param {ViewerData} data
   * @param {ViewerData | null} previous
   */
  update(data, previous) {
    this.#data = data;
    const before = this.outbox.waiting.length;
    this.outbox.receive(data);
    if (previous && data.session !== previous.session) this.outbox.wake();
    if (this.outbox.waiting.length < before) this.#onStored();
    this.#showPending(this.outbox);
    this.mask.follow(data);
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
   * @param {boolean} isShown whether the planes go to the finding
   */
  select(id, isSent = true, isShown = true) {
    const { findings, label } = this.#store.get();
    const finding = findings.find((other) => other.id === id);
    if (!finding) return;
    const state = this.#store.get();
    this.#store.set({
      selected: id,
      label: shownLabelOf(state, finding) || finding.label || label,
      proposal: null,
      assist: null,
    });
    this.#selectedAt = performance.now();
    if (isShown) this.#showFinding(finding);
    if (isSent && this.#data.handled_events.includes("select")) this.#scheduleSelect(id);
  }

  /**
   * Selects the finding that a voxel shows, where the reader looks already.
   * @param {Vector} voxel
   */
  selectAt(voxel) {
    const state = this.#store.get();
    const { overlay, overlayVisible, rejectedVisible, findings, selected } = state;
    if (!overlay || !overlayVisible) return;
    const value = overlay.data[overlay.offsetOf(voxel)];
    const finding = findings.find(({ number }) => number && number === value);
    if (!finding || finding.id === selected) return;
    if (shownLabelOf(state, finding) || rejectedVisible) this.select(finding.id, true, false);
  }

  /** @param {number} by number of findings */
  step(by) {
    const state = this.#store.get();
    const findings = listInOrder(state);
    if (!findings.length) return;
    const number = findings.findIndex(({ id }) => id === state.selected);
    const next = number < 0 ? (by > 0 ? 0 : -1) : (number + by) % findings.length;
    const finding = findings.at(next);
    if (finding) this.select(finding.id);
  }

  /**
   * Records a verdict on the selected finding, and goes on to the next finding without one.
   * @param {string} decision
   * @param {number} [label]
   */
  decide(decision, label) {
    const state = this.#store.get();
    const { selected } = state;
    if (!state.volume || !this.#checkEditable()) return;
    if (!selected || !state.findings.some(({ id }) => id === selected)) return this.#notify("Choose a finding first.");
    const findings = [...new Set([...listInOrder(state), ...state.findings])];
    const number = findings.findIndex(({ id }) => id === selected);
    const dwell_ms = Math.round(performance.now() - this.#selectedAt);
    const others = [...findings.slice(number + 1), ...findings.slice(0, number)];
    const waiting = others.find((finding) => !decisionOf(state, finding));
    const next = decision === "edit" ? selected : (waiting?.id ?? selected);
    const event = { kind: "verdict", finding: selected, decision, dwell_ms, next };
    this.#record({ ...event, ...this.#takeRemarks(), ...(label && { label }) });
    if (decision === "edit") selectTool(this.#store, "brush");
    this.#cancelSelect();
    if (next !== selected) this.select(next, false);
  }

  /**
   * Accepts all findings of a label that have no verdict, once the reader has confirmed it.
   * @param {number} label
   */
  acceptAll(label) {
    const state = this.#store.get();
    if (!state.volume || !this.#checkEditable()) return;
    const open = state.findings.filter((finding) => !decisionOf(state, finding) && finding.label === label);
    if (!open.length) return this.#notify("Every finding of this label is read.");
    const names = [`Accept ${open.length}`, "Accept none"];
    const name = state.labels[label]?.name ?? `label ${label}`;
    this.#askLabel(`Accept all ${name} without a verdict?`, names, (choice) => {
      if (choice) return;
      const verdict = {
        kind: "verdict",
        decision: "accept",
        dwell_ms: 0,
        next: state.selected,
        ...this.#takeRemarks(),
      };
      const events = this.outbox.addAll(open.map(({ id }) => ({ ...verdict, finding: id })));
      for (const event of events) this.#history.add(event);
      this.#showPending(this.outbox);
    });
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
    this.#record({ kind: "missed", centre_mm, label, ...this.#takeRemarks() });
    this.#notify("Added at the crosshair.");
  }

  /**
   * Records both axes of the selected finding, the longer one first, as points in the patient.
   * @param {Line} first
   * @param {Line} second
   */
  recordAxes(first, second) {
    const { volume, selected } = this.#store.get();
    if (!volume || !selected || !this.#checkEditable()) return;
    const lines = [first, second].map(({ from, to }) => [from, to].map((end) => toMm(volume.header.affine, end)));
    const [long, short] = lines.sort((a, b) => measureLength(b) - measureLength(a));
    this.#record({ kind: "measure", finding: selected, plane: first.plane, long, short });
  }

  /**
   * Ends the current stroke, and records it. Returns whether it changed anything.
   * @param {string} tool
   * @param {object} facts that the record keeps about the stroke
   */
  finishStroke(tool, facts = {}) {
    const { editor } = this.#store.get();
    if (!editor) return false;
    const runs = editor.endStroke();
    if (runs) this.#recordStroke({ kind: "stroke", tool, ...this.#describeRuns(runs), ...facts }, facts);
    this.#store.set({ overlayVersion: this.#store.get().overlayVersion + 1, proposal: null });
    return runs !== null;
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

  /** Takes back the reader's own last act in this tab. */
  undo() {
    if (!this.#checkEditable()) return;
    const act = this.#findLastAct(this.outbox);
    if (!act) return this.#notify("There is nothing of yours to undo in this window.");
    const { client: of_client, seq: of, kind: undoes, finding } = act;
    this.#history.remove(act);
    const isTakenBackHere = undoes === "stroke" && this.#store.get().editor?.undo(eventId(act));
    if (isTakenBackHere) this.mask.remove(eventId(act));
    this.outbox.add({ kind: "undo", of, of_client, undoes, finding });
    if (undoes !== "stroke") this.select(finding);
  }

  /** Repeats the last stroke that was taken back. */
  redo() {
    const { editor } = this.#store.get();
    const stroke = editor?.redo();
    if (!editor || !stroke) return;
    const { after, facts } = stroke;
    this.#recordStroke({ kind: "stroke", tool: "redo", ...this.#describeRuns(after), ...facts }, facts);
  }

  /** Signs the reading as it is on the screen; the signature is stored after all that waits. */
  sign() {
    const state = this.#store.get();
    const obstacle = findSignObstacle(state);
    if (obstacle) return this.#notify(`${obstacle}.`);
    const decisions = Object.fromEntries(state.findings.map((finding) => [finding.id, decisionOf(state, finding)]));
    for (const id of summarizePending(this.outbox.pending).added) decisions[id] = "missed";
    this.outbox.add({ kind: "sign", screen: { drawn: state.drawn, decisions } });
  }

  /** Opens a signed reading again, before a change that was refused because of the signature. */
  reopen() {
    if (this.outbox.refusal) this.outbox.addFirst({ kind: "reopen" });
    else this.outbox.add({ kind: "reopen" });
  }

  /** @param {"deliver" | "next"} kind what the server does with the whole case, once everything is stored */
  request(kind) {
    if (!this.outbox.waiting.length) this.outbox.add({ kind });
  }

  /** Gives up the change that the server refused; the screen then follows the record. */
  discardRefused() {
    for (const event of this.outbox.discard()) this.#history.remove({ ...event, finding: "" });
    this.mask.follow(this.#data);
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

  /** @param {ReviewEvent} event */
  #record(event) {
    const numbered = this.outbox.add(event);
    this.#history.add(numbered);
    this.#showPending(this.outbox);
    return numbered;
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
   * @param {ReviewEvent} event whose stroke is the last one of the editor
   * @param {object} [facts] that a repetition of the stroke keeps
   */
  #recordStroke(event, facts) {
    const id = eventId(this.#record(event));
    this.#store.get().editor?.markSent(id, facts);
    this.mask.add(id);
  }

  /**
   * @param {Outbox} outbox
   * @returns {PastAct | null}
   */
  #findLastAct(outbox) {
    const pending = new Set(outbox.pending.map(eventId));
    const stored = new Set(this.#data.undoable);
    return this.#history.findLast((act) => pending.has(eventId(act)) || stored.has(eventId(act)));
  }

  /**
   * Shows what waits for the server as if it were stored; a reading that is being signed is closed to changes.
   * @param {Outbox} outbox
   */
  #showPending(outbox) {
    const { pending, waiting, refusal, isKept } = outbox;
    const { verdicts, axes, undone } = summarizePending(pending);
    const event = pending.find((other) => eventId(other) === refusal?.id);
    const waitingKinds = pending.map(({ kind }) => kind);
    const { hasActed, pendingVerdicts, pendingAxes } = this.#store.get();
    this.#store.set({
      pendingVerdicts: keepEqual(pendingVerdicts, verdicts),
      pendingAxes: keepEqual(pendingAxes, axes),
      unsavedEvents: waiting.length,
      hasActed: hasActed || waiting.length > 0,
      isKept,
      waitingKinds,
      refused: event && refusal ? { event, reason: refusal.reason } : null,
      isMaskUndone: undone.length > 0,
      editable: this.#data.editable && !waitingKinds.includes("sign"),
      canUndo: this.#findLastAct(outbox) !== null,
    });
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
