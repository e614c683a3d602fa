// @ts-check
// Menu: a button that opens a small panel of controls below it; a press elsewhere or Escape closes the panel.
import { createElement, setText } from "./dom.js";

/**
 * @param {string} name
 * @param {(Node | string)[]} children
 */
export function createMenu(name, ...children) {
  const title = createElement("span", {}, name);
  const summary = createElement("summary", { "aria-label": name }, title);
  const panel = createElement("div", { class: "mv-panel", role: "group", "aria-label": name }, ...children);
  const node = createElement("details", { class: "mv-menu" }, summary, panel);
  const closeOutside = (/** @type {Event} */ event) => {
    if (!event.composedPath().includes(node)) node.open = false;
  };
  node.addEventListener("toggle", () => {
    if (node.open) document.addEventListener("pointerdown", closeOutside, true);
    else document.removeEventListener("pointerdown", closeOutside, true);
  });
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !node.open) return;
    node.open = false;
    summary.focus();
    event.stopPropagation();
  });
  /** @param {string} text what the closed menu shows */
  const setTitle = (text) => setText(title, text);
  return { node, panel, setTitle };
}
