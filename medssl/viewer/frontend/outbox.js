// @ts-check
// Outbox: keeps the reader's acts in order until the server has stored them, also over a closed tab and a restart.
/** @import { Answer, NumberedEvent, Refusal, ReviewEvent } from "./types" */

const FIRST_RETRY_MS = 3000;
const LONGEST_RETRY_MS = 15000;
const PREFIX = "medssl-outbox-";
/** Kinds of events that change nothing in the record: they are not worth keeping over a reload. */
const FLEETING = ["select", "next", "deliver"];

/** @param {{ client: string, seq: number }} event */
export function eventId({ client, seq }) {
  return `${client}-${seq}`;
}

/** @param {{ kind: string }} event */
export function isLasting({ kind }) {
  return !FLEETING.includes(kind);
}

export class Outbox {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #retryMs = FIRST_RETRY_MS;
  #folder;
  #send;
  #onChange;
  /** @type {NumberedEvent[]} in the order in which the server is to store them */
  pending = [];
  /** @type {Refusal | null} the event that the server refused; it and those behind it wait for the reader */
  refusal = null;
  /** Whether the browser keeps the pending events over a closed tab. */
  isKept = true;
  #seq = 0;

  /**
   * @param {string} key name of the case, which separates readers and event logs too
   * @param {(events: NumberedEvent[]) => void} send
   * @param {(outbox: Outbox) => void} onChange
   */
  constructor(key, send, onChange) {
    this.#folder = `${PREFIX}${key}/`;
    this.#send = send;
    this.#onChange = onChange;
    // One identity per page load: a duplicated tab must not use the numbers of the first.
    this.client = createIdentity();
    this.pending = listStoredNames(this.#folder)
      .flatMap(readStored)
      .sort((a, b) => (a.client === b.client ? 0 : a.at < b.at ? -1 : 1));
    if (this.pending.length) this.flush();
  }

  /** The pending events that change the record. */
  get waiting() {
    return this.pending.filter(isLasting);
  }

  /**
   * Numbers an event, keeps it, and sends all pending events in order. Returns the numbered event.
   * @param {ReviewEvent} event
   */
  add(event) {
    if (event.kind === "select") this.pending = this.pending.filter((other) => other.kind !== "select");
    return this.addAll([event])[0];
  }

  /**
   * Numbers several events, keeps them, and sends all pending events together. Returns the numbered events.
   * @param {ReviewEvent[]} events
   */
  addAll(events) {
    const numbered = events.map((event) => this.#number(event));
    this.pending.push(...numbered);
    this.#write();
    if (!this.refusal) this.flush();
    return numbered;
  }

  /**
   * Adds an event before the refused one, which is then tried again: to reopen a reading, for example.
   * @param {ReviewEvent} event
   */
  addFirst(event) {
    const numbered = this.#number(event);
    this.pending.unshift(numbered);
    this.#write();
    this.retry();
    return numbered;
  }

  /**
   * Follows the answer of the server: removes what it has stored, and stops at what it refuses.
   * @param {Answer} answer
   */
  receive({ acked, refused }) {
    const stored = new Set(acked);
    this.#remove((event) => stored.has(eventId(event)));
    const isPending = this.pending.some((event) => eventId(event) === refused?.id);
    this.refusal = isPending ? refused : null;
    if (!this.pending.length || this.refusal) clearTimeout(this.#timer);
    this.#onChange(this);
  }

  /** Sends the refused event and those behind it again. */
  retry() {
    this.refusal = null;
    this.flush();
  }

  /** Gives up the refused event, and what would take it back. Returns the events that were given up. */
  discard() {
    const id = this.refusal?.id;
    const refused = this.pending.find((event) => eventId(event) === id);
    if (!refused) return [];
    const isPart = (/** @type {NumberedEvent} */ event) =>
      event === refused || (event.kind === "undo" && event.of === refused.seq && event.of_client === refused.client);
    const discarded = this.pending.filter(isPart);
    this.#remove(isPart);
    this.retry();
    return discarded;
  }

  /** Sends all pending events, unless the reader has to decide about one first. */
  flush() {
    clearTimeout(this.#timer);
    if (this.refusal) return;
    this.#send(this.pending);
    this.#onChange(this);
    this.#timer = setTimeout(() => this.#resend(), this.#retryMs);
  }

  /** Sends all pending events at once, as to a server that has just been restarted. */
  wake() {
    this.#retryMs = FIRST_RETRY_MS;
    if (this.pending.length) this.flush();
  }

  close() {
    clearTimeout(this.#timer);
  }

  /** @param {ReviewEvent} event */
  #number(event) {
    return { client: this.client, seq: ++this.#seq, at: new Date().toISOString(), ...event };
  }

  #resend() {
    if (!this.pending.length) return;
    this.#retryMs = Math.min(LONGEST_RETRY_MS, this.#retryMs * 1.5);
    this.flush();
  }

  /** @param {(event: NumberedEvent) => boolean} isDone */
  #remove(isDone) {
    const done = this.pending.filter(isDone);
    if (!done.length) return;
    this.#retryMs = FIRST_RETRY_MS;
    this.pending = this.pending.filter((event) => !isDone(event));
    this.#write();
    for (const client of new Set(done.map((event) => event.client))) {
      // Another tab may still add to its own list.
      if (client !== this.client) writeStored(this.#folder + client, (events) => events.filter((e) => !isDone(e)));
    }
  }

  #write() {
    this.isKept = writeStored(this.#folder + this.client, () =>
      this.pending.filter((event) => event.client === this.client && isLasting(event)),
    );
    this.#onChange(this);
  }
}

/**
 * Returns the keys of all cases with events that wait in this browser.
 * @param {string} start of the keys
 */
export function listWaitingCases(start) {
  const names = listStoredNames(PREFIX + start).filter((name) => readStored(name).length);
  return [...new Set(names.map((name) => name.slice(PREFIX.length, name.lastIndexOf("/"))))];
}

/** @param {string} start */
function listStoredNames(start) {
  try {
    return Array.from({ length: localStorage.length }, (_, n) => localStorage.key(n) ?? "").filter((name) =>
      name.startsWith(start),
    );
  } catch {
    return []; // the storage is forbidden
  }
}

/**
 * @param {string} name
 * @returns {NumberedEvent[]}
 */
function readStored(name) {
  try {
    const events = JSON.parse(localStorage.getItem(name) ?? "[]");
    return Array.isArray(events) ? events : [];
  } catch {
    return [];
  }
}

/**
 * Changes the events of one page in the storage of the browser. Returns whether it could.
 * @param {string} name
 * @param {(events: NumberedEvent[]) => NumberedEvent[]} change
 */
function writeStored(name, change) {
  const events = change(readStored(name));
  try {
    if (events.length) localStorage.setItem(name, JSON.stringify(events));
    else localStorage.removeItem(name);
    return true;
  } catch {
    return !events.length; // the storage is full or forbidden: the events wait in memory, and the reader is told so
  }
}

// crypto.randomUUID needs a secure context; a reading room's plain http address is none.
function createIdentity() {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
