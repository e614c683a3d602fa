// @ts-check
// Presence: tells the server that the reader is at work, and other windows of this browser what this one has changed.

/** Reports that the reader uses the page, at most once in an interval. */
export class Activity {
  #isActive = false;
  #onUse = () => {
    this.#isActive = true;
  };
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;
  #seconds = 0;
  #report;

  /** @param {() => void} report */
  constructor(report) {
    this.#report = report;
    for (const kind of ["pointermove", "pointerdown", "wheel", "keydown"]) {
      window.addEventListener(kind, this.#onUse, { capture: true, passive: true });
    }
  }

  /** @param {number} seconds between two reports; 0 reports nothing */
  setInterval(seconds) {
    if (seconds === this.#seconds) return;
    this.#seconds = seconds;
    clearInterval(this.#timer);
    if (!seconds) return;
    this.#timer = setInterval(() => {
      if (this.#isActive) this.#report();
      this.#isActive = false;
    }, seconds * 1000);
  }

  close() {
    clearInterval(this.#timer);
    for (const kind of ["pointermove", "pointerdown", "wheel", "keydown"]) {
      window.removeEventListener(kind, this.#onUse, { capture: true });
    }
  }
}

/** Knows the other windows in which the same reader has the same case open. */
export class Siblings {
  #channel;
  #name;
  /** @type {Set<string>} */
  #others = new Set();

  /**
   * @param {string} key of the case
   * @param {string} name of this window
   * @param {(hasOthers: boolean) => void} onChange
   * @param {() => void} onRecord called when another window has changed the record
   */
  constructor(key, name, onChange, onRecord) {
    this.#name = name;
    this.#channel = new BroadcastChannel(`medssl-${key}`);
    this.#channel.onmessage = ({ data: { from, kind } }) => {
      if (kind === "bye") this.#others.delete(from);
      else this.#others.add(from);
      if (kind === "hello") this.#post("here");
      if (kind === "record") onRecord();
      onChange(this.#others.size > 0);
    };
    this.#post("hello");
  }

  /** Tells the other windows that the record has changed. */
  reportRecord() {
    this.#post("record");
  }

  close() {
    this.#post("bye");
    this.#channel.close();
  }

  /** @param {"hello" | "here" | "record" | "bye"} kind */
  #post(kind) {
    this.#channel.postMessage({ from: this.#name, kind });
  }
}
