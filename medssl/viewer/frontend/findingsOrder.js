// @ts-check
// Findings order: the findings that the list shows, filtered, sorted and grouped, in the order in which keys visit them.
import { shownLabelOf } from "./state.js";
/** @import { Finding, ListSettings, ViewerState } from "./types" */
/** @typedef {Pick<ViewerState, "findings" | "pendingVerdicts" | "list">} ListState */

export const SORTS = /** @type {Record<ListSettings["sort"], string>} */ ({
  given: "As given",
  size: "Largest first",
  score: "Highest score first",
  head: "Head to foot",
});

/** @type {Record<Exclude<ListSettings["sort"], "given">, (finding: Finding) => number>} */
const RANKS = {
  size: ({ volume_ml }) => volume_ml ?? 0,
  score: ({ score }) => score ?? 0,
  head: ({ centre_mm }) => centre_mm[2],
};

/**
 * Returns the label under which the list shows a finding; a rejected one keeps that of the model.
 * @param {Pick<ViewerState, "pendingVerdicts">} state
 * @param {Finding} finding
 */
export function listedLabelOf(state, finding) {
  return shownLabelOf(state, finding) || finding.label;
}

/**
 * Lists the groups of findings in order; without grouping, one group holds all of them.
 * @param {ListState} state
 * @returns {{ label: number | null, findings: Finding[] }[]}
 */
export function groupFindings(state) {
  const { sort, label, isGrouped } = state.list;
  const fitting = state.findings.filter((finding) => label === null || listedLabelOf(state, finding) === label);
  const sorted = sort === "given" ? fitting : fitting.toSorted((a, b) => RANKS[sort](b) - RANKS[sort](a));
  if (!isGrouped) return [{ label, findings: sorted }];
  const labels = [...new Set(sorted.map((finding) => listedLabelOf(state, finding)))].sort((a, b) => a - b);
  return labels.map((group) => ({
    label: group,
    findings: sorted.filter((finding) => listedLabelOf(state, finding) === group),
  }));
}

/**
 * Lists the findings in the order of the list.
 * @param {ListState} state
 */
export function listInOrder(state) {
  return groupFindings(state).flatMap(({ findings }) => findings);
}
