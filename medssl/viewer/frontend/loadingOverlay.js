// @ts-check
// Loading overlay: covers the planes while there are none, with progress, or with an error and a button to try again.
import { createButton, createElement, setText, setVisible } from "./dom.js";

export class LoadingOverlay {
  #title = createElement("b");
  #text = createElement("p");
  #retry;

  /** @param {() => void} onRetry */
  constructor(onRetry) {
    this.#retry = createButton("Try again", onRetry);
    const spinner = createElement("div", { class: "mv-spinner" });
    const attributes = { class: "mv-loading", role: "status" };
    this.node = createElement("div", attributes, spinner, this.#title, this.#text, this.#retry);
  }

  /**
   * @param {string} title
   * @param {string} text
   */
  showLoading(title, text) {
    this.#show("loading", title, text);
  }

  /**
   * @param {string} title
   * @param {string} text
   */
  showError(title, text) {
    this.#show("error", title, text);
  }

  hide() {
    setVisible(this.node, false);
  }

  /**
   * @param {"loading" | "error"} kind
   * @param {string} title
   * @param {string} text
   */
  #show(kind, title, text) {
    this.node.dataset.kind = kind;
    setText(this.#title, title);
    setText(this.#text, text);
    setVisible(this.#retry, kind === "error");
    setVisible(this.node, true);
  }
}
