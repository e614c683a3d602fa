// @ts-check
// Stylesheet: the text of viewer.css, fetched once, for the style element of each viewer.

const response = await fetch(new URL("viewer.css", import.meta.url), { credentials: "same-origin" });
if (!response.ok) {
  throw new Error(`The stylesheet of the viewer cannot be loaded (${response.status}). Reload the page.`);
}
export const STYLESHEET = await response.text();
