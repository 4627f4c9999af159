// The audit: a file needs the session's header, so it is fetched and then handed to the browser to keep.

export function start(root, { request, toast }) {
  const stops = new AbortController(), { signal } = stops;
  root.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-export]");
    if (!button) return;
    button.disabled = true;
    try {
      const answer = await request(button.dataset.export, { signal });
      if (!answer.ok) throw new Error(`The export was refused (${answer.status}).`);
      const link = document.createElement("a");
      link.href = URL.createObjectURL(await answer.blob());
      link.download = "audit.jsonl";
      link.click();
      URL.revokeObjectURL(link.href);
    } catch (error) {
      if (!signal.aborted) toast(error.message, "bad");
    } finally {
      button.disabled = false;
    }
  }, { signal });
  return () => stops.abort();
}
