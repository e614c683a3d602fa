// @ts-check
// Window height: keeps a node as high as the rest of the browser window, so that nothing of it lies below the fold.

const LOWEST = 420;
const MARGIN = 12;

/**
 * Returns the height that is left below the top of a node, in CSS pixels.
 * @param {HTMLElement} node
 */
export function measureRestOfWindow(node) {
  let top = node.getBoundingClientRect().top;
  for (let parent = node.parentElement; parent; parent = parent.parentElement) top += parent.scrollTop;
  return Math.max(LOWEST, Math.floor(window.innerHeight - top - MARGIN));
}
