// @ts-check
// Drawing: the voxels under a brush, and the closed region around a voxel.
import { PLANES, clamp } from "./geometry.js";
/** @import { Plane, Vector, VolumeHeader } from "./types" */
/** @import { RemoteVolume } from "./volume.js" */

/**
 * Visits every voxel whose middle lies within `radius_mm` of a voxel, in its plane or in all directions, but not those
 * around `previous`, another voxel in the same plane.
 * @param {VolumeHeader} header
 * @param {{ centre: Vector, previous?: Vector | null, radius_mm: number, plane: Plane, isBall: boolean }} brush
 * @param {(offset: number) => void} visit
 */
export function visitBrushVoxels({ shape, spacing_mm }, { centre, previous, radius_mm, plane, isBall }, visit) {
  const reach = spacing_mm.map((mm, axis) =>
    !isBall && axis === PLANES[plane].across ? 0 : Math.floor(radius_mm / mm),
  );
  const [low, high] = [-1, 1].map((sign) => centre.map((x, axis) => clamp(x + sign * reach[axis], 0, shape[axis] - 1)));
  /** @type {(around: Vector, j: number, k: number) => number} */
  const measureLine = (around, j, k) => {
    const y = (j - around[1]) * spacing_mm[1];
    const z = (k - around[2]) * spacing_mm[2];
    const rest = radius_mm * radius_mm + 1e-9 - y * y - z * z;
    return rest < 0 ? -1 : Math.min(reach[0], Math.floor(Math.sqrt(rest) / spacing_mm[0]));
  };
  for (let k = low[2]; k <= high[2]; k++) {
    for (let j = low[1]; j <= high[1]; j++) {
      const start = shape[0] * (j + shape[1] * k);
      const half = measureLine(centre, j, k);
      const [first, last] = [Math.max(centre[0] - half, 0), Math.min(centre[0] + half, shape[0] - 1)];
      const done = previous ? measureLine(previous, j, k) : -1;
      for (let i = first; i <= last; i++) {
        if (previous && done >= 0 && i >= previous[0] - done && i <= previous[0] + done) i = previous[0] + done;
        else visit(start + i);
      }
    }
  }
}

/**
 * Lists the offsets of the voxels of one plane, row by row in voxel order.
 * @param {VolumeHeader} header
 * @param {Plane} plane
 * @param {number} index
 */
export function listPlaneOffsets(header, plane, index) {
  const stride = [1, header.shape[0], header.shape[0] * header.shape[1]];
  const { along, across } = PLANES[plane];
  const [width, height] = along.map((axis) => header.shape[axis]);
  const offsets = new Float64Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      offsets[y * width + x] = index * stride[across] + x * stride[along[0]] + y * stride[along[1]];
    }
  }
  return { offsets, width, height };
}

/**
 * Finds the region of one label around a voxel in its plane, connected by edges. Returns the offsets of its voxels, or
 * null if the region reaches the border of the image.
 * @param {RemoteVolume} volume
 * @param {Plane} plane
 * @param {Vector} centre
 */
export function findEnclosedRegion(volume, plane, centre) {
  const { along, across } = PLANES[plane];
  const { offsets, width, height } = listPlaneOffsets(volume.header, plane, centre[across]);
  const label = volume.data[volume.offsetOf(centre)];
  const isVisited = new Uint8Array(width * height);
  const region = [centre[along[1]] * width + centre[along[0]]];
  isVisited[region[0]] = 1;
  for (let n = 0; n < region.length; n++) {
    const x = region[n] % width;
    const y = (region[n] - x) / width;
    if (x === 0 || y === 0 || x === width - 1 || y === height - 1) return null;
    for (const neighbour of [region[n] - 1, region[n] + 1, region[n] - width, region[n] + width]) {
      if (!isVisited[neighbour] && volume.data[offsets[neighbour]] === label) {
        isVisited[neighbour] = 1;
        region.push(neighbour);
      }
    }
  }
  return region.map((pixel) => offsets[pixel]);
}
