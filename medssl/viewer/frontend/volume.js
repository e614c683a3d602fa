// Volume: stored voxels, fetched in axial slabs, the nearest to the reader first.

const FORMAT = "medssl-volume-1";
const TRIES = 4;
export const TABLE = 65536;
export const ZERO = 32768; // where the stored value 0 stands in a table
const HAZE = [[70, 40, 150, 0], [150, 50, 190, 110], [255, 80, 150, 170], [255, 240, 190, 215]]; // violet, pink, cream
const HAZE_FROM = 0.05;

export class RemoteVolume {
  constructor(url, signal) {
    this.url = url;
    this.signal = signal;
  }

  // Itself, or `before` under its new address if that holds the very same voxels in the very same place.
  async open(before = null) {
    const response = await attempt(() => fetch(this.url, { signal: this.signal, credentials: "same-origin" }));
    this.header = await response.json();
    if (this.header.format !== FORMAT) throw new Error(`The server sent ${this.header.format}, this page reads ${FORMAT}. Reload the page.`);
    if (before?.url && JSON.stringify(before.header) === JSON.stringify(this.header)) {
      return Object.assign(before, { url: this.url, signal: this.signal, asked: before.loaded.slice() });
    }
    const [ni, nj, nk] = this.header.shape;
    this.data = new (this.header.dtype === "uint8" ? Uint8Array : Int16Array)(ni * nj * nk);
    this.loaded = new Uint8Array(nk);
    this.asked = new Uint8Array(nk);
    this.filled = this.header.unit === "label" ? this.header.shape.map((n) => new Uint8Array(n)) : null;
    return this;
  }

  get planes() {
    return this.header.shape[2];
  }

  get count() {
    return this.loaded.reduce((sum, here) => sum + here, 0);
  }

  // The slab closest to an axial plane that nobody has asked for, or null.
  nearest(k) {
    const { slab } = this.header;
    let best = null;
    for (let from = 0; from < this.planes; from += slab) {
      const to = Math.min(from + slab, this.planes);
      const apart = k < from ? from - k : k >= to ? k - to + 1 : 0;
      if (!this.asked[from] && (best === null || apart < best.apart)) best = { volume: this, from, to, apart };
    }
    return best;
  }

  async fetch({ from, to }) {
    this.asked.fill(1, from, to);
    const url = new URL(this.url, document.baseURI);
    url.pathname = url.pathname.replace(/[^/]*$/, "voxels");
    url.searchParams.set("from", from);
    url.searchParams.set("to", to);
    const response = await attempt(() => fetch(url, { signal: this.signal, credentials: "same-origin" }));
    const part = new this.data.constructor(await response.arrayBuffer());
    const plane = this.header.shape[0] * this.header.shape[1];
    if (part.length !== (to - from) * plane) throw new Error(`Planes ${from} to ${to} arrived incomplete. Reload the page.`);
    this.data.set(part, from * plane);
    if (this.filled) this.note(part, from);
    this.loaded.fill(1, from, to);
  }

  // Notes which planes hold a label: a cut across the rows of a large scan takes long, and most find nothing.
  note(part, from) {
    const [ni, nj] = this.header.shape;
    const [is, js, ks] = this.filled;
    for (let at = 0, row = 0; at < part.length; at += ni, row++) {
      let found = 0;
      for (let i = 0; i < ni; i++) if (part[at + i]) found = is[i] = 1;
      if (found) js[row % nj] = ks[from + Math.floor(row / nj)] = 1;
    }
  }

  // Whether a plane is known to hold no label; once a mask was drawn on, that is known of none.
  empty(axis, index) {
    return Boolean(this.filled) && !this.touched && !this.filled[axis][index];
  }

  offset([i, j, k]) {
    return i + this.header.shape[0] * (j + this.header.shape[1] * k);
  }

  value(index) {
    return this.loaded[index[2]] ? this.data[this.offset(index)] * this.header.slope + this.header.intercept : null;
  }
}

// An empty label image on the grid of another volume, for readers who draw where the model saw nothing.
export function emptyLabels(like) {
  const volume = new RemoteVolume(null, null);
  volume.header = { ...like.header, unit: "label", dtype: "uint8", slope: 1, intercept: 0, exact: true };
  volume.data = new Uint8Array(like.data.length);
  volume.loaded = new Uint8Array(like.planes).fill(1);
  volume.asked = volume.loaded;
  return volume;
}

// One plane in screen order, one voxel an element.
export function cut(data, [ni, nj, nk], plane, index, out) {
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

// Stored value -> opaque grey, through the window.
export function greyTable(header, { low, high }) {
  const table = new Uint32Array(TABLE);
  for (let n = 0; n < TABLE; n++) {
    const value = (n - ZERO) * header.slope + header.intercept;
    const grey = Math.min(255, Math.max(0, Math.floor(((value - low) / (high - low)) * 255 + 0.5)));
    table[n] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
  }
  return table;
}

// Byte -> a haze that is thicker and lighter the more the model doubts; nothing where it is sure.
export function hazeTable(doubt) {
  const table = new Uint32Array(TABLE);
  for (let byte = 0; byte < 256; byte++) {
    const share = doubt(byte / 255);
    const [red, green, blue, alpha] = hazeOf(share);
    if (share >= HAZE_FROM) table[byte + ZERO] = ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  }
  return table;
}

// [red, green, blue, alpha] of a share of doubt from 0 to 1.
export function hazeOf(share) {
  const at = share * (HAZE.length - 1);
  const from = Math.min(HAZE.length - 2, Math.floor(at));
  return HAZE[from].map((low, n) => Math.round(low + (HAZE[from + 1][n] - low) * (at - from)));
}

// Fetches slab after slab, always the one nearest to where the reader is now; earlier volumes win a tie.
export async function loadAll(volumes, where, arrived, lanes = 2) {
  const work = async () => {
    for (;;) {
      const next = volumes.map((volume) => volume.nearest(where())).filter((slab) => slab);
      if (!next.length) return;
      const slab = next.reduce((a, b) => (b.apart < a.apart ? b : a));
      await slab.volume.fetch(slab);
      arrived(slab);
    }
  };
  await Promise.all(Array.from({ length: lanes }, work));
}

// A refused request is not repeated; a broken or overloaded connection is.
async function attempt(ask) {
  for (let tried = 1; ; tried++) {
    try {
      const response = await ask();
      if (response.ok) return response;
      if (response.status < 500) throw new Refused(response.status);
      throw new Error(`The server answered ${response.status}.`);
    } catch (error) {
      if (error instanceof Refused || error.name === "AbortError" || tried === TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, 250 * 2 ** tried));
    }
  }
}

class Refused extends Error {
  constructor(status) {
    super(`The link to this scan is not valid, or no longer (${status}). Reload the page; if that does not help, the file is gone: tell who runs this review.`);
  }
}
