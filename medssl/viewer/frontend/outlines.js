// @ts-check
// Outlines: the edges of the labels on a plane.
/** @import { Voxels } from "./volume.js" */

/** @param {Voxels} labels */
export function hasLabels(labels) {
  for (let n = 0; n < labels.length; n++) if (labels[n]) return true;
  return false;
}

/**
 * Traces the edges between each visible label and everything else. Returns one path per label, in voxels from the
 * corner of the plane.
 * @param {Voxels} labels
 * @param {number} width
 * @param {number} height
 * @param {(label: number) => boolean} isVisible
 */
export function traceOutlines(labels, width, height, isVisible) {
  /** @type {Map<number, Path2D>} */
  const paths = new Map();
  /** @type {(x: number, y: number) => number} */
  const labelAt = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : labels[y * width + x]);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const label = labels[y * width + x];
      if (!label || !isVisible(label)) continue;
      const path = paths.get(label) ?? new Path2D();
      paths.set(label, path);
      if (labelAt(x - 1, y) !== label) addEdge(path, x, y, x, y + 1);
      if (labelAt(x + 1, y) !== label) addEdge(path, x + 1, y, x + 1, y + 1);
      if (labelAt(x, y - 1) !== label) addEdge(path, x, y, x + 1, y);
      if (labelAt(x, y + 1) !== label) addEdge(path, x, y + 1, x + 1, y + 1);
    }
  }
  return paths;
}

/**
 * @param {Path2D} path
 * @param {number} x0
 * @param {number} y0
 * @param {number} x1
 * @param {number} y1
 */
function addEdge(path, x0, y0, x1, y1) {
  path.moveTo(x0, y0);
  path.lineTo(x1, y1);
}
