// Reading: what a reader decides and corrects, told to the server through the outbox.
import { lengthMm, nearestVoxel, toIndex, toMm } from "./geometry.js";
import { Outbox } from "./outbox.js";
import { interpolateSlices } from "./tools.js";

const SELECT_MS = 400;

export class Reading {
  constructor(viewer, data) {
    this.viewer = viewer;
    this.state = viewer.state;
    this.said = {}; // verdicts that the server has not stored yet, by finding
    this.axes = {}; // and measures
    this.outbox = new Outbox(data.key, data.acked_seq, (events) => viewer.send("events", events), () => viewer.refresh());
  }

  // The server's word. It leads to another finding only if it knows everything that was done here.
  update(data, before) {
    this.wants = data.wants;
    this.outbox.ack(data.acked_seq);
    for (const waiting of [this.said, this.axes]) {
      for (const [id, { seq }] of Object.entries(waiting)) if (seq <= data.acked_seq) delete waiting[id];
    }
    const settled = before && !this.outbox.waiting && !this.telling;
    if (settled && data.selected !== before.selected && data.selected !== this.state.selected) this.select(data.selected, false);
  }

  // The finding a case opens with: the server's choice, or the first that is not read.
  begin(selected) {
    const { findings } = this.state;
    const chosen = findings.find(({ id }) => id === selected) ?? findings.find((finding) => !this.decisionOf(finding));
    if (chosen) this.select(chosen.id, false);
  }

  decisionOf(finding) {
    return this.said[finding.id] ? this.said[finding.id].decision : (finding.decision ?? null);
  }

  // The label that a reader gave a finding in place of the model's, or null.
  labelOf(finding) {
    return this.said[finding.id] ? this.said[finding.id].label : (finding.relabelled ?? null);
  }

  select(id, tell = true) {
    const { state } = this;
    const finding = state.findings.find((other) => other.id === id);
    if (!finding) return;
    state.selected = id;
    state.label = finding.label ?? state.label;
    this.since = performance.now();
    if (state.volume) {
      const { header } = state.volume;
      this.viewer.moveTo(nearestVoxel(header, toIndex(header.affine, finding.centre_mm)));
    }
    this.viewer.beside.follow(finding);
    if (tell && this.wants.includes("select")) this.tell(id);
  }

  // Waits until the reader has settled on a finding: leafing through them is nobody's business.
  tell(finding) {
    this.forget();
    this.telling = setTimeout(() => {
      this.telling = 0;
      this.outbox.add({ kind: "select", finding });
    }, SELECT_MS);
  }

  // What was not told yet: a verdict tells where the reader goes from it.
  forget() {
    clearTimeout(this.telling);
    this.telling = 0;
  }

  step(by) {
    const { findings, selected } = this.state;
    if (!findings.length) return;
    const at = findings.findIndex(({ id }) => id === selected);
    this.select(findings[(at + by + findings.length) % findings.length].id);
  }

  decide(decision, label) {
    const { findings, selected, volume } = this.state;
    if (!volume || !this.open()) return;
    const at = findings.findIndex(({ id }) => id === selected);
    if (at < 0) return this.viewer.notify("Choose a finding first.");
    const dwell_ms = Math.round(performance.now() - this.since);
    const waiting = [...findings.slice(at + 1), ...findings.slice(0, at)].find((finding) => !this.decisionOf(finding));
    const next = decision === "edit" ? selected : (waiting?.id ?? selected);
    const seq = this.outbox.add({ kind: "verdict", finding: selected, decision, dwell_ms, next, ...this.viewer.side.given(), ...(label && { label }) });
    this.said[selected] = { decision, label, seq };
    this.last = { seq, finding: selected };
    if (decision === "edit") this.viewer.take("brush");
    this.forget();
    if (next !== selected) this.select(next, false);
  }

  relabel() {
    const { findings, selected, labels } = this.state;
    if (!this.open()) return;
    const finding = findings.find(({ id }) => id === selected);
    if (!finding) return this.viewer.notify("Choose a finding first.");
    const others = Object.keys(labels).map(Number).filter((label) => label !== finding.label);
    if (!others.length) return this.viewer.notify("There is no other label.");
    const names = others.map((label) => labels[label].name);
    this.viewer.choice.ask(`${finding.name} is rather`, names, (n) => this.decide("relabel", others[n]));
  }

  // Whether a reader may still change this case.
  open() {
    if (!this.state.editable) this.viewer.notify("This case is closed to changes. Reopen it above the images.");
    return this.state.editable;
  }

  missed() {
    if (!this.open()) return;
    const { volume, cursor, label } = this.state;
    const centre_mm = toMm(volume.header.affine, cursor);
    this.outbox.add({ kind: "missed", centre_mm, label, ...this.viewer.side.given() });
    this.viewer.notify("Added at the crosshair.");
  }

  // The axes of the chosen finding, the longer one first; they travel and stay as places in the patient.
  measured(...lines) {
    const { volume, selected } = this.state;
    const ends = lines.map(({ from, to }) => [from, to].map((end) => toMm(volume.header.affine, end)));
    const [long, short] = ends.sort((a, b) => lengthMm(b) - lengthMm(a));
    const axes = { plane: lines[0].plane, long, short };
    const seq = this.outbox.add({ kind: "measure", finding: selected, ...axes });
    this.axes[selected] = { axes, seq };
    this.last = { seq, finding: selected, measure: true };
  }

  // The long and the short axis of a finding, or null.
  axesOf(finding) {
    return this.axes[finding.id] ? this.axes[finding.id].axes : (finding.axes ?? null);
  }

  finishStroke(tool) {
    const { editor, selected } = this.state;
    const changed = editor.end();
    this.viewer.overlayChanged();
    if (!changed) return false;
    editor.sent(this.outbox.add({ kind: "stroke", runs: changed, tool, finding: selected }));
    return true;
  }

  interpolate() {
    if (this.state.editor) interpolateSlices(this.viewer, this.viewer.active.plane);
  }

  undo() {
    if (!this.open()) return;
    const step = this.state.editor?.undo();
    if (step) {
      this.outbox.add({ kind: "undo", of: step.seq });
      this.viewer.overlayChanged();
    } else if (this.last) {
      const { seq: of, finding, measure } = this.last;
      const seq = this.outbox.add({ kind: "undo", of });
      if (measure) this.axes[finding] = { axes: null, seq };
      else this.said[finding] = { decision: null, seq };
      this.last = null;
      this.select(finding);
    } else this.viewer.notify("Nothing to undo.");
  }

  redo() {
    const { editor, selected } = this.state;
    const step = editor?.redo();
    if (!step) return;
    editor.sent(this.outbox.add({ kind: "stroke", runs: step.after, tool: "redo", finding: selected }));
    this.viewer.overlayChanged();
  }

  close() {
    this.forget();
    this.outbox.close();
  }
}
