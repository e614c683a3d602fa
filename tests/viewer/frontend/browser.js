// What the modules use of a browser: storages and random numbers.
import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto;

/** Gives the modules empty storages; `isFull` refuses every write. */
export function resetStorages({ isFull = false } = {}) {
  for (const name of ["localStorage", "sessionStorage"]) globalThis[name] = createStorage(isFull);
}

function createStorage(isFull) {
  const values = new Map();
  return {
    get length() {
      return values.size;
    },
    key: (n) => [...values.keys()][n] ?? null,
    getItem: (key) => values.get(key) ?? null,
    removeItem: (key) => values.delete(key),
    setItem(key, value) {
      if (isFull) throw new Error("full");
      values.set(key, value);
    },
  };
}
