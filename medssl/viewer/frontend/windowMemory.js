// @ts-check
// Window memory: the window that a reader chose for each label, kept in this browser over cases.
/** @import { IntensityWindow, VolumeHeader } from "./types" */

export class WindowMemory {
  #name;

  /** @param {string} reader identity of the reader, the same for all predictions */
  constructor(reader) {
    this.#name = `medssl-windows-${reader}`;
  }

  /**
   * Returns the window that the reader chose last for a label, or null. A preset follows the scan; a window of the
   * reader's own holds for values in HU only, since others differ from scan to scan.
   * @param {VolumeHeader} header
   * @param {string} label name of the label
   * @returns {IntensityWindow | null}
   */
  recall({ unit, windows }, label) {
    const window = this.#read()[`${unit} ${label}`];
    if (!window) return null;
    const preset = windows.find(({ name }) => name === window.name);
    if (preset) return preset;
    const isValid = unit === "HU" && Number.isFinite(window.low) && window.high > window.low;
    return isValid ? window : null;
  }

  /**
   * @param {VolumeHeader} header
   * @param {string} label name of the label
   * @param {IntensityWindow} window
   */
  remember({ unit }, label, window) {
    try {
      localStorage.setItem(this.#name, JSON.stringify({ ...this.#read(), [`${unit} ${label}`]: window }));
    } catch {
      // Without a storage, every case opens with the windows of its labels.
    }
  }

  /** @returns {Record<string, IntensityWindow>} */
  #read() {
    try {
      return JSON.parse(localStorage.getItem(this.#name) ?? "{}") ?? {};
    } catch {
      return {};
    }
  }
}
