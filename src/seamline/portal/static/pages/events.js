// Dead letters: how many are ticked, and what the two buttons then ask before they act.

export function start(root) {
  const stops = new AbortController(), { signal } = stops;
  const form = root.querySelector("#letters-form"), all = root.querySelector("#letters-all");
  if (!form || !all) return null;
  const ticks = [...form.querySelectorAll("input[name=letter]")];
  const count = root.querySelector("#letters-count");

  function told() {
    const chosen = ticks.filter((tick) => tick.checked).length;
    count.textContent = chosen ? `${chosen} chosen` : "none chosen";
    all.checked = chosen === ticks.length;
    all.indeterminate = chosen > 0 && chosen < ticks.length;
    for (const button of form.querySelectorAll("[data-batch]")) button.disabled = !chosen;
  }

  form.addEventListener("change", (event) => {
    if (event.target === all) for (const tick of ticks) tick.checked = all.checked;
    told();
  }, { signal });
  // Before the shell sends it: the same form goes to where its button says.
  form.addEventListener("click", (event) => {
    const button = event.target.closest("[data-batch]");
    if (!button) return;
    const drop = button.hasAttribute("formaction"), chosen = ticks.filter((tick) => tick.checked).length;
    form.setAttribute("action", drop ? "/events/dead/drop" : "/events/dead/retry");
    form.dataset.confirm = drop ? `Discard ${chosen}?` : `Handle ${chosen} again?`;
    form.dataset.confirmText = drop ? "Their groups will never handle them. This cannot be undone." : "Each is handed to its handler once, now. What fails again stays.";
    form.dataset.confirmYes = drop ? "Discard" : "Try again";
  }, { signal });
  told();
  return () => stops.abort();
}
