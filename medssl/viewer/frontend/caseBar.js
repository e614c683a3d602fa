// @ts-check
// Case bar: the acts on the whole case, which wait in line behind all others, and what became of a refused act.
import { createButton, createElement, setText, setVisible } from "./dom.js";
import { describeEvent } from "./pendingActs.js";
import { decisionOf } from "./state.js";
/** @import { Commands, Panel, ViewerState } from "./types" */
/** @import { Store } from "./store.js" */

/**
 * @param {Store<ViewerState>} store
 * @param {Pick<Commands, "sign" | "reopenReading" | "deliver" | "nextCase" | "retryRefused" | "discardRefused">} commands
 * @returns {Panel}
 */
export function createCaseBar(store, commands) {
  const message = createElement("span", { class: "mv-refused", role: "alert" });
  const retry = createButton("Try again", () => commands.retryRefused());
  const discard = createButton("Discard it", () => commands.discardRefused(), {
    title: "Gives the change up; it will not be stored",
  });
  const elsewhere = createElement("span", { class: "mv-elsewhere", role: "status" });
  const deliver = createButton("Export", () => commands.deliver(), { class: "mv-whole" });
  const download = createElement("a", { class: "mv-whole", download: true }, "Download");
  const reopen = createButton("Reopen", () => commands.reopenReading(), { class: "mv-whole" });
  const next = createButton("Next case", () => commands.nextCase(), { class: "mv-whole mv-main" });
  const sign = createButton("Sign off", () => commands.sign(), { class: "mv-whole" });
  const gap = createElement("span", { class: "mv-gap" });
  const node = createElement("div", { class: "mv-case" });
  node.append(message, retry, discard, elsewhere, gap, deliver, download, reopen, next, sign);
  const update = () => {
    const state = store.get();
    const { caseStatus, refused, hasSibling } = state;
    setVisible(node, caseStatus || refused);
    for (const part of [message, retry, discard]) setVisible(part, refused);
    if (refused) {
      const behind = state.unsavedEvents - 1;
      const others = behind > 0 ? ` ${behind} more wait${behind > 1 ? "" : "s"} behind it.` : "";
      setText(message, `Not stored: ${describeEvent(refused.event)}. ${toSentence(refused.reason)}${others}`);
    }
    setVisible(elsewhere, hasSibling);
    setText(elsewhere, "Open in another window of yours");
    const isSigned = Boolean(caseStatus?.signed_at);
    const waiting = describeWaiting(state);
    disable(sign, findSignObstacle(state));
    sign.classList.toggle("mv-main", !sign.disabled);
    setVisible(sign, caseStatus && !isSigned);
    disable(reopen, state.waitingKinds.includes("reopen") ? "Reopening" : "");
    setVisible(reopen, isSigned);
    disable(next, waiting);
    setVisible(next, isSigned && caseStatus?.has_next);
    const isDelivering = state.waitingKinds.includes("deliver");
    disable(deliver, isDelivering ? "Writing the documents" : waiting);
    setText(deliver, isDelivering ? "Writing …" : "Export");
    setVisible(deliver, caseStatus?.may_deliver && !caseStatus.download_url);
    if (caseStatus?.export_formats && !deliver.disabled) deliver.title = caseStatus.export_formats;
    setVisible(download, caseStatus?.download_url && !waiting);
    if (caseStatus?.download_url) download.href = caseStatus.download_url;
  };
  return { node, update };
}

/**
 * Returns why the reading cannot be signed now; empty if it can. Strokes and verdicts that wait are no reason: the
 * signature is stored after them.
 * @param {ViewerState} state
 */
export function findSignObstacle(state) {
  const { caseStatus, findings, refused, waitingKinds, isMaskCurrent, isMaskUndone } = state;
  const open = findings.filter((finding) => !decisionOf(state, finding)).length;
  if (!caseStatus || caseStatus.signed_at) return "This case is signed";
  if (caseStatus.sign_obstacle) return caseStatus.sign_obstacle;
  if (open) return `${open} finding${open > 1 ? "s have" : " has"} no verdict`;
  if (waitingKinds.includes("sign")) return "Signing";
  if (refused) return "A change was not stored; decide about it first";
  return isMaskCurrent && !isMaskUndone ? "" : "The mask on the screen is being brought up to date";
}

/** @param {ViewerState} state */
function describeWaiting({ unsavedEvents }) {
  return unsavedEvents ? `${unsavedEvents} change${unsavedEvents > 1 ? "s are" : " is"} not saved yet` : "";
}

/**
 * @param {HTMLButtonElement} button
 * @param {string} reason why the button does nothing; empty enables it
 */
function disable(button, reason) {
  Object.assign(button, { disabled: Boolean(reason), title: reason });
}

/** @param {string} text */
function toSentence(text) {
  const sentence = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
}
