// @ts-check
// Help page: every key, and what the mouse does.
import { createElement } from "./dom.js";
import { KEYS, formatKey } from "./keys.js";

const MOUSE = [
  "Wheel: slices",
  "Ctrl + wheel: zoom",
  "Right button: window",
  "Shift or middle button: pan",
  "Double click: enlarge",
  "Ctrl with a drawing tool: erase",
  "Click on a mask: choose its finding",
];

export class HelpPage {
  #parent;
  #isEditable;
  /** @type {HTMLElement | null} */
  #node = null;

  /**
   * @param {HTMLElement} parent
   * @param {() => boolean} isEditable
   */
  constructor(parent, isEditable) {
    this.#parent = parent;
    this.#isEditable = isEditable;
  }

  get isOpen() {
    return this.#node !== null;
  }

  toggle() {
    if (this.#node) return this.close();
    this.#node = createHelpPage(this.#isEditable(), () => this.close());
    this.#parent.append(this.#node);
  }

  close() {
    this.#node?.remove();
    this.#node = null;
  }
}

/**
 * @param {boolean} isEditable
 * @param {() => void} onClick
 */
function createHelpPage(isEditable, onClick) {
  const rows = KEYS.filter(({ edits }) => !edits || isEditable).map(({ keys, help }) => {
    const names = keys.map((key) => createElement("kbd", {}, formatKey(key)));
    return createElement("div", {}, createElement("span", {}, ...names), help);
  });
  const page = createElement(
    "div",
    {},
    createElement("h3", {}, "Keys"),
    createElement("div", { class: "mv-keys" }, ...rows),
    createElement("h3", {}, "Mouse"),
    createElement("p", {}, MOUSE.join("   ·   ")),
  );
  return createElement("div", { class: "mv-help", role: "dialog", "aria-label": "Keys", onclick: onClick }, page);
}
