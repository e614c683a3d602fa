// @ts-check
// Act history: what the reader did in this tab, also before a reload, so that undo takes back the reader's own last act.

/** @typedef {{ client: string, seq: number, kind: string, finding: string }} PastAct */
const KINDS = ["verdict", "measure", "stroke", "missed"];
const LONGEST = 500;

export class ActHistory {
  #name;
  /** @type {PastAct[]} */
  #acts;

  /** @param {string} key name of the case */
  constructor(key) {
    this.#name = `medssl-acts-${key}`;
    this.#acts = this.#read();
  }

  /** @param {{ client: string, seq: number, kind: string, finding?: unknown }} event */
  add({ client, seq, kind, finding }) {
    if (!KINDS.includes(kind)) return;
    this.#acts = [...this.#acts, { client, seq, kind, finding: String(finding ?? "") }].slice(-LONGEST);
    this.#write();
  }

  /**
   * Returns the reader's last act in this tab that can be taken back, or null.
   * @param {(act: PastAct) => boolean} isUndoable
   */
  findLast(isUndoable) {
    return this.#acts.findLast(isUndoable) ?? null;
  }

  /** @param {PastAct} act */
  remove(act) {
    this.#acts = this.#acts.filter((other) => other.client !== act.client || other.seq !== act.seq);
    this.#write();
  }

  /** @returns {PastAct[]} */
  #read() {
    try {
      const acts = JSON.parse(sessionStorage.getItem(this.#name) ?? "[]");
      return Array.isArray(acts) ? acts : [];
    } catch {
      return [];
    }
  }

  #write() {
    try {
      sessionStorage.setItem(this.#name, JSON.stringify(this.#acts));
    } catch {
      // Without a storage, undo forgets at a reload.
    }
  }
}
