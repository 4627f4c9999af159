// Brings the board up to date every two seconds while somebody looks at it.
const board = document.getElementById("board");
const stale = document.getElementById("stale");

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/analytics/board", { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(answer.statusText);
    board.innerHTML = await answer.text();
    stale.hidden = true;
  } catch {
    stale.hidden = false;
  }
}

(async () => {
  for (;;) {
    await new Promise((done) => setTimeout(done, 2000));
    await refresh();
  }
})();
