// @ts-check
// Drawing: the voxels under a brush, and the closed region around a voxel.
import { PLANES, clamp } from "./geometry.js";
/** @import { Plane, Vector, VolumeHeader } from "./types" */
/** @import { RemoteVolume } from "./volume.js" */

/**
 * Visits every voxel whose middle lies within `radius_mm` of a voxel, in its plane or in all directions.
 * @param {VolumeHeader} header
 * @param {{ centre: Vector, radius_mm: number, plane: Plane, isBall: boolean }} brush
 * @param {(offset: number) => void} visit
 */
export function visitBrushVoxels(header, { centre, radius_mm, plane, isBall }, visit) {
  const reach = header.spacing_mm.map((mm, axis) =>
    !isBall && axis === PLANES[plane].across ? 0 : Math.floor(radius_mm / mm),
  );
  const [low, high] = [-1, 1].map((sign) =>
    centre.map((x, axis) => clamp(x + sign * reach[axis], 0, header.shape[axis] - 1)),
  );
  const [ni, nj] = header.shape;
  for (let k = low[2]; k <= high[2]; k++) {
    for (let j = low[1]; j <= high[1]; j++) {
      for (let i = low[0]; i <= high[0]; i++) {
        const [x, y, z] = [i, j, k].map((index, axis) => (index - centre[axis]) * header.spacing_mm[axis]);
        if (x * x + y * y + z * z <= radius_mm * radius_mm + 1e-9) visit(i + ni * (j + nj * k));
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
