// @ts-check
// Assistant: drawn slices and clicks become a proposal of the server, drawn as a ghost until it is kept.
import { findNearestVoxel } from "./geometry.js";
import { shownLabelAt, valueToDraw } from "./state.js";
/** @import { AssistProposal, Notify, Vector, ViewerState } from "./types" */
/** @import { Store } from "./store.js" */
/** @import { Tool } from "./tools.js" */

/** @type {Tool} */
export const ASSIST = {
  name: "Assist",
  hint: "Draw one or more slices before, or click inside the finding, with Ctrl outside; Enter keeps the proposal, Esc drops it",
  drawsLabels: true,
  usesModifier: true,
  begin: ({ markVoxel }, { index, isModified }) => markVoxel(index, !isModified),
  move: ({ markVoxel }, { index, isModified }) => markVoxel(index, !isModified),
  end: ({ requestProposal }) => requestProposal(),
};

export class Assistant {
  #store;
  #notify;
  #finishStroke;
  #getUrl;
  /** Counts the requests, so that a late answer to an earlier one is dropped. */
  #requests = 0;
  /** @type {string | null} the address of the case that the server has prepared */
  #prepared = null;

  /**
   * @param {object} uses
   * @param {Store<ViewerState>} uses.store
   * @param {Notify} uses.notify
   * @param {(tool: string, facts: object) => boolean} uses.finishStroke
   * @param {() => string | null} uses.getUrl the address of the server's proposals; null if it offers none
   */
  constructor({ store, notify, finishStroke, getUrl }) {
    this.#store = store;
    this.#notify = notify;
    this.#finishStroke = finishStroke;
    this.#getUrl = getUrl;
    store.subscribe((changed) => changed.has("tool") && store.get().tool === "assist" && this.#begin());
  }

  /**
   * Adds a voxel to the clicks. One that was marked before keeps the kind of the last click.
   * @param {Vector} index
   * @param {boolean} isInside
   */
  mark(index, isInside) {
    const state = this.#store.get();
    const { overlay } = state;
    if (!overlay) return;
    const offset = overlay.offsetOf(findNearestVoxel(overlay.header, index));
    const { inside, outside } = state.assist ?? createAssist(valueToDraw(state));
    const [same, other] = isInside ? [inside, outside] : [outside, inside];
    if (same.at(-1) === offset) return;
    const clicks = [[...same.filter((n) => n !== offset), offset], other.filter((n) => n !== offset)];
    const [nextInside, nextOutside] = isInside ? clicks : clicks.reverse();
    const assist = state.assist ?? createAssist(valueToDraw(state));
    this.#store.set({ assist: { ...assist, inside: nextInside, outside: nextOutside } });
  }

  /** Asks the server for a proposal that follows the clicks. */
  async request() {
    const url = this.#getUrl();
    const state = this.#store.get();
    const { assist, overlay, label } = state;
    if (!assist || !overlay) return;
    if (!url) return this.#fail("This case offers no proposals.");
    const request = ++this.#requests;
    const stored = listOffsets(overlay.data, assist.value);
    const mask = joinProposal(stored, assist);
    if (!mask.length && !assist.inside.length) return this.#fail("Click inside the finding first.");
    const { inside, outside } = assist;
    const slices = listDrawnSlices(state);
    const body = { label, inside, outside, mask: encodeOffsets(mask), slices };
    this.#store.set({ assist: { ...assist, isBusy: true } });
    try {
      const answer = await fetch(url, { method: "POST", body: JSON.stringify(body) });
      const content = await answer.json();
      const current = this.#store.get().assist;
      if (request !== this.#requests || !current) return;
      if (!answer.ok) throw new Error(content.reason);
      this.#show(current, stored, mask, content);
    } catch (error) {
      if (request === this.#requests) this.#fail(`No proposal: ${/** @type {Error} */ (error).message}.`);
    }
  }

  /** Keeps the proposal as one stroke. */
  accept() {
    const { assist, editor, overlay } = this.#store.get();
    if (!assist || !editor || !overlay || assist.isBusy) return;
    const { added, removed, value, engine, version, inside, outside } = assist;
    const num_slices = listDrawnSlices(this.#store.get()).length;
    this.#store.set({ assist: null });
    const state = this.#store.get();
    editor.beginStroke();
    for (const offset of added) if (!shownLabelAt(state, overlay.data[offset])) editor.setLabel(offset, value);
    for (const offset of removed) if (overlay.data[offset] === value) editor.setLabel(offset, 0);
    const facts = { assist: { engine, version, num_clicks: inside.length + outside.length, num_slices } };
    if (!this.#finishStroke("assist", facts)) this.#notify("The proposal changes nothing.");
  }

  /**
   * @param {AssistProposal} assist
   * @param {number[]} stored
   * @param {number[]} mask that the server started from
   * @param {{ added: [number, number][], removed: [number, number][], engine: string, version: string }} answer
   */
  #show(assist, stored, mask, { added, removed, engine, version }) {
    const state = this.#store.get();
    const { overlay } = state;
    if (!overlay) return;
    const proposed = new Set(mask);
    for (const offset of decodeRuns(added)) proposed.add(offset);
    for (const offset of decodeRuns(removed)) proposed.delete(offset);
    const before = new Set(stored);
    const isFree = (/** @type {number} */ offset) => !before.has(offset) && !shownLabelAt(state, overlay.data[offset]);
    this.#store.set({
      assist: {
        ...assist,
        added: [...proposed].filter(isFree),
        removed: stored.filter((offset) => !proposed.has(offset)),
        isBusy: false,
        engine,
        version,
      },
    });
    this.#notify("Proposal: Enter keeps it, Esc drops it; more clicks correct it.");
  }

  /** @param {string} text */
  #fail(text) {
    const { assist } = this.#store.get();
    if (assist) this.#store.set({ assist: { ...assist, isBusy: false } });
    this.#notify(text);
  }

  /** Prepares for clicks; slices that the reader drew are enough for a proposal. */
  #begin() {
    this.#prepare();
    const state = this.#store.get();
    if (state.assist || !listDrawnSlices(state).length) return;
    this.#store.set({ assist: createAssist(valueToDraw(state)) });
    this.request();
  }

  /** Lets the server read the image, and learn from what was signed, before the first click. */
  #prepare() {
    const url = this.#getUrl();
    if (!url || url === this.#prepared) return;
    this.#prepared = url;
    fetch(url).catch(() => (this.#prepared = null));
  }
}

/**
 * @param {number} value of the voxels of the finding
 * @returns {AssistProposal}
 */
function createAssist(value) {
  return { inside: [], outside: [], added: [], removed: [], value, isBusy: false, engine: "", version: "" };
}

/**
 * Returns the slices in which the reader drew the chosen finding: the axis across each, and its index.
 * @param {ViewerState} state
 * @returns {[number, number][]}
 */
function listDrawnSlices(state) {
  const { editor, overlay } = state;
  return editor && overlay ? editor.listSlices(valueToDraw(state), overlay.header.shape) : [];
}

/**
 * Returns the mask that a proposal shows, in ascending order.
 * @param {number[]} stored
 * @param {AssistProposal} assist
 */
function joinProposal(stored, { added, removed }) {
  const gone = new Set(removed);
  return [...stored.filter((offset) => !gone.has(offset)), ...added].sort((a, b) => a - b);
}

/**
 * @param {ArrayLike<number>} data
 * @param {number} value
 */
function listOffsets(data, value) {
  const offsets = [];
  for (let n = 0; n < data.length; n++) if (data[n] === value) offsets.push(n);
  return offsets;
}

/**
 * Joins neighbouring voxels to runs of first voxel and length.
 * @param {number[]} offsets in ascending order
 */
export function encodeOffsets(offsets) {
  /** @type {[number, number][]} */
  const runs = [];
  for (const offset of offsets) {
    const last = runs[runs.length - 1];
    if (last && offset === last[0] + last[1]) last[1]++;
    else runs.push([offset, 1]);
  }
  return runs;
}

/** @param {[number, number][]} runs */
function decodeRuns(runs) {
  return runs.flatMap(([start, length]) => Array.from({ length }, (_, n) => start + n));
}
