// Rules for the modules of the viewer and their tests.
import js from "@eslint/js";
import globals from "globals";

const rules = {
  eqeqeq: "error",
  "no-implicit-globals": "error",
  "no-shadow": ["error", { builtinGlobals: false }],
  "no-var": "error",
  "no-param-reassign": "error",
  "prefer-const": "error",
  "object-shorthand": "error",
  curly: ["error", "multi-line"],
};

export default [
  { ignores: ["**/*.d.ts", ".venv/", "demo/", "runs/", "build/", "dist/"] },
  js.configs.recommended,
  { files: ["medssl/viewer/frontend/*.js"], languageOptions: { globals: globals.browser }, rules },
  { files: ["tests/viewer/frontend/*.js"], languageOptions: { globals: globals.node }, rules },
];
