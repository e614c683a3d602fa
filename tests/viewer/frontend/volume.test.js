import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { buildUncertaintyTable } from "../../../medssl/viewer/frontend/uncertaintyColour.js";
import { RemoteVolume, ZERO, buildGreyTable, cutPlane, loadSlabs } from "../../../medssl/viewer/frontend/volume.js";
import { createHeader } from "./volumes.js";

const SHAPE = [3, 2, 5];
const VOXELS = Int16Array.from({ length: 30 }, (_, n) => n - 15);
let requests = [];
let header = createHeader(SHAPE);

beforeEach(() => {
  requests = [];
  header = createHeader(SHAPE);
  globalThis.document = { baseURI: "http://viewer.test/" };
  globalThis.fetch = async (address) => {
    const url = new URL(address, globalThis.document.baseURI);
    requests.push(url.pathname + url.search);
    if (url.pathname.endsWith("header.json")) return new Response(JSON.stringify(header));
    if (!url.pathname.endsWith("voxels")) return new Response("", { status: 404 });
    const [from, to] = ["from", "to"].map((name) => Number(url.searchParams.get(name)) * SHAPE[0] * SHAPE[1]);
    return new Response(VOXELS.slice(from, to).buffer);
  };
});

afterEach(() => {
  delete globalThis.document;
});

test("every slab is fetched once, the nearest to the crosshair first", async () => {
  const volume = await new RemoteVolume("/a/header.json", null).open();
  const slabs = [];
  await loadSlabs([volume], () => 4, ({ from, to }) => slabs.push([from, to]), 1); // prettier-ignore
  assert.deepEqual(slabs, [[4, 5], [2, 4], [0, 2]]); // prettier-ignore
  assert.deepEqual(volume.data, VOXELS);
  assert.ok(volume.isComplete);
  assert.equal(volume.valueAt([1, 1, 4]), VOXELS[1 + 3 * (1 + 2 * 4)]);
  assert.deepEqual(requests.slice(1), ["/a/voxels?from=4&to=5", "/a/voxels?from=2&to=4", "/a/voxels?from=0&to=2"]);
});

test("a new address of the same scan keeps the voxels", async () => {
  const volume = await new RemoteVolume("/a/header.json", null).open();
  await loadSlabs([volume], () => 0, () => null); // prettier-ignore
  assert.equal(await new RemoteVolume("/b/header.json", null).open(volume), volume);
  assert.equal(volume.url, "/b/header.json");
  assert.equal(volume.findNearestSlab(0), null);
  header = createHeader(SHAPE, { sha256: "other" });
  assert.notEqual(await new RemoteVolume("/c/header.json", null).open(volume), volume);
});

test("a refused request is not repeated, and the message says what to do", async () => {
  await assert.rejects(new RemoteVolume("/gone", null).open(), /404.*Reload the page/);
  assert.equal(requests.length, 1);
  header = createHeader(SHAPE, { format: "medssl-volume-9" });
  await assert.rejects(new RemoteVolume("/a/header.json", null).open(), /medssl-volume-9/);
});

test("planes that hold no label are known until the mask is edited", async () => {
  VOXELS.fill(0);
  VOXELS[1 + 3 * (1 + 2 * 3)] = 1;
  header = createHeader(SHAPE, { unit: "label" });
  const volume = await new RemoteVolume("/a/header.json", null).open();
  await loadSlabs([volume], () => 0, () => null); // prettier-ignore
  assert.deepEqual([0, 1, 2].map((i) => volume.isPlaneEmpty(0, i)), [true, false, true]); // prettier-ignore
  assert.deepEqual([0, 1].map((j) => volume.isPlaneEmpty(1, j)), [true, false]); // prettier-ignore
  assert.deepEqual([2, 3, 4].map((k) => volume.isPlaneEmpty(2, k)), [true, false, true]); // prettier-ignore
  volume.isEdited = true;
  assert.ok(!volume.isPlaneEmpty(0, 0));
});

test("planes are cut with right, anterior and superior at the left or the top", () => {
  const data = Int16Array.from({ length: 30 }, (_, n) => n);
  const at = (i, j, k) => i + 3 * (j + 2 * k);
  assert.equal(cutPlane(data, SHAPE, "axial", 4, new Int16Array(6))[0], at(2, 1, 4));
  assert.equal(cutPlane(data, SHAPE, "coronal", 1, new Int16Array(15))[0], at(2, 1, 4));
  assert.equal(cutPlane(data, SHAPE, "sagittal", 1, new Int16Array(10))[0], at(1, 1, 4));
  assert.deepEqual([...cutPlane(data, SHAPE, "sagittal", 0, new Int16Array(10))].slice(-2), [at(0, 1, 0), at(0, 0, 0)]);
});

test("the window turns values into greys", () => {
  const table = buildGreyTable(createHeader(SHAPE, { slope: 2, intercept: 10 }), { low: 0, high: 100 });
  const greys = [-100, -5, 20, 45, 100].map((stored) => table[stored + ZERO] & 255);
  assert.deepEqual(greys, [0, 0, 128, 255, 255]);
});

test("the uncertainty is transparent where the model is certain, and denser where it is not", () => {
  const table = buildUncertaintyTable((share) => share);
  const alpha = [0, 5, 60, 128, 255].map((byte) => table[byte + ZERO] >>> 24);
  assert.deepEqual(alpha.slice(0, 2), [0, 0]);
  assert.ok(alpha[2] > 0 && alpha[2] < alpha[3] && alpha[3] < alpha[4]);
});
