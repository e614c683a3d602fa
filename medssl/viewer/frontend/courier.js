// @ts-check
// Courier: sends the acts that wait in this browser for cases that are not open, and says what became of them.
import { createElement, setText, setVisible } from "./dom.js";
import { Outbox, listWaitingCases } from "./outbox.js";
import { describeEvent } from "./pendingActs.js";
import { STYLESHEET } from "./stylesheet.js";
/** @import { Answer, NumberedEvent, SendTrigger } from "./types" */

/**
 * What the server passes: how the keys of this reader's cases start, and the answers to what was sent last, by the
 * key of the case.
 * @typedef {{ prefix: string, answers: Record<string, Answer & { name: string }> }} CourierData
 */

class Courier {
  /** @type {Map<string, Outbox>} */
  #boxes = new Map();
  #isSending = false;

  /**
   * @param {Element} parent
   * @param {SendTrigger} send
   */
  constructor(parent, send) {
    this.send = send;
    this.node = createElement("div", { class: "mv-courier", role: "status", hidden: true });
    this.root = createElement("div", {}, createElement("style", {}, STYLESHEET), this.node);
    parent.append(this.root);
  }

  /** @param {CourierData} data */
  update({ prefix, answers }) {
    for (const [key, { pending }] of this.#boxes) if (!pending.length) this.#forget(key);
    for (const key of listWaitingCases(prefix)) {
      if (!this.#boxes.has(key)) {
        this.#boxes.set(key, new Outbox(key, () => this.#schedule(), () => {})); // prettier-ignore
      }
    }
    for (const [key, box] of this.#boxes) {
      if (answers[key]) box.receive(answers[key]);
    }
    this.#show(answers);
  }

  close() {
    for (const key of [...this.#boxes.keys()]) this.#forget(key);
    this.root.remove();
  }

  // The boxes of several cases send together: a trigger holds one value.
  #schedule() {
    if (this.#isSending) return;
    this.#isSending = true;
    queueMicrotask(() => {
      this.#isSending = false;
      /** @type {Record<string, NumberedEvent[]>} */
      const events = {};
      for (const [key, { pending, refusal }] of this.#boxes) if (pending.length && !refusal) events[key] = pending;
      if (Object.keys(events).length) this.send("events", events);
    });
  }

  /** @param {string} key */
  #forget(key) {
    this.#boxes.get(key)?.close();
    this.#boxes.delete(key);
  }

  /** @param {CourierData["answers"]} answers */
  #show(answers) {
    const lines = [...this.#boxes].flatMap(([key, { pending, refusal }]) => {
      const event = pending.find(({ client, seq }) => `${client}-${seq}` === refusal?.id);
      const name = answers[key]?.name ?? "another case";
      if (event && refusal) {
        return [
          `Not stored for ${name}: ${describeEvent(event)}, ${refusal.reason}. Open the case to decide about it.`,
        ];
      }
      return pending.length ? [`Saving ${pending.length} for ${name}`] : [];
    });
    setText(this.node, lines.join("\n"));
    setVisible(this.node, lines.length);
  }
}

/** @type {WeakMap<Element, Courier>} */
const couriers = new WeakMap();

/**
 * Sends what waits. Streamlit calls this after every run of the page.
 * @param {{ data: CourierData, parentElement: Element, setTriggerValue: SendTrigger }} component
 * @returns {() => void}
 */
export default function mount({ data, parentElement, setTriggerValue }) {
  const courier = couriers.get(parentElement) ?? new Courier(parentElement, setTriggerValue);
  couriers.set(parentElement, courier);
  courier.send = setTriggerValue;
  courier.update(data);
  return () => {
    courier.close();
    couriers.delete(parentElement);
  };
}
