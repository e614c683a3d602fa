// Outbox: what the reader did stays here, also over a reload or a restarted server, until the server has stored it.

const AGAIN_MS = 3000;
const MOST_MS = 15000;

export class Outbox {
  constructor(key, acked, send, changed) {
    this.place = `medssl-outbox-${key}`;
    this.send = send;
    this.changed = changed;
    const kept = this.read();
    this.client = identity(); // of this page load: a duplicated tab inherits the store, but must not share its numbers
    this.pending = kept.pending ?? [];
    this.last = Math.max(acked, kept.last ?? 0);
    this.wait = AGAIN_MS;
    this.ack(acked);
    if (this.pending.length) this.flush();
  }

  get waiting() {
    return this.pending.length;
  }

  // Numbers an event, keeps it and sends everything that waits, in order.
  add(event) {
    if (event.kind === "select") this.pending = this.pending.filter((other) => other.kind !== "select");
    const numbered = { client: this.client, seq: ++this.last, at: new Date().toISOString(), ...event };
    this.pending.push(numbered);
    this.write();
    this.flush();
    return numbered.seq;
  }

  // The server has stored every event up to here.
  ack(seq) {
    const before = this.pending.length;
    this.pending = this.pending.filter((event) => event.seq > seq);
    this.last = Math.max(this.last, seq);
    if (this.pending.length < before) this.wait = AGAIN_MS;
    if (!this.pending.length) clearTimeout(this.timer);
    this.write();
  }

  flush() {
    clearTimeout(this.timer);
    this.send(this.pending);
    this.changed();
    this.timer = setTimeout(() => this.again(), this.wait);
  }

  again() {
    if (!this.pending.length) return;
    this.wait = Math.min(MOST_MS, this.wait * 1.5);
    this.flush();
  }

  close() {
    clearTimeout(this.timer);
  }

  read() {
    try {
      return JSON.parse(sessionStorage.getItem(this.place)) ?? {};
    } catch {
      return {};
    }
  }

  write() {
    const { last, pending } = this;
    try {
      sessionStorage.setItem(this.place, JSON.stringify({ last, pending }));
    } catch {
      // A full or forbidden store: the events still wait in memory, and leaving the page still warns.
    }
    this.changed();
  }
}

// crypto.randomUUID needs a secure context; a reading room's plain http address is none.
function identity() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
