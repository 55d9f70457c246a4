// The focus stays near where it was when what had it is removed, or disabled for a while.

/** What had the focus last, and each element that this is in. */
let path = [];

document.addEventListener("focusin", ({ target }) => {
  path = [];
  for (let element = target; element; element = element.parentElement) path.push(element);
});

// A press on an empty place takes the focus away on purpose.
document.addEventListener("pointerdown", () => { path = []; });

function restore() {
  if (document.activeElement !== document.body) return;
  if (path[0]?.isConnected && path[0].disabled) return; // it can have the focus again soon
  for (const element of path) {
    if (!element.isConnected) continue;
    element.focus({ preventScroll: true });
    if (document.activeElement === element) return;
  }
}

/** Keep the focus in an element through all changes below it. */
export function keepFocus(element) {
  new MutationObserver(restore).observe(element, { childList: true, subtree: true, attributeFilter: ["disabled"] });
}
