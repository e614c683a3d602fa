// Beside: another study of the patient, or another model's view of this one, scrolled along in millimetres.
import { PLANE_NAMES, PLANES, nearestVoxel, toIndex, toMm } from "./geometry.js";
import { RemoteVolume, greyTable, loadAll } from "./volume.js";
import { Pane } from "./pane.js";
import { clamp, el, say, show } from "./dom.js";

// A plane at the scale of the one that it stands beside, with the crosshair at the same place of the screen.
class Twin extends Pane {
  constructor(plane, state, of, place) {
    super(plane, state);
    Object.assign(this, { of, place });
  }

  get view() {
    return this.of?.view;
  }

  set view(_) {} // shared: zooming one zooms both

  framed() {
    const frame = super.framed();
    frame.follow(this.of.frame, this.of.state.cursor, this.place());
    return frame;
  }
}

export class Beside {
  constructor(viewer) {
    this.viewer = viewer;
    this.shown = null; // the entry of the server's list that is looked at
    this.linked = true;
    this.offset_mm = [0, 0, 0]; // from a place here to the same place there
    this.place = [0, 0, 0]; // a voxel there, with fractions
    // Looks are those of the viewer; what is looked at is not.
    this.state = Object.assign(Object.create(viewer.state), {
      volume: null, overlay: null, probability: null, threshold: null, cursor: [0, 0, 0], measures: [], long: null,
      brushAt: null, findings: [], version: 0, tables: Object.create(viewer.state.tables), doubt: () => null,
    }); // prettier-ignore
    this.panes = PLANE_NAMES.map((plane, n) => new Twin(plane, this.state, viewer.panes[n], () => this.place));
    this.caption = el("div", { class: "mv-caption" });
    this.node = el("div", { class: "mv-half", hidden: true }, this.caption, ...this.panes.map((pane) => pane.node));
  }

  get entries() {
    return this.viewer.state.besides;
  }

  // Fresh facts of the entry that is shown; away with it if it is gone.
  update() {
    const fresh = this.entries.find(({ id }) => id === this.shown?.id);
    if (this.shown && !fresh) this.choose(null);
    else this.shown = fresh ?? null;
  }

  // Shows one entry after the other, then none.
  cycle() {
    if (!this.entries.length) return this.viewer.notify("Nothing to put beside: no earlier study and no other model.");
    const at = this.entries.findIndex(({ id }) => id === this.shown?.id);
    return this.choose(this.entries[at + 1]?.id ?? null);
  }

  async choose(id) {
    this.stop?.abort();
    this.stop = new AbortController();
    this.shown = this.entries.find((entry) => entry.id === id) ?? null;
    Object.assign(this.state, { volume: null, overlay: null, measures: [] });
    Object.assign(this, { linked: true, offset_mm: [0, 0, 0] });
    this.viewer.redraw();
    if (!this.shown) return;
    try {
      await this.open(this.shown, this.stop.signal);
    } catch (error) {
      if (error.name !== "AbortError") this.viewer.notify(`${this.shown?.name} cannot be shown. ${error.message}`);
    }
  }

  async open(entry, signal) {
    const { viewer, state } = this;
    const same = entry.volume === viewer.data.volume;
    const mine = same ? viewer.state.volume : new RemoteVolume(entry.volume, signal).open();
    const [volume, overlay] = await Promise.all([mine, new RemoteVolume(entry.overlay, signal).open()]);
    if (String(volume.header.shape) !== String(overlay.header.shape)) throw new Error("Its labels are on another grid.");
    Object.assign(state, { volume, overlay });
    this.window(viewer.state.window);
    this.follow(viewer.state.findings.find(({ id }) => id === viewer.state.selected));
    await loadAll(same ? [overlay] : [volume, overlay], () => state.cursor[2], () => this.arrived());
  }

  arrived() {
    this.state.version++;
    this.viewer.redraw();
  }

  window(range) {
    if (this.state.volume) this.state.tables.grey = greyTable(this.state.volume.header, range);
  }

  // Puts the two studies one upon the other where they hold the same finding.
  follow(finding) {
    const pair = finding && this.shown?.pairs[finding.id];
    if (!pair || this.shown.volume === this.viewer.data.volume) return;
    this.linked = true;
    this.offset_mm = pair.centre_mm.map((x, axis) => x - finding.centre_mm[axis]);
    this.viewer.redraw();
  }

  // Goes to a finding that only the other side has.
  async visit(id, centre_mm) {
    if (this.shown?.id !== id) await this.choose(id);
    this.linked = true;
    const { header } = this.viewer.state.volume;
    const mm = centre_mm.map((x, axis) => x - this.offset_mm[axis]);
    this.viewer.moveTo(nearestVoxel(header, toIndex(header.affine, mm)));
  }

  // Apart, each side scrolls alone; together again, they stay where they were put.
  link() {
    if (!this.state.volume) return this.viewer.notify("Nothing stands beside this study (C).");
    this.linked = !this.linked;
    if (this.linked) {
      const [here, there] = [this.viewer.state, this.state].map(({ volume, cursor }) => toMm(volume.header.affine, cursor));
      this.offset_mm = there.map((x, axis) => x - here[axis]);
    }
    this.viewer.redraw();
  }

  scroll(pane, by) {
    const axis = PLANES[pane.plane].across;
    const next = [...this.place];
    next[axis] = clamp(Math.round(next[axis]) + by, 0, this.state.volume.header.shape[axis] - 1);
    this.goto(next);
  }

  goto(index) {
    if (!this.linked) this.place = index;
    else {
      const { header } = this.viewer.state.volume;
      const mm = toMm(this.state.volume.header.affine, index).map((x, axis) => x - this.offset_mm[axis]);
      this.viewer.moveTo(nearestVoxel(header, toIndex(header.affine, mm)));
    }
    this.viewer.redraw();
  }

  draw() {
    show(this.node, this.shown);
    if (!this.shown) return;
    const { volume } = this.state;
    const loading = !volume ? "  loading" : volume.count < volume.planes ? `  loading ${volume.count}/${volume.planes}` : "";
    say(this.caption, `${this.shown.name}${this.linked ? "" : "  not linked (J links)"}${loading}`);
    if (!volume) return;
    if (this.linked) {
      const mm = toMm(this.viewer.state.volume.header.affine, this.viewer.state.cursor).map((x, axis) => x + this.offset_mm[axis]);
      this.place = toIndex(volume.header.affine, mm);
    }
    this.state.cursor = nearestVoxel(volume.header, this.place);
    for (const pane of this.panes) {
      pane.fit();
      pane.draw();
    }
  }

  close() {
    this.stop?.abort();
  }
}
