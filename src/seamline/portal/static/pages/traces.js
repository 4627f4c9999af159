// Traces: the dots lead to their traces; the waterfall folds, zooms, and opens a span beside it.

export function start(root, { request, go, toast, settle }) {
  const stops = new AbortController();
  const on = (target, name, act, options = {}) => target?.addEventListener(name, act, { ...options, signal: stops.signal });
  on(root.querySelector(".dotplot"), "click", (event) => {
    const href = event.target.closest("[data-href]")?.dataset.href;
    if (href) go(href);
  });
  const table = root.querySelector(".wf");
  if (table) waterfall(root, table, { request, toast, settle, on });
  return () => stops.abort();
}

function waterfall(root, table, { request, toast, settle, on }) {
  const body = table.tBodies[0], panel = root.querySelector("#span-panel"), length = Number(table.dataset.length);
  const base = `/traces/${table.dataset.trace}`;
  const rows = () => [...body.querySelectorAll("tr[data-span]")];
  const visible = () => rows().filter((row) => !row.hidden);

  // Folding: a row knows how many rows are below it.
  const folded = new Set();

  function fold(row, shut) {
    if (!Number(row.dataset.below)) return;
    row.setAttribute("aria-expanded", String(!shut));
    if (shut) folded.add(row); else folded.delete(row);
    hide();
  }

  function hide() {
    let until = -1;
    for (const row of rows()) {
      const number = Number(row.dataset.n);
      row.hidden = number <= until;
      if (!row.hidden && folded.has(row)) until = number + Number(row.dataset.below);
    }
  }

  function foldDull() {
    const shut = folded.size === 0;
    const all = rows();
    for (const row of all) {
      if (!Number(row.dataset.below)) continue;
      const last = Number(row.dataset.n) + Number(row.dataset.below);
      const within = all.filter((each) => Number(each.dataset.n) > Number(row.dataset.n) && Number(each.dataset.n) <= last);
      const dull = !within.some((each) => each.matches(".failed, .onpath"));
      if (shut && dull) folded.add(row); else folded.delete(row);
      row.setAttribute("aria-expanded", String(!folded.has(row)));
    }
    hide();
  }

  // Zoom: bars are drawn on a line of 1000; what is seen of it goes from `from` on, `wide` of it.
  let from = 0, wide = 1000;
  const brush = root.querySelector(".brush");

  function zoom(at, width) {
    wide = Math.min(1000, Math.max(0.01, width));
    from = Math.min(1000 - wide, Math.max(0, at));
    const scale = 1000 / wide;
    for (const row of rows()) draw(row, scale);
    table.querySelectorAll("[data-tick]").forEach((tick, n) => { tick.textContent = time(((from + (wide * n) / 4) / 1000) * length); });
    brush.setAttribute("x", from);
    brush.setAttribute("width", wide < 1000 ? wide : 0);
  }

  function draw(row, scale) {
    place(row.querySelector("rect.all"), Number(row.dataset.x), Number(row.dataset.w), scale, 1.5);
    for (const path of row.querySelectorAll("rect.path")) place(path, Number(path.dataset.x), Number(path.dataset.w), scale, 1);
  }

  function place(rect, x, width, scale, least) {
    // Cut where it is out of sight: figures of a deep zoom are beyond what browsers draw.
    const begin = Math.max((x - from) * scale, -10), end = Math.min((x + width - from) * scale, 1010);
    rect.setAttribute("x", begin);
    rect.setAttribute("width", end < -5 || begin > 1005 ? 0 : Math.max(end - begin, least));
  }

  const around = (factor) => zoom(from + (wide - wide * factor) / 2, wide * factor);
  const doing = { in: () => around(0.5), out: () => around(2), all: () => zoom(0, 1000), fold: foldDull };
  on(root, "click", (event) => doing[event.target.closest("[data-do]")?.dataset.do]?.());

  const map = root.querySelector(".minimap");
  let held = null;
  const where = (event) => { const box = map.getBoundingClientRect(); return Math.min(1000, Math.max(0, ((event.clientX - box.left) / box.width) * 1000)); };
  on(map, "pointerdown", (event) => { held = where(event); map.setPointerCapture(event.pointerId); });
  on(map, "pointermove", (event) => {
    if (held === null) return;
    const now = where(event);
    brush.setAttribute("x", Math.min(held, now));
    brush.setAttribute("width", Math.abs(now - held));
  });
  on(map, "pointerup", (event) => {
    const now = where(event), begin = held;
    held = null;
    if (begin !== null) { if (Math.abs(now - begin) > 4) zoom(Math.min(begin, now), Math.abs(now - begin)); else zoom(0, 1000); }
  });

  // The panel of one span.
  async function open(row, { focus = false } = {}) {
    choose(row);
    const answer = await request(`${base}/spans/${row.dataset.span}`);
    if (!answer.ok) { toast("The span cannot be shown.", "bad"); return; }
    htmx.swap({ text: await answer.text(), target: panel, sourceElement: panel, swap: "innerHTML" });
    panel.hidden = false;
    panel.scrollTop = 0;
    settle(panel);
    history.replaceState(history.state, "", `${base}?span=${row.dataset.span}`);
    if (focus) panel.querySelector("[data-close]")?.focus();
  }

  function close() {
    if (panel.hidden) return;
    panel.hidden = true;
    history.replaceState(history.state, "", base);
    const row = body.querySelector("tr[aria-selected]");
    row?.removeAttribute("aria-selected");
    row?.focus();
  }

  function choose(row) {
    for (const each of body.querySelectorAll("tr[aria-selected]")) each.removeAttribute("aria-selected");
    row.setAttribute("aria-selected", "true");
    step(row);
  }

  function step(row) {
    if (!row) return;
    for (const each of body.querySelectorAll('tr[tabindex="0"]')) each.tabIndex = -1;
    row.tabIndex = 0;
    row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
  }

  on(panel, "click", (event) => { if (event.target.closest("[data-close]")) close(); });
  on(root, "keydown", (event) => { if (event.key === "Escape") close(); });
  on(body, "click", async (event) => {
    const more = event.target.closest("[data-more]");
    if (more) { await fetchMore(more); return; }
    const row = event.target.closest("tr[data-span]");
    if (!row || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (event.target.closest("button.twist")) { fold(row, !folded.has(row)); step(row); } else await open(row);
  });

  async function fetchMore(button) {
    button.disabled = true;
    const answer = await request(button.dataset.more);
    if (!answer.ok) { button.disabled = false; toast("The rest cannot be shown.", "bad"); return; }
    const part = document.createElement("template");
    part.innerHTML = `<table>${await answer.text()}</table>`;
    button.closest("tr").replaceWith(...part.content.querySelectorAll("tr"));
    zoom(from, wide);
    hide();
  }

  on(body, "keydown", (event) => {
    const row = event.target.closest("tr[data-span]");
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const shown = visible(), at = shown.indexOf(row);
    const parent = () => shown.slice(0, at).reverse().find((each) => Number(each.ariaLevel) < Number(row.ariaLevel));
    const acts = {
      ArrowDown: () => step(shown[at + 1]), ArrowUp: () => step(shown[at - 1]), Home: () => step(shown[0]), End: () => step(shown.at(-1)),
      ArrowRight: () => (folded.has(row) ? fold(row, false) : step(shown[at + 1])),
      ArrowLeft: () => (Number(row.dataset.below) && !folded.has(row) ? fold(row, true) : step(parent())),
      Enter: () => open(row, { focus: true }), "+": doing.in, "-": doing.out, 0: doing.all,
    };
    if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
  });

  body.querySelector("tr[aria-selected]")?.scrollIntoView({ block: "center" });
}

function time(ns) {
  const units = [[1e9, "s"], [1e6, "ms"], [1e3, "µs"]];
  const [factor, unit] = units.find(([least]) => ns >= least) ?? [1, "ns"];
  return ns ? `${Number((ns / factor).toPrecision(3))} ${unit}` : "0";
}
