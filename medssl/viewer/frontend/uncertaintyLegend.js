// @ts-check
// Uncertainty legend: the colour scale of the uncertainty, while it is shown.
import { createElement, setVisible } from "./dom.js";
import { chooseUncertaintyLayer, interpolateColour } from "./uncertaintyColour.js";
/** @import { Panel, ViewerState } from "./types" */
/** @import { Store } from "./store.js" */

/**
 * @param {Store<ViewerState>} store
 * @returns {Panel}
 */
export function createUncertaintyLegend(store) {
  const scale = createElement("i");
  const stops = [0, 1 / 3, 2 / 3, 1].map((share) => {
    const [red, green, blue, alpha] = interpolateColour(share);
    return `rgb(${red} ${green} ${blue} / ${alpha / 255})`;
  });
  scale.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  const attributes = { class: "mv-legend", "aria-label": "Colours of the uncertainty" };
  const node = createElement("div", attributes, "certain", scale, "uncertain");
  return { node, update: () => setVisible(node, chooseUncertaintyLayer(store.get())) };
}
