// @ts-check
// Outbox: keeps the reader's events, also over a reload or a restart of the server, until the server has stored them.
/** @import { NumberedEvent, ReviewEvent } from "./types" */

const FIRST_RETRY_MS = 3000;
const LONGEST_RETRY_MS = 15000;

export class Outbox {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #retryMs = FIRST_RETRY_MS;
  #storageKey;
  #send;
  #onChange;

  /**
   * @param {string} key name of the case; each case has events of its own
   * @param {number} ackedSeq number of the last event that the server has stored
   * @param {(events: NumberedEvent[]) => void} send
   * @param {(outbox: Outbox) => void} onChange
   */
  constructor(key, ackedSeq, send, onChange) {
    this.#storageKey = `medssl-outbox-${key}`;
    this.#send = send;
    this.#onChange = onChange;
    const stored = this.#read();
    // One identity per page load: a duplicated tab inherits the stored events, but must not share their numbers.
    this.client = createIdentity();
    /** @type {NumberedEvent[]} */
    this.pending = stored.pending ?? [];
    this.lastSeq = Math.max(ackedSeq, stored.last ?? 0);
    this.acknowledge(ackedSeq);
    if (this.pending.length) this.flush();
  }

  /**
   * Numbers an event, keeps it, and sends all pending events in order. Returns the number.
   * @param {ReviewEvent} event
   */
  add(event) {
    if (event.kind === "select") this.pending = this.pending.filter((other) => other.kind !== "select");
    const numbered = { client: this.client, seq: ++this.lastSeq, at: new Date().toISOString(), ...event };
    this.pending.push(numbered);
    this.#write();
    this.flush();
    return numbered.seq;
  }

  /**
   * Removes the events that the server has stored.
   * @param {number} seq number of the last of them
   */
  acknowledge(seq) {
    const count = this.pending.length;
    this.pending = this.pending.filter((event) => event.seq > seq);
    this.lastSeq = Math.max(this.lastSeq, seq);
    if (this.pending.length < count) this.#retryMs = FIRST_RETRY_MS;
    if (!this.pending.length) clearTimeout(this.#timer);
    this.#write();
  }

  flush() {
    clearTimeout(this.#timer);
    this.#send(this.pending);
    this.#onChange(this);
    this.#timer = setTimeout(() => this.#retry(), this.#retryMs);
  }

  close() {
    clearTimeout(this.#timer);
  }

  #retry() {
    if (!this.pending.length) return;
    this.#retryMs = Math.min(LONGEST_RETRY_MS, this.#retryMs * 1.5);
    this.flush();
  }

  /** @returns {{ pending?: NumberedEvent[], last?: number }} */
  #read() {
    try {
      return JSON.parse(sessionStorage.getItem(this.#storageKey) ?? "{}") ?? {};
    } catch {
      return {};
    }
  }

  #write() {
    try {
      sessionStorage.setItem(this.#storageKey, JSON.stringify({ last: this.lastSeq, pending: this.pending }));
    } catch {
      // The storage is full or forbidden: the events still wait in memory, and leaving the page still warns.
    }
    this.#onChange(this);
  }
}

// crypto.randomUUID needs a secure context; a reading room's plain http address is none.
function createIdentity() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
