// Choice: a short list in front of everything; a digit, the arrows with Enter, or the mouse choose.
import { el } from "./dom.js";

export class Choice {
  constructor() {
    this.node = el("dialog", { class: "mv-choice", onkeydown: (event) => this.heard(event), onclick: ({ target }) => target === this.node && this.node.close() });
  }

  get open() {
    return this.node.open;
  }

  ask(title, names, chosen) {
    const take = (n) => () => {
      this.node.close();
      chosen(n);
    };
    const buttons = names.map((name, n) => el("button", { type: "button", onclick: take(n) }, el("kbd", {}, String(n + 1)), name));
    this.node.setAttribute("aria-label", title);
    this.node.replaceChildren(el("b", {}, title), ...buttons);
    this.node.showModal();
  }

  heard(event) {
    event.stopPropagation(); // Streamlit has keys of its own
    const buttons = [...this.node.querySelectorAll("button")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) buttons.at((buttons.indexOf(this.node.getRootNode().activeElement) + step) % buttons.length).focus();
    else if (/^[1-9]$/.test(event.key)) buttons[Number(event.key) - 1]?.click();
    else return;
    event.preventDefault();
  }
}
