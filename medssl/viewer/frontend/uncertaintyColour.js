// @ts-check
// Uncertainty colours: a colour scale that grows denser and lighter with the uncertainty of the model.
import { TABLE_SIZE, ZERO } from "./volume.js";
/** @import { ViewerState } from "./types" */
/** @import { RemoteVolume } from "./volume.js" */

const COLOURS = [
  [70, 40, 150, 0],
  [150, 50, 190, 110],
  [255, 80, 150, 170],
  [255, 240, 190, 215],
]; // violet, pink, cream
const LOWEST_DRAWN = 0.05;
const STORED_TABLE = buildUncertaintyTable((share) => share);
// The variance of the confidence, 4p(1-p), for models that stored no uncertainty.
const DERIVED_TABLE = buildUncertaintyTable((share) => 4 * share * (1 - share));

/**
 * Returns the volume and the colours that show the uncertainty, or null if it is off or the model gave none.
 * @param {Pick<ViewerState, "uncertaintyVisible" | "uncertainty" | "probability">} state
 * @returns {{ volume: RemoteVolume, table: Uint32Array } | null}
 */
export function chooseUncertaintyLayer({ uncertaintyVisible, uncertainty, probability }) {
  if (!uncertaintyVisible) return null;
  if (uncertainty) return { volume: uncertainty, table: STORED_TABLE };
  return probability ? { volume: probability, table: DERIVED_TABLE } : null;
}

/**
 * Builds the table from stored bytes to colours; what is nearly certain stays transparent.
 * @param {(share: number) => number} toUncertainty from the stored value to the uncertainty, both from 0 to 1
 */
export function buildUncertaintyTable(toUncertainty) {
  const table = new Uint32Array(TABLE_SIZE);
  for (let byte = 0; byte < 256; byte++) {
    const share = toUncertainty(byte / 255);
    const [red, green, blue, alpha] = interpolateColour(share);
    if (share >= LOWEST_DRAWN) table[byte + ZERO] = ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  }
  return table;
}

/**
 * Returns [red, green, blue, alpha] for an uncertainty from 0 to 1.
 * @param {number} share
 */
export function interpolateColour(share) {
  const position = share * (COLOURS.length - 1);
  const from = Math.min(COLOURS.length - 2, Math.floor(position));
  return COLOURS[from].map((low, n) => Math.round(low + (COLOURS[from + 1][n] - low) * (position - from)));
}
