// @ts-check
// Pending acts: what the screen shows of the acts that the server has not stored yet.
import { eventId } from "./outbox.js";
/** @import { Axes, NumberedEvent, PendingAxes, PendingVerdict, Run } from "./types" */
/** @typedef {{ id: string, runs: Run[], finding: string | null }} PendingStroke */

/**
 * Returns the verdicts, axes and strokes that follow from pending events, in order.
 * @param {NumberedEvent[]} events
 */
export function summarizePending(events) {
  /** @type {Record<string, PendingVerdict>} */
  const verdicts = {};
  /** @type {Record<string, PendingAxes>} */
  const axes = {};
  /** @type {PendingStroke[]} */
  let strokes = [];
  /** @type {string[]} stored strokes that are being taken back */
  const undone = [];
  /** @type {string[]} findings that are being added, as the server will name them */
  let added = [];
  for (const event of events) {
    const finding = /** @type {string} */ (event.finding);
    if (event.kind === "verdict") {
      verdicts[finding] = {
        decision: /** @type {string} */ (event.decision),
        label: /** @type {number | undefined} */ (event.label),
      };
    } else if (event.kind === "measure") {
      axes[finding] = { axes: /** @type {Axes} */ (/** @type {unknown} */ (event)) };
    } else if (event.kind === "missed") {
      added.push(nameAdded(event.client, event.seq));
    } else if (event.kind === "stroke") {
      strokes.push({ id: eventId(event), runs: /** @type {Run[]} */ (event.runs), finding: finding ?? null });
    } else if (event.kind === "undo") {
      const id = `${event.of_client}-${event.of}`;
      if (event.undoes === "verdict") verdicts[finding] = { decision: null };
      else if (event.undoes === "measure") axes[finding] = { axes: null };
      else if (event.undoes === "missed") added = added.filter((name) => name !== nameAdded(event.of_client, event.of));
      else if (event.undoes === "stroke") {
        if (!strokes.some((stroke) => stroke.id === id)) undone.push(id);
        strokes = strokes.filter((stroke) => stroke.id !== id);
      }
    }
  }
  return { verdicts, axes, strokes, undone, added };
}

/**
 * @param {unknown} client
 * @param {unknown} seq
 */
function nameAdded(client, seq) {
  return `reader-${String(client).slice(0, 8)}-${seq}`;
}

const NAMES = {
  verdict: "verdict",
  missed: "added finding",
  measure: "measurement",
  stroke: "stroke",
  undo: "undo",
  sign: "sign-off",
  reopen: "reopening",
  deliver: "export",
};

/**
 * Names an event for the reader.
 * @param {NumberedEvent} event
 */
export function describeEvent(event) {
  const name = NAMES[/** @type {keyof typeof NAMES} */ (event.kind)] ?? event.kind;
  return `${name} of ${new Date(event.at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`;
}
