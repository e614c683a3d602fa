// @ts-check
// Label dialog: a list in front of the page; a digit, the arrows or a first letter with Enter, or the mouse choose.
import { createButton, createElement } from "./dom.js";

export class LabelDialog {
  constructor() {
    /** @type {HTMLDialogElement} */
    this.node = createElement("dialog", {
      class: "mv-dialog",
      onkeydown: (event) => this.#handleKey(event),
      onclick: ({ target }) => target === this.node && this.node.close(),
    });
  }

  get isOpen() {
    return this.node.open;
  }

  /**
   * Shows the list, and calls `onChoice` with the number of the chosen name.
   * @param {string} title
   * @param {string[]} names
   * @param {(number: number) => void} onChoice
   */
  ask(title, names, onChoice) {
    const buttons = names.map((name, n) => {
      const button = createButton("", () => {
        this.node.close();
        onChoice(n);
      });
      button.dataset.name = name;
      button.append(createElement("kbd", {}, n < 9 ? String(n + 1) : ""), name);
      return button;
    });
    this.node.setAttribute("aria-label", title);
    this.node.replaceChildren(createElement("b", {}, title), ...buttons);
    this.node.showModal();
  }

  /** @param {KeyboardEvent} event */
  #handleKey(event) {
    event.stopPropagation(); // Streamlit has keys of its own
    const buttons = [...this.node.querySelectorAll("button")];
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (step) buttons.at((this.#findFocused(buttons) + step) % buttons.length)?.focus();
    else if (/^[1-9]$/.test(event.key)) buttons[Number(event.key) - 1]?.click();
    else if (!/^\p{L}$/u.test(event.key) || event.ctrlKey || event.metaKey) return;
    else this.#focusNext(buttons, event.key);
    event.preventDefault();
  }

  /**
   * Goes to the next name that begins with a letter.
   * @param {HTMLButtonElement[]} buttons
   * @param {string} letter
   */
  #focusNext(buttons, letter) {
    const focused = this.#findFocused(buttons);
    const others = [...buttons.slice(focused + 1), ...buttons.slice(0, focused + 1)];
    others.find(({ dataset }) => dataset.name?.toLowerCase().startsWith(letter.toLowerCase()))?.focus();
  }

  /** @param {HTMLButtonElement[]} buttons */
  #findFocused(buttons) {
    const { activeElement } = /** @type {Document | ShadowRoot} */ (this.node.getRootNode());
    return buttons.findIndex((button) => button === activeElement);
  }
}
