// Before the first paint, so that the page does not change colour under the eye.
try {
  const kept = localStorage.getItem("seamline.theme");
  if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
} catch {
  // A browser that keeps nothing follows the system.
}
