import assert from "node:assert/strict";
import { test } from "node:test";
import { formatVolume } from "../../../medssl/viewer/frontend/findingsPanel.js";
import { TextPlacer } from "../../../medssl/viewer/frontend/textPlacer.js";

const SIZE = [50, 16];
const LINES = [
  [[100, 100], [140, 100]],
  [[120, 90], [120, 110]],
  [[102, 104], [142, 104]],
  [[118, 92], [118, 112]],
]; // prettier-ignore

test("the lengths of two crossing axes, and of two lesions close together, lie on nothing", () => {
  const placer = new TextPlacer({ width: 400, height: 300 });
  LINES.forEach((ends) => placer.addLine(ends));
  const centres = LINES.map((ends) => placer.place(ends, SIZE, 8));
  centres.forEach(([x, y], n) => {
    assert.ok(x >= 25 && x <= 375 && y >= 8 && y <= 292);
    for (const [a, b] of centres.slice(0, n)) assert.ok(Math.abs(a - x) >= SIZE[0] || Math.abs(b - y) >= SIZE[1]);
    for (const [[x0, y0], [x1, y1]] of LINES) {
      for (let t = 0; t <= 1; t += 0.05) {
        const [px, py] = [x0 + (x1 - x0) * t, y0 + (y1 - y0) * t];
        assert.ok(Math.abs(px - x) >= SIZE[0] / 2 || Math.abs(py - y) >= SIZE[1] / 2);
      }
    }
  });
});

test("a text stays inside the picture where the line ends at its border", () => {
  const placer = new TextPlacer({ width: 400, height: 300 });
  const ends = [[350, 50], [399, 50]]; // prettier-ignore
  placer.addLine(ends);
  const [x] = placer.place(ends, SIZE, 8);
  assert.ok(x < 350 - SIZE[0] / 2);
});

test("volumes are written in plain digits", () => {
  const texts = [0.0034, 0.1, 3.026, 33.5, 941.71, 12345].map(formatVolume);
  assert.deepEqual(texts, ["0.003 ml", "0.100 ml", "3.03 ml", "33.5 ml", "942 ml", "12345 ml"]);
});
