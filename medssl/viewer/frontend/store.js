// @ts-check
// Typed store: holds the values that the viewer shows, and reports changes of them to subscribers.

/**
 * @template {object} T
 * @typedef {(changed: ReadonlySet<keyof T>) => void} Listener
 */

/** @template {object} T */
export class Store {
  /** @type {Readonly<T>} */
  #values;
  /** @type {Set<Listener<T>>} */
  #listeners = new Set();

  /** @param {T} initial */
  constructor(initial) {
    this.#values = { ...initial };
  }

  /**
   * Returns the current values. A later `set` does not change the returned object.
   * @returns {Readonly<T>}
   */
  get() {
    return this.#values;
  }

  /**
   * Changes some values, and calls the subscribers if at least one is not the same as before.
   * @param {Partial<T>} changes
   */
  set(changes) {
    const keys = /** @type {(keyof T)[]} */ (Object.keys(changes));
    const changed = new Set(keys.filter((key) => !Object.is(changes[key], this.get()[key])));
    if (!changed.size) return;
    this.#values = { ...this.#values, ...changes };
    for (const listener of [...this.#listeners]) listener(changed);
  }

  /**
   * Calls `listener` with the names of the changed values after each change.
   * @param {Listener<T>} listener
   * @returns {() => void} ends the subscription
   */
  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

/**
 * A store whose values are those of another store, except for some of its own.
 * @template {object} T
 * @extends {Store<T>}
 */
export class DerivedStore extends Store {
  #own;
  #parent;
  /** @type {Readonly<T> | null} */
  #parentValues = null;
  /** @type {Readonly<T> | null} */
  #ownValues = null;
  /** @type {Readonly<T> | null} */
  #merged = null;

  /**
   * @param {Store<T>} parent
   * @param {Partial<T>} own the values that this store holds itself; `set` accepts only these
   */
  constructor(parent, own) {
    super({ ...parent.get(), ...own });
    this.#parent = parent;
    this.#own = /** @type {(keyof T)[]} */ (Object.keys(own));
  }

  /** @override */
  get() {
    const values = super.get();
    const parentValues = this.#parent.get();
    if (!this.#merged || this.#parentValues !== parentValues || this.#ownValues !== values) {
      const own = Object.fromEntries(this.#own.map((key) => [key, values[key]]));
      this.#merged = /** @type {T} */ ({ ...parentValues, ...own });
      this.#parentValues = parentValues;
      this.#ownValues = values;
    }
    return this.#merged;
  }

  /**
   * @override
   * @param {Partial<T>} changes
   */
  set(changes) {
    for (const key of /** @type {(keyof T)[]} */ (Object.keys(changes))) {
      if (!this.#own.includes(key)) throw new Error(`${String(key)} belongs to the parent store: set it there.`);
    }
    super.set(changes);
  }
}

/**
 * Returns the previous value if the next one is equal to it, so that nothing is drawn again without need.
 * @template T
 * @param {T} previous
 * @param {T} next
 */
export function keepEqual(previous, next) {
  return JSON.stringify(previous) === JSON.stringify(next) ? previous : next;
}
