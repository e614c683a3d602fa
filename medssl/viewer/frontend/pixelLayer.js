// @ts-check
// Pixel layer: a picture with one pixel per voxel.
import { createElement, getContext } from "./dom.js";
import { ZERO } from "./volume.js";
/** @import { Voxels } from "./volume.js" */

export class PixelLayer {
  canvas = createElement("canvas");
  #picture = new ImageData(1, 1);
  #pixels = new Uint32Array(this.#picture.data.buffer);

  /**
   * Paints the values through a table of colours; rows that are not loaded stay transparent.
   * @param {Voxels} values
   * @param {number} width
   * @param {number} height
   * @param {Uint32Array} table
   * @param {Uint8Array} loadedRows
   */
  paint(values, width, height, table, loadedRows) {
    const { canvas } = this;
    if (this.#pixels.length !== width * height || canvas.width !== width || canvas.height !== height) {
      Object.assign(canvas, { width, height });
      this.#picture = new ImageData(width, height);
      this.#pixels = new Uint32Array(this.#picture.data.buffer);
    }
    const pixels = this.#pixels;
    for (let n = 0; n < pixels.length; n++) pixels[n] = table[values[n] + ZERO];
    for (let row = 0; row < height; row++) if (!loadedRows[row]) pixels.fill(0, row * width, (row + 1) * width);
    getContext(canvas).putImageData(this.#picture, 0, 0);
  }
}
