// @ts-check
// Label dialog: a short list in front of the page; a digit, the arrows with Enter, or the mouse choose.
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
      button.append(createElement("kbd", {}, String(n + 1)), name);
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
    if (step) {
      const { activeElement } = /** @type {Document | ShadowRoot} */ (this.node.getRootNode());
      const focused = buttons.findIndex((button) => button === activeElement);
      buttons.at((focused + step) % buttons.length)?.focus();
    } else if (/^[1-9]$/.test(event.key)) buttons[Number(event.key) - 1]?.click();
    else return;
    event.preventDefault();
  }
}
