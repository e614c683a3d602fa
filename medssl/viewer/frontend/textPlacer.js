// @ts-check
// Text placer: puts the lengths of measured lines beyond the ends of the lines, where they cover nothing else.
/** @import { Vector } from "./types" */
/** @typedef {{ left: number, right: number, top: number, bottom: number }} Box */

const MAX_STEPS = 12;

export class TextPlacer {
  #width;
  #height;
  /** @type {Box[]} */
  #texts = [];
  /** @type {Vector[][]} */
  #lines = [];

  /** @param {{ width: number, height: number }} canvas */
  constructor({ width, height }) {
    this.#width = width;
    this.#height = height;
  }

  /** @param {Vector[]} ends of a line that no text may cover */
  addLine(ends) {
    this.#lines.push(ends);
  }

  /**
   * Returns the centre of the text of a line, beyond its second end or its first one, farther out where that place is
   * taken. The place counts as taken from then on.
   * @param {Vector[]} ends
   * @param {Vector} size width and height of the text
   * @param {number} gap between the end and the text
   * @returns {Vector}
   */
  place([from, to], [width, height], gap) {
    const length = Math.hypot(to[0] - from[0], to[1] - from[1]) || 1;
    const way = [(to[0] - from[0]) / length, (to[1] - from[1]) / length];
    const reach = Math.min(width / 2 / Math.abs(way[0] || 1e-9), height / 2 / Math.abs(way[1] || 1e-9));
    /** @type {(end: Vector, sign: number, step: number) => Vector} */
    const locate = ([x, y], sign, step) => {
      const far = sign * (gap + reach + (step * height) / 2);
      return [x + way[0] * far, y + way[1] * far];
    };
    const candidates = Array.from({ length: MAX_STEPS }, (_, n) => [locate(to, 1, n), locate(from, -1, n)]).flat();
    const centre = candidates.find((c) => this.#isFree(makeBox(c, width, height))) ?? candidates[0];
    this.#texts.push(makeBox(centre, width, height));
    return centre;
  }

  /** @param {Box} box */
  #isFree(box) {
    const isInside = box.left >= 0 && box.top >= 0 && box.right <= this.#width && box.bottom <= this.#height;
    return isInside && !this.#texts.some((other) => overlap(box, other)) && !this.#lines.some((l) => crosses(l, box));
  }
}

/**
 * @param {Vector} centre
 * @param {number} width
 * @param {number} height
 * @returns {Box}
 */
function makeBox([x, y], width, height) {
  return { left: x - width / 2, right: x + width / 2, top: y - height / 2, bottom: y + height / 2 };
}

/**
 * @param {Box} a
 * @param {Box} b
 */
function overlap(a, b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

/**
 * Returns whether a line runs through a box: clips the line to the box along both axes.
 * @param {Vector[]} ends
 * @param {Box} box
 */
function crosses([[x0, y0], [x1, y1]], { left, right, top, bottom }) {
  let [first, last] = [0, 1];
  for (const [start, way, low, high] of [
    [x0, x1 - x0, left, right],
    [y0, y1 - y0, top, bottom],
  ]) {
    if (way === 0) {
      if (start < low || start > high) return false;
    } else {
      const [a, b] = [(low - start) / way, (high - start) / way];
      first = Math.max(first, Math.min(a, b));
      last = Math.min(last, Math.max(a, b));
    }
  }
  return first <= last;
}
