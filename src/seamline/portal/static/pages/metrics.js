// Metrics: finds names in the catalogue, copies a link.

export function start(root, { toast }) {
  const stops = new AbortController(), { signal } = stops;
  const find = root.querySelector("#metric-find"), catalogue = root.querySelector(".catalogue");
  if (innerWidth <= 900) catalogue.open = false;
  find.addEventListener("input", () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const item of catalogue.querySelectorAll("li")) item.hidden = !words.every((word) => item.dataset.name.includes(word));
  }, { signal });
  find.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === "ArrowDown") { event.preventDefault(); catalogue.querySelector("li:not([hidden]) a")?.focus(); }
  }, { signal });
  catalogue.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !event.target.matches("li a")) return;
    event.preventDefault();
    const links = [...catalogue.querySelectorAll("li:not([hidden]) a")];
    (links[links.indexOf(event.target) + step] ?? find).focus();
  }, { signal });
  catalogue.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  root.querySelector("[data-copy]").addEventListener("click", async (event) => {
    const link = new URL(event.currentTarget.dataset.copy, location.origin).href;
    try {
      await navigator.clipboard.writeText(link);
      toast("The link is in the clipboard.", "good");
    } catch {
      toast(link);
    }
  }, { signal });
  return () => stops.abort();
}
