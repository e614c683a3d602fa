// @ts-check
// Controls: groups, sliders and fields of the toolbar.
import { createElement, setText } from "./dom.js";

/**
 * @param {string} name
 * @param {HTMLElement[]} children
 */
export function createGroup(name, ...children) {
  return createElement("div", { class: "mv-group", role: "group", "aria-label": name }, ...children);
}

/**
 * @param {string} name
 * @param {[number, number, number]} range lowest value, highest value and step
 * @param {(value: number) => void} onInput
 */
export function createSlider(name, [min, max, step], onInput) {
  const input = createElement("input", {
    type: "range",
    min,
    max,
    step,
    "aria-label": name,
    oninput: () => onInput(Number(input.value)),
    onclick: () => input.blur(), // the arrow keys scroll again
  });
  const text = createElement("output");
  const node = createElement("label", { class: "mv-slider" }, createElement("span", {}, name), input, text);
  /** @type {(value: number, shown: string) => void} */
  const update = (value, shown) => {
    input.value = String(value);
    setText(text, shown);
  };
  return { node, update };
}
