// @ts-check
// Leave guard: asks before the reader leaves the case, by a link or by closing the tab, while acts wait.

/**
 * @param {object} uses
 * @param {Element} uses.root of the viewer; links inside it do not leave the case
 * @param {() => string} uses.describeWaiting says what waits; empty if nothing does
 * @param {(question: string, leave: () => void) => void} uses.ask
 * @returns {() => void} ends the guard
 */
export function guardLeaving({ root, describeWaiting, ask }) {
  let isAllowed = false;
  const onUnload = (/** @type {BeforeUnloadEvent} */ event) => {
    if (describeWaiting()) event.preventDefault();
  };
  const onClick = (/** @type {MouseEvent} */ event) => {
    const path = event.composedPath();
    const link = path.find((node) => node instanceof HTMLAnchorElement);
    const waiting = describeWaiting();
    const isElsewhere = !link || link.target === "_blank" || path.includes(root);
    if (isAllowed || isElsewhere || !waiting || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    ask(waiting, () => {
      isAllowed = true;
      link.click();
      isAllowed = false;
    });
  };
  window.addEventListener("beforeunload", onUnload);
  document.addEventListener("click", onClick, true);
  return () => {
    window.removeEventListener("beforeunload", onUnload);
    document.removeEventListener("click", onClick, true);
  };
}
