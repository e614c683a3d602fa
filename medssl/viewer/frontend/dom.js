// @ts-check
// DOM: elements made in code. Text goes in as text, never as markup.
/** @typedef {string | number | boolean | null | undefined | ((event: any) => void)} Attribute */

/**
 * Creates an element. A function under "onclick" and the like listens to that event; null, undefined and false leave
 * the attribute out.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, Attribute>} attributes
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function createElement(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, String(value));
  }
  node.append(...children);
  return node;
}

/**
 * Creates a button with a text.
 * @param {string} text
 * @param {() => void} onClick
 * @param {Record<string, Attribute>} attributes
 */
export function createButton(text, onClick, attributes = {}) {
  return createElement("button", { type: "button", ...attributes, onclick: onClick }, text);
}

/**
 * Sets the text of a node, unless it has that text already.
 * @param {Node} node
 * @param {string} text
 */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * @param {HTMLElement} node
 * @param {unknown} visible
 */
export function setVisible(node, visible) {
  node.hidden = !visible;
}

/**
 * Marks a button as pressed or not.
 * @param {Element} node
 * @param {boolean} pressed
 */
export function setPressed(node, pressed) {
  node.setAttribute("aria-pressed", String(pressed));
}

/**
 * Returns the drawing context of a canvas.
 * @param {HTMLCanvasElement} canvas
 * @param {CanvasRenderingContext2DSettings} [settings]
 */
export function getContext(canvas, settings) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", settings));
}
