// @ts-check
// Pointer: mouse, pen and wheel on a pane.
import { isInside } from "./geometry.js";
import { TOOLS, checkTool } from "./tools.js";
/** @import { Drag, Vector } from "./types" */
/** @import { Navigation } from "./navigation.js" */
/** @import { Pane } from "./pane.js" */
/** @import { Tool, ToolContext } from "./tools.js" */

const MIDDLE_BUTTON = 1;
const RIGHT_BUTTON = 2;

/**
 * Lets the pointer use the tools on a pane.
 * @param {Pane} pane
 * @param {ToolContext} context
 * @param {Navigation} navigation
 */
export function bindPointer(pane, context, navigation) {
  const { top } = pane;
  /** @type {{ tool: Tool, drag: Drag, start: Vector } | null} */
  let current = null;
  /** @type {<K extends keyof HTMLElementEventMap>(name: K, act: (event: HTMLElementEventMap[K]) => void) => void} */
  const listen = (name, act) => top.addEventListener(name, act, { passive: false });
  listen("pointerdown", (event) => {
    event.preventDefault();
    navigation.focus(pane);
    const { volume, cursor } = pane.store.get();
    const tool = chooseTool(context, event);
    if (!volume || !pane.frame || !checkTool(context, tool, pane)) return;
    top.setPointerCapture(event.pointerId);
    const start = locate(pane, event);
    const index = pane.frame.toVoxel(start, cursor);
    if (!tool.worksOutside && !isInside(volume.header, index)) return;
    current = { tool, start, drag: { pane, index, previous: index, dx: 0, dy: 0, isModified: isModified(event) } };
    tool.begin(context, current.drag);
  });
  listen("pointermove", (event) => {
    if (!pane.frame) return;
    const pixel = locate(pane, event);
    const index = pane.frame.toVoxel(pixel, pane.store.get().cursor);
    navigation.hover(pane, index);
    if (!current) return;
    const { tool, drag, start } = current;
    Object.assign(drag, { previous: drag.index, index, dx: pixel[0] - start[0], dy: pixel[1] - start[1] });
    tool.move?.(context, drag);
  });
  const endDrag = () => {
    current?.tool.end?.(context, current.drag);
    current = null;
  };
  listen("pointerup", endDrag);
  listen("pointercancel", endDrag);
  listen("pointerleave", () => navigation.leave());
  listen("contextmenu", (event) => event.preventDefault());
  listen("dblclick", () => navigation.enlarge(pane));
  listen("wheel", (event) => {
    event.preventDefault();
    navigation.focus(pane);
    if (event.ctrlKey) navigation.zoom(pane, locate(pane, event), Math.exp(-event.deltaY / 400));
    else navigation.scroll(pane, event.deltaY > 0 ? -1 : 1);
  });
}

/**
 * @param {ToolContext} context
 * @param {PointerEvent} event
 */
function chooseTool({ store }, event) {
  if (event.button === RIGHT_BUTTON) return TOOLS.window;
  if (event.button === MIDDLE_BUTTON || event.shiftKey) return TOOLS.pan;
  const tool = TOOLS[store.get().tool];
  return isModified(event) && tool.drawsLabels && !tool.usesModifier ? TOOLS.erase : tool;
}

/** @param {PointerEvent} event */
function isModified(event) {
  return event.ctrlKey || event.metaKey;
}

/**
 * Returns the device pixel of the pane under the pointer.
 * @param {Pane} pane
 * @param {MouseEvent} event
 */
function locate(pane, event) {
  const box = pane.top.getBoundingClientRect();
  return [(event.clientX - box.left) * pane.ratio, (event.clientY - box.top) * pane.ratio];
}
