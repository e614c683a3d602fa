// Tools: what the pointer does on a pane.
import { PLANES, distanceMm, inside, nearestVoxel } from "./geometry.js";
import { brush, enclosed, interpolate } from "./edit.js";
import { clamp } from "./dom.js";

const RIGHT = 2;
const MIDDLE = 1;
const PUSHES = { ArrowUp: [0, -20], ArrowDown: [0, 20], ArrowLeft: [-20, 0], ArrowRight: [20, 0] };

// Each tool hears a drag as begin, move and end; `drag` keeps what it needs in between.
export const TOOLS = {
  navigate: {
    name: "Navigate",
    hint: "Move the crosshair; the other planes follow",
    begin: (viewer, drag) => goto(viewer, drag),
    move: (viewer, drag) => goto(viewer, drag),
  },
  window: {
    name: "Window",
    pushed: true,
    hint: "Sideways: width; up and down: level. The right button does this in every tool",
    begin: (viewer, drag) => (drag.window = { ...viewer.state.window }),
    move(viewer, { window: { low, high }, dx, dy, pane }) {
      const width = (high - low) * Math.exp(dx / (200 * pane.ratio));
      const level = (low + high) / 2 - (dy * (high - low)) / (400 * pane.ratio);
      viewer.setWindow({ name: "own", low: level - width / 2, high: level + width / 2 });
    },
  },
  pan: {
    name: "Pan",
    pushed: true,
    hint: "Move the image. Shift or the middle button does this in every tool",
    begin: (viewer, drag) => (drag.pan = [...drag.pane.view.pan]),
    move(viewer, { pan, pane, dx, dy }) {
      pane.view.pan = [dx, dy].map((n, a) => pan[a] + n / pane.frame.pixelsPerMm);
      viewer.redraw();
    },
  },
  length: {
    name: "Length",
    ends: true,
    hint: "Drag from edge to edge; Esc takes the measures away",
    begin(viewer, drag) {
      drag.line = { plane: drag.pane.plane, from: drag.index, to: drag.index, text: "" };
      drag.pane.state.measures.push(drag.line);
    },
    move(viewer, { line, index, pane }) {
      line.to = index;
      line.text = mm(distanceMm(pane.state.volume.header.affine, line.from, line.to));
      viewer.redraw();
    },
    end(viewer, { line, pane }) {
      if (!line.text) pane.state.measures.pop();
    },
  },
  recist: {
    name: "RECIST",
    ends: true,
    hint: "Drag the longest diameter of the chosen finding, then drag across it for the short axis",
    records: true,
    begin(viewer, drag) {
      const { state } = viewer;
      if (state.long && state.long.plane !== drag.pane.plane) state.long = null;
      drag.line = { plane: drag.pane.plane, from: drag.index, to: drag.index, text: "" };
      drag.start = drag.index;
      state.measures.push(drag.line);
    },
    move(viewer, { line, start, index, pane }) {
      const { long, volume } = viewer.state;
      if (long) [line.from, line.to] = acrossLong(volume.header, pane.plane, long, start, index);
      else line.to = index;
      line.text = mm(distanceMm(volume.header.affine, line.from, line.to));
      viewer.redraw();
    },
    end(viewer, { line }) {
      const { state } = viewer;
      if (!line.text) state.measures.pop();
      else if (!state.long) state.long = line;
      else {
        state.measures = state.measures.filter((other) => other !== line && other !== state.long);
        viewer.reading.measured(state.long, line);
        state.long = null;
      }
      viewer.redraw();
    },
  },
  brush: drawing("Brush", "Paint the chosen label", (state) => state.label),
  erase: drawing("Erase", "Take labels away", () => 0),
  range: drawing("Range", "Paint only voxels whose value lies inside the window", (state) => state.label, inWindow),
  fill: {
    name: "Fill",
    hint: "Click into a closed outline",
    edits: true,
    begin(viewer, drag) {
      const region = enclosed(viewer.state.overlay, drag.pane.plane, nearestVoxel(viewer.state.volume.header, drag.index));
      if (!region) return viewer.notify("Not closed: this region reaches the edge of the image. Close the outline first.");
      viewer.state.editor.begin();
      region.forEach((at) => viewer.state.editor.set(at, viewer.state.label));
      viewer.reading.finishStroke("fill");
    },
  },
};

// Fills the slices between those on which the chosen label is drawn.
export function interpolateSlices(viewer, plane) {
  const { editor, overlay, label } = viewer.state;
  editor.begin();
  interpolate(overlay, plane, label, (at) => overlay.data[at] === 0 && editor.set(at, label));
  if (!viewer.reading.finishStroke("interpolate")) viewer.notify(`Nothing to interpolate: draw the label on two ${plane} slices that have empty ones between.`);
}

export function listen(viewer, pane) {
  const { top } = pane;
  const on = (name, act) => top.addEventListener(name, act, { passive: false });
  let drag = null;
  on("pointerdown", (event) => {
    event.preventDefault();
    viewer.focus(pane);
    const tool = toolOf(viewer, event);
    if (!tool || !pane.frame || !ready(viewer, tool, pane)) return;
    top.setPointerCapture(event.pointerId);
    drag = { tool, pane, start: place(pane, event), dx: 0, dy: 0 };
    drag.index = pane.frame.toVoxel(...drag.start, pane.state.cursor);
    if (tool === TOOLS.window || tool === TOOLS.pan || inside(pane.state.volume.header, drag.index)) tool.begin(viewer, drag);
    else drag = null;
  });
  on("pointermove", (event) => {
    if (!pane.frame) return;
    const here = place(pane, event);
    const index = pane.frame.toVoxel(...here, pane.state.cursor);
    viewer.hover(pane, index);
    if (!drag) return;
    Object.assign(drag, { before: drag.index, index, dx: here[0] - drag.start[0], dy: here[1] - drag.start[1] });
    drag.tool.move?.(viewer, drag);
  });
  const stop = () => {
    drag?.tool.end?.(viewer, drag);
    drag = null;
  };
  on("pointerup", stop);
  on("pointercancel", stop);
  on("pointerleave", () => viewer.hover(null, null));
  on("contextmenu", (event) => event.preventDefault());
  on("dblclick", () => viewer.enlarge(pane));
  on("wheel", (event) => {
    event.preventDefault();
    viewer.focus(pane);
    if (event.ctrlKey) zoom(viewer, pane, place(pane, event), Math.exp(-event.deltaY / 400));
    else viewer.scroll(pane, event.deltaY > 0 ? -1 : 1);
  });
}

// An arrow key as a short drag, for tools that are pushed; whether the tool is one.
export function push(viewer, key) {
  const [tool, way, pane] = [TOOLS[viewer.state.tool], PUSHES[key], viewer.active];
  if (!tool.pushed || !way || !pane.frame) return false;
  const drag = { pane, dx: way[0] * pane.ratio, dy: way[1] * pane.ratio };
  tool.begin(viewer, drag);
  tool.move(viewer, drag);
  return true;
}

// The tool at the crosshair without a mouse, as a click; a measure takes two, and its second end stays in the plane.
export function dab(viewer) {
  const { state, active } = viewer;
  const tool = TOOLS[state.tool];
  if (!tool.ends && !tool.edits) return viewer.notify(`${tool.name} goes with the arrows.`);
  const drag = state.held ?? { pane: active };
  const index = [...active.state.cursor];
  if (!ready(viewer, tool, drag.pane)) return;
  if (state.held) {
    const { across } = PLANES[drag.pane.plane];
    index[across] = drag.index[across];
    tool.move(viewer, Object.assign(drag, { index }));
  } else tool.begin(viewer, Object.assign(drag, { index }));
  state.held = tool.ends && !state.held ? drag : null;
  if (!state.held) tool.end?.(viewer, drag);
  viewer.redraw();
}

// Zooms so that what lies under the pointer stays there.
export function zoom(viewer, pane, [x, y], factor) {
  const centre = [pane.top.width / 2, pane.top.height / 2];
  const before = pane.frame.pixelsPerMm;
  const zoomed = clamp(pane.view.zoom * factor, 0.5, 40);
  const after = (before * zoomed) / pane.view.zoom;
  pane.view.pan = [x, y].map((n, a) => pane.view.pan[a] + (n - centre[a]) * (1 / after - 1 / before));
  pane.view.zoom = zoomed;
  viewer.redraw();
}

// The drag from `start` to `index` as a line that crosses the long axis at a right angle, in millimetres.
function acrossLong(header, plane, { from, to }, start, index) {
  const { along } = PLANES[plane];
  const flat = (at) => along.map((axis) => at[axis] * header.spacing_mm[axis]);
  const less = (a, b) => [a[0] - b[0], a[1] - b[1]];
  const [a, b, p, q] = [from, to, start, index].map(flat);
  const length = Math.hypot(...less(b, a));
  const [u, v] = less(b, a).map((x) => x / length);
  const [[px, py], [qx, qy]] = [less(p, a), less(q, a)];
  const on = clamp(px * u + py * v, 0, length);
  return [py * u - px * v, qy * u - qx * v].map((off) => {
    const end = [...from];
    [a[0] + on * u - off * v, a[1] + on * v + off * u].forEach((x, n) => (end[along[n]] = x / header.spacing_mm[along[n]]));
    return end;
  });
}

function mm(length) {
  return `${length.toFixed(1)} mm`;
}

function goto(viewer, { index, pane }) {
  const voxel = nearestVoxel(pane.state.volume.header, index);
  if (viewer.owns(pane)) viewer.moveTo(voxel);
  else viewer.beside.goto(voxel);
}

function toolOf(viewer, event) {
  if (event.button === RIGHT) return TOOLS.window;
  if (event.button === MIDDLE || event.shiftKey) return TOOLS.pan;
  return TOOLS[viewer.state.tool];
}

function ready(viewer, tool, pane) {
  const { editable, editor, selected } = viewer.state;
  if ((tool.records || tool.edits) && !viewer.owns(pane)) return viewer.notify("This side is only looked at.");
  if (tool.records && editable && !selected) return viewer.notify("Choose a finding first.");
  if (tool.records && editable) return true;
  if (!tool.records && !tool.edits || (editable && editor)) return true;
  viewer.notify(editable ? "The mask is still loading; drawing starts when it is complete." : "This case is closed to changes.");
  return false;
}

function place(pane, event) {
  const box = pane.top.getBoundingClientRect();
  return [(event.clientX - box.left) * pane.ratio, (event.clientY - box.top) * pane.ratio];
}

function drawing(name, hint, label, allowed = () => true) {
  const stamp = (viewer, drag, from, to) => {
    const { state } = viewer;
    const { header } = state.volume;
    const steps = Math.max(1, ...PLANES[drag.pane.plane].along.map((axis) => Math.ceil(Math.abs(to[axis] - from[axis]) * 2)));
    for (let n = 1; n <= steps; n++) {
      const centre = nearestVoxel(header, from.map((x, axis) => x + ((to[axis] - x) * n) / steps));
      brush(header, centre, state.radius_mm, drag.pane.plane, state.ball, (at) => allowed(state, at) && state.editor.set(at, label(state)));
    }
    viewer.overlayChanged();
  };
  return {
    name,
    hint,
    edits: true,
    begin(viewer, drag) {
      viewer.state.editor.begin();
      stamp(viewer, drag, drag.index, drag.index);
    },
    move: (viewer, drag) => stamp(viewer, drag, drag.before, drag.index),
    end: (viewer, drag) => viewer.reading.finishStroke(name.toLowerCase(), drag),
  };
}

function inWindow({ volume, window }, at) {
  const value = volume.data[at] * volume.header.slope + volume.header.intercept;
  return value >= window.low && value <= window.high;
}
