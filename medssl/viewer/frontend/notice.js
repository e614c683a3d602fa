// @ts-check
// Notice: a message over the planes that disappears by itself.
import { createElement, setText, setVisible } from "./dom.js";

const DURATION_MS = 6000;

export class Notice {
  node = createElement("div", { class: "mv-notice", role: "alert", hidden: true });
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {string} text */
  show(text) {
    setText(this.node, text);
    setVisible(this.node, true);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.hide(), DURATION_MS);
  }

  hide() {
    clearTimeout(this.#timer);
    setVisible(this.node, false);
  }
}
