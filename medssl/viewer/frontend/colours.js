// @ts-check
// Colours: CSS colours as numbers, and tables from stored values to pixels.
import { TABLE_SIZE } from "./volume.js";

export function createEmptyTable() {
  return new Uint32Array(TABLE_SIZE);
}

/**
 * Converts any CSS colour to #rrggbb.
 * @param {string} colour
 */
export function toHexColour(colour) {
  if (/^#[0-9a-f]{6}$/.test(colour)) return colour;
  const pen = /** @type {CanvasRenderingContext2D} */ (document.createElement("canvas").getContext("2d"));
  pen.fillStyle = colour;
  return pen.fillStyle;
}

/**
 * Converts a CSS colour to [red, green, blue], each from 0 to 255.
 * @param {string} colour
 */
export function toRgb(colour) {
  const hex = toHexColour(colour);
  return [1, 3, 5].map((n) => parseInt(hex.slice(n, n + 2), 16));
}

/**
 * Converts a CSS colour to the number that an ImageData pixel holds, without alpha.
 * @param {string} colour
 */
export function packColour(colour) {
  const [red, green, blue] = toRgb(colour);
  return (blue << 16) | (green << 8) | red;
}
