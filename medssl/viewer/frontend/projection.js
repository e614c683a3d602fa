// @ts-check
// Projection: joins the slices of a slab around the crosshair by their largest, smallest or mean value.
import { PLANES } from "./geometry.js";
import { cutPlane } from "./volume.js";
/** @import { Plane, Projection, VolumeHeader } from "./types" */
/** @import { RemoteVolume, Voxels } from "./volume.js" */

/**
 * Returns the first and the last slice of the slab around a slice.
 * @param {Pick<VolumeHeader, "shape" | "spacing_mm">} header
 * @param {Plane} plane
 * @param {number} index
 * @param {Projection} projection
 */
export function findSlab({ shape, spacing_mm }, plane, index, { slab_mm }) {
  const { across } = PLANES[plane];
  const count = Math.max(1, Math.round(slab_mm / spacing_mm[across]));
  const first = index - Math.floor((count - 1) / 2);
  return [Math.max(0, first), Math.min(shape[across] - 1, first + count - 1)];
}

/**
 * Computes the projection of a slab into `out`, in the order of the screen.
 * @param {Pick<RemoteVolume, "data" | "header">} volume
 * @param {Plane} plane
 * @param {number} index
 * @param {Projection} projection
 * @param {Voxels} out
 */
export function projectSlab({ data, header }, plane, index, projection, out) {
  const [first, last] = findSlab(header, plane, index, projection);
  cutPlane(data, header.shape, plane, first, out);
  if (first === last) return out;
  const sums = projection.kind === "mean" ? Float64Array.from(out) : null;
  const slice = out.slice();
  for (let n = first + 1; n <= last; n++) {
    cutPlane(data, header.shape, plane, n, slice);
    if (sums) for (let p = 0; p < out.length; p++) sums[p] += slice[p];
    else if (projection.kind === "MIP") for (let p = 0; p < out.length; p++) out[p] = Math.max(out[p], slice[p]);
    else for (let p = 0; p < out.length; p++) out[p] = Math.min(out[p], slice[p]);
  }
  if (sums) for (let p = 0; p < out.length; p++) out[p] = Math.round(sums[p] / (last - first + 1));
  return out;
}
