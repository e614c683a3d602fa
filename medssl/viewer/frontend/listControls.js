// @ts-check
// List controls: how the list of findings is sorted, filtered and grouped.
import { createButton, createElement, setPressed, setVisible } from "./dom.js";
import { SORTS, listedLabelOf } from "./findingsOrder.js";
/** @import { ListSettings, Panel, ViewerState } from "./types" */
/** @import { Store } from "./store.js" */

const FEW = 3; // findings that need no order

/**
 * @param {Store<ViewerState>} store
 * @returns {Panel}
 */
export function createListControls(store) {
  /** @param {Partial<ListSettings>} settings */
  const change = (settings) => store.set({ list: { ...store.get().list, ...settings } });
  const sort = createElement("select", {
    "aria-label": "Order of the findings",
    onchange: () => change({ sort: /** @type {ListSettings["sort"]} */ (sort.value) }),
  });
  sort.append(...Object.entries(SORTS).map(([value, name]) => createElement("option", { value }, name)));
  const filter = createElement("select", {
    "aria-label": "Label of the findings",
    onchange: () => change({ label: filter.value === "" ? null : Number(filter.value) }),
  });
  const group = createButton("Group", () => change({ isGrouped: !store.get().list.isGrouped }), {
    title: "Group the findings by their label",
  });
  const node = createElement("div", { class: "mv-order" }, sort, filter, group);
  let options = "";
  const update = () => {
    const state = store.get();
    setVisible(node, state.findings.length > FEW);
    const present = [...new Set(state.findings.map((finding) => listedLabelOf(state, finding)))].sort((a, b) => a - b);
    const names = present.map((label) => [String(label), state.labels[label]?.name ?? `label ${label}`]);
    const content = JSON.stringify(names);
    if (content !== options) {
      options = content;
      const entries = [["", "All labels"], ...names];
      filter.replaceChildren(...entries.map(([value, name]) => createElement("option", { value }, name)));
    }
    sort.value = state.list.sort;
    filter.value = String(state.list.label ?? "");
    setPressed(group, state.list.isGrouped);
  };
  return { node, update };
}
