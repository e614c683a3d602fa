// Small volumes for the tests of the modules that need no DOM.
import { RemoteVolume } from "../../../medssl/viewer/frontend/volume.js";

export const SPACING_MM = [1, 1, 2];

export function createHeader(shape, changes = {}) {
  const affine = SPACING_MM.map((mm, r) => [0, 1, 2, 3].map((column) => (column === r ? mm : 0)));
  const geometry = { shape, spacing_mm: SPACING_MM, affine: [...affine, [0, 0, 0, 1]], oblique_degrees: 0, slab: 2 };
  const values = { format: "medssl-volume-1", unit: "HU", dtype: "int16", slope: 1, intercept: 0, exact: true };
  return { ...geometry, ...values, windows: [], ...changes };
}

export function createLabels(shape, isLabelled) {
  const volume = new RemoteVolume(null, null);
  volume.header = createHeader(shape, { unit: "label", dtype: "uint8" });
  volume.data = Uint8Array.from({ length: shape[0] * shape[1] * shape[2] }, (_, n) => {
    const i = n % shape[0];
    const j = Math.floor(n / shape[0]) % shape[1];
    return Number(isLabelled(i, j, Math.floor(n / shape[0] / shape[1])));
  });
  volume.loaded = new Uint8Array(shape[2]).fill(1);
  return volume;
}
