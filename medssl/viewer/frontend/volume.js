// @ts-check
// Volumes: stored voxels, fetched in axial slabs, nearest to the crosshair first.
import { clamp } from "./geometry.js";
/** @import { Plane, Vector, VolumeHeader } from "./types" */
/** @typedef {Uint8Array | Int16Array} Voxels */
/** @typedef {{ volume: RemoteVolume, from: number, to: number, distance: number }} Slab */

const FORMAT = "medssl-volume-1";
const MAX_ATTEMPTS = 4;
/** The opacity of a PET on another image, of 255. */
const HOT_ALPHA = 190;
export const TABLE_SIZE = 65536;
export const ZERO = 32768; // position of the stored value 0 in a table

export class RemoteVolume {
  /**
   * @param {string | null} url of the header
   * @param {AbortSignal | null} signal
   */
  constructor(url, signal) {
    this.url = url;
    this.signal = signal;
    /** @type {VolumeHeader} */
    this.header = /** @type {any} */ (null);
    /** @type {Voxels} */
    this.data = new Uint8Array(0);
    this.loaded = new Uint8Array(0); // 1 for each axial plane that is here
    this.requested = new Uint8Array(0);
    /** @type {Uint8Array[] | null} per axis, 1 for each plane that holds a label */
    this.labelledPlanes = null;
    this.isEdited = false;
  }

  /**
   * Fetches the header. Returns this volume, or `previous` under its new address if both have the same header.
   * @param {RemoteVolume | null} previous
   */
  async open(previous = null) {
    this.header = await (await this.#request(this.url ?? "")).json();
    const { format, shape, dtype, unit } = this.header;
    if (format !== FORMAT) throw new Error(`The server sent ${format}, this page reads ${FORMAT}. Reload the page.`);
    if (previous?.url && JSON.stringify(previous.header) === JSON.stringify(this.header)) {
      return Object.assign(previous, { url: this.url, signal: this.signal, requested: previous.loaded.slice() });
    }
    const [ni, nj, nk] = shape;
    this.data = new (dtype === "uint8" ? Uint8Array : Int16Array)(ni * nj * nk);
    this.loaded = new Uint8Array(nk);
    this.requested = new Uint8Array(nk);
    this.labelledPlanes = unit === "label" ? shape.map((size) => new Uint8Array(size)) : null;
    return this;
  }

  /** The number of axial planes. */
  get planes() {
    return this.header.shape[2];
  }

  /** The number of axial planes that are loaded. */
  get loadedPlanes() {
    return this.loaded.reduce((sum, isLoaded) => sum + isLoaded, 0);
  }

  get isComplete() {
    return this.loadedPlanes === this.planes;
  }

  /**
   * Finds the slab closest to axial plane `k` that was not requested yet.
   * @param {number} k
   * @returns {Slab | null}
   */
  findNearestSlab(k) {
    /** @type {Slab | null} */
    let nearest = null;
    for (let from = 0; from < this.planes; from += this.header.slab) {
      const to = Math.min(from + this.header.slab, this.planes);
      const distance = k < from ? from - k : k >= to ? k - to + 1 : 0;
      if (!this.requested[from] && (nearest === null || distance < nearest.distance)) {
        nearest = { volume: this, from, to, distance };
      }
    }
    return nearest;
  }

  /** @param {{ from: number, to: number }} slab */
  async fetchSlab({ from, to }) {
    this.requested.fill(1, from, to);
    const url = new URL(this.url ?? "", document.baseURI);
    url.pathname = url.pathname.replace(/[^/]*$/, "voxels");
    url.searchParams.set("from", String(from));
    url.searchParams.set("to", String(to));
    const bytes = await (await this.#request(url)).arrayBuffer();
    const voxels = this.data instanceof Uint8Array ? new Uint8Array(bytes) : new Int16Array(bytes);
    const plane = this.header.shape[0] * this.header.shape[1];
    if (voxels.length !== (to - from) * plane) {
      throw new Error(`Planes ${from} to ${to} arrived incomplete. Reload the page.`);
    }
    this.data.set(voxels, from * plane);
    if (this.labelledPlanes) this.#noteLabelledPlanes(voxels, from, this.labelledPlanes);
    this.loaded.fill(1, from, to);
  }

  /**
   * Returns whether a plane is known to hold no label; nothing is known once the mask was edited.
   * @param {number} axis
   * @param {number} index
   */
  isPlaneEmpty(axis, index) {
    return this.labelledPlanes !== null && !this.isEdited && !this.labelledPlanes[axis][index];
  }

  /** @param {Vector} index */
  offsetOf([i, j, k]) {
    return i + this.header.shape[0] * (j + this.header.shape[1] * k);
  }

  /**
   * Returns the value of a voxel in the unit of the header, or null if the voxel is not loaded.
   * @param {Vector} index
   */
  valueAt(index) {
    const { slope, intercept } = this.header;
    return this.loaded[index[2]] ? this.data[this.offsetOf(index)] * slope + intercept : null;
  }

  /** @param {string | URL} url */
  #request(url) {
    return retry(() => fetch(url, { signal: this.signal, credentials: "same-origin" }));
  }

  /**
   * Cutting a coronal or sagittal plane from a large scan is slow, and most planes hold no label.
   * @param {Voxels} voxels
   * @param {number} from
   * @param {Uint8Array[]} labelledPlanes
   */
  #noteLabelledPlanes(voxels, from, [alongI, alongJ, alongK]) {
    const [ni, nj] = this.header.shape;
    for (let start = 0, row = 0; start < voxels.length; start += ni, row++) {
      let isLabelled = 0;
      for (let i = 0; i < ni; i++) if (voxels[start + i]) isLabelled = alongI[i] = 1;
      if (isLabelled) alongJ[row % nj] = alongK[from + Math.floor(row / nj)] = 1;
    }
  }
}

/**
 * Creates an empty label volume on the grid of another one, to draw on where the model found nothing.
 * @param {RemoteVolume} like
 */
export function createEmptyLabels(like) {
  const volume = new RemoteVolume(null, null);
  volume.header = { ...like.header, unit: "label", dtype: "uint8", slope: 1, intercept: 0, exact: true };
  volume.data = new Uint8Array(like.data.length);
  volume.loaded = new Uint8Array(like.planes).fill(1);
  volume.requested = volume.loaded;
  return volume;
}

/**
 * Copies one plane of the voxels into `out`, in the order of the screen.
 * @template {Voxels} V
 * @param {Voxels} data
 * @param {Vector} shape
 * @param {Plane} plane
 * @param {number} index
 * @param {V} out
 * @returns {V}
 */
export function cutPlane(data, [ni, nj, nk], plane, index, out) {
  if (plane === "axial") {
    const last = ni * nj - 1;
    const from = index * ni * nj;
    for (let n = 0; n <= last; n++) out[last - n] = data[from + n];
  } else if (plane === "coronal") {
    for (let k = 0; k < nk; k++) {
      const from = (k * nj + index) * ni;
      const to = (nk - k) * ni - 1;
      for (let i = 0; i < ni; i++) out[to - i] = data[from + i];
    }
  } else {
    for (let k = 0; k < nk; k++) {
      const from = k * ni * nj + index;
      const to = (nk - k) * nj - 1;
      for (let j = 0; j < nj; j++) out[to - j] = data[from + j * ni];
    }
  }
  return out;
}

/**
 * Builds the table from stored values to opaque greys, through an intensity window.
 * @param {VolumeHeader} header
 * @param {{ low: number, high: number }} window
 */
export function buildGreyTable(header, { low, high }) {
  const table = new Uint32Array(TABLE_SIZE);
  for (let n = 0; n < TABLE_SIZE; n++) {
    const value = (n - ZERO) * header.slope + header.intercept;
    const grey = clamp(Math.floor(((value - low) / (high - low)) * 255 + 0.5), 0, 255);
    table[n] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
  }
  return table;
}

/**
 * Returns the colour of each stored value of a PET that lies on another image: from clear over red and yellow to white.
 * @param {VolumeHeader} header
 * @param {{ low: number, high: number }} window
 */
export function buildHotTable(header, { low, high }) {
  const table = new Uint32Array(TABLE_SIZE);
  for (let n = 0; n < TABLE_SIZE; n++) {
    const value = (n - ZERO) * header.slope + header.intercept;
    const share = clamp((value - low) / (high - low), 0, 1);
    const [red, green, blue] = [0, 1, 2].map((part) => Math.round(255 * clamp(3 * share - part, 0, 1)));
    table[n] = ((Math.round(HOT_ALPHA * clamp(2 * share, 0, 1)) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  }
  return table;
}

/**
 * Fetches every slab, always the one nearest to the axial plane that is looked at; earlier volumes win a tie.
 * @param {RemoteVolume[]} volumes
 * @param {() => number} currentPlane
 * @param {(slab: Slab) => void} onSlab
 * @param {number} lanes requests at the same time
 */
export async function loadSlabs(volumes, currentPlane, onSlab, lanes = 2) {
  const work = async () => {
    for (;;) {
      const waiting = volumes.flatMap((volume) => volume.findNearestSlab(currentPlane()) ?? []);
      if (!waiting.length) return;
      const slab = waiting.reduce((a, b) => (b.distance < a.distance ? b : a));
      await slab.volume.fetchSlab(slab);
      onSlab(slab);
    }
  };
  await Promise.all(Array.from({ length: lanes }, work));
}

/**
 * Repeats a request after a broken connection or an error of the server, but not after a refusal.
 * @param {() => Promise<Response>} request
 */
async function retry(request) {
  for (let attempt = 1; ; attempt++) {
    try {
      const response = await request();
      if (response.ok) return response;
      if (response.status < 500) throw new RequestRefused(response.status);
      throw new Error(`The server answered ${response.status}.`);
    } catch (error) {
      if (error instanceof RequestRefused || isAbort(error) || attempt === MAX_ATTEMPTS) throw error;
      await new Promise((resolve) => setTimeout(resolve, 250 * 2 ** attempt));
    }
  }
}

/**
 * Returns whether an error only says that a request was aborted.
 * @param {unknown} error
 */
export function isAbort(error) {
  return error instanceof Error && error.name === "AbortError";
}

class RequestRefused extends Error {
  /** @param {number} status */
  constructor(status) {
    super(
      `The link to this scan is invalid or has expired (${status}). Reload the page. If that does not help, the file ` +
        "is missing: tell the person who runs this review.",
    );
  }
}
