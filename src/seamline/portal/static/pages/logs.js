// Logs: only the lines in sight are in the page, so that a hundred thousand scroll as smoothly as ten. What comes new is
// added at the end; the list follows it only while the end is in sight.

const MAX = 200000, AHEAD = 12;
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hour12: false });
const calendar = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hour12: false });
const [AT, SEVERITY, MODULE, MESSAGE, LOGGER, WORKLOAD, TRACE, SPAN, EXCEPTION, FIELDS, RESOURCE, HUE] = Array(12).keys();

export function start(root, { request, toast }) {
  const box = root.querySelector(".logs"), view = root.querySelector(".log-view"), space = root.querySelector(".log-space");
  const count = root.querySelector("#log-count"), more = root.querySelector("#log-more"), follow = root.querySelector("#log-follow");
  const stops = new AbortController(), { signal } = stops;
  const words = (box.dataset.searchText || "").toLowerCase().split(/\s+/).filter(Boolean);
  let lines = [], waiting = [], known = new Set(), older = box.dataset.lines, reading = false, following = true, atEnd = true, unseen = 0, lost = 0;
  let height = 27, frame = 0;
  const open = new Map(); // line to the height of its details
  const drawn = new Map(); // line to its row

  // Where a line is: all are as high as one row, but for those that are open.

  function place(index) {
    let y = index * height;
    for (const [line, more] of open) if (line.index < index) y += more;
    return y;
  }
  const whole = () => place(lines.length);

  function indexAt(y) {
    let low = 0, high = lines.length;
    while (low < high) { const middle = (low + high) >> 1; if (place(middle + 1) <= y) low = middle + 1; else high = middle; }
    return low;
  }

  const number = (from) => { for (let n = from; n < lines.length; n++) lines[n].index = n; };

  function draw() {
    frame = 0;
    space.style.height = `${whole()}px`;
    const first = Math.max(0, indexAt(view.scrollTop) - AHEAD), last = Math.min(lines.length, indexAt(view.scrollTop + view.clientHeight) + AHEAD);
    const kept = new Set(lines.slice(first, last));
    for (const [line, row] of drawn) if (!kept.has(line) && !row.contains(document.activeElement)) { row.remove(); drawn.delete(line); }
    let before = null;
    for (let n = first; n < last; n++) {
      const line = lines[n];
      let row = drawn.get(line);
      if (!row) { row = rowOf(line); drawn.set(line, row); }
      row.style.transform = `translateY(${place(n)}px)`;
      row.setAttribute("aria-posinset", n + 1);
      row.setAttribute("aria-setsize", lines.length);
      if (!row.isConnected || (before && before.nextElementSibling !== row)) { if (before) before.after(row); else space.prepend(row); }
      before = row;
    }
    const parts = [`${lines.length.toLocaleString()} lines`];
    if (older) parts.push("older are read as you scroll up");
    if (lost) parts.push(`${lost.toLocaleString()} came too fast to be shown`);
    if (!following) parts.push(`paused, ${waiting.length.toLocaleString()} wait`);
    const text = reading && !lines.length ? "reading" : lines.length || waiting.length ? parts.join(", ") : "no line fits";
    if (count.textContent !== text) count.textContent = text;
    more.hidden = !unseen;
    if (unseen) more.textContent = `${unseen.toLocaleString()} new below`;
  }
  const soon = () => { frame ||= requestAnimationFrame(draw); };

  function rowOf(line) {
    const row = node("div", "log-row");
    row.setAttribute("role", "listitem");
    const head = node("button", "log-line");
    head.type = "button";
    head.setAttribute("aria-expanded", String(open.has(line)));
    const level = levelOf(line[SEVERITY]);
    const swatch = node("i", `swatch ${line[HUE]}`);
    const who = node("bdi", "log-who", line[MODULE]);
    head.append(node("span", "log-at", clock.format(line[AT])), node("span", `level ${level}`, level), swatch, who, marked(node("bdi", "log-what"), line[MESSAGE]));
    head.addEventListener("click", () => toggle(line));
    row.append(head);
    if (line[TRACE]) row.append(link(`/traces/${line[TRACE]}${line[SPAN] ? `?span=${line[SPAN]}` : ""}`, line[TRACE].slice(0, 8), "The trace"));
    if (open.has(line)) row.append(detailsOf(line));
    return row;
  }

  function toggle(line) {
    const row = drawn.get(line), head = row.firstElementChild;
    if (open.has(line)) {
      open.delete(line);
      row.querySelector(".log-details").remove();
    } else {
      const details = detailsOf(line);
      row.append(details);
      open.set(line, details.offsetHeight);
      const last = place(line.index + 1);
      space.style.height = `${whole()}px`;
      if (last > view.scrollTop + view.clientHeight) view.scrollTop = Math.min(place(line.index), last - view.clientHeight);
    }
    head.setAttribute("aria-expanded", String(open.has(line)));
    atEnd = false;
    soon();
  }

  function detailsOf(line) {
    const details = node("div", "log-details");
    const fields = [["message", line[MESSAGE]], ["when", calendar.format(line[AT])], ["logger", line[LOGGER]], ["process", line[WORKLOAD]], ["trace", line[TRACE]], ["span", line[SPAN]], ...line[FIELDS], ...line[RESOURCE]];
    const list = node("dl", "pairs");
    for (const [name, value] of fields) {
      if (!value) continue;
      const pair = node("div"), text = node("dd");
      text.append(node("bdi", "value", value));
      pair.append(node("dt", "", name), text);
      list.append(pair);
    }
    details.append(list);
    if (line[EXCEPTION]) {
      const stack = node("pre", "stacktrace", line[EXCEPTION]);
      stack.tabIndex = 0;
      details.append(stack);
    }
    return details;
  }

  function marked(target, text) {
    const flat = text.replace(/\s*\n\s*/g, " \u23ce ").slice(0, 600), low = flat.toLowerCase();
    let at = 0;
    while (words.length && low.length === flat.length) {
      const found = words.map((word) => [low.indexOf(word, at), word.length]).filter(([place]) => place >= 0).sort((a, b) => a[0] - b[0])[0];
      if (!found) break;
      target.append(flat.slice(at, found[0]), node("mark", "", flat.substr(...found)));
      at = found[0] + found[1];
    }
    target.append(flat.slice(at));
    return target;
  }

  // What is read and what comes.

  const key = (line) => `${line[AT]}\0${line[MODULE]}\0${line[WORKLOAD]}\0${line[MESSAGE].slice(0, 200)}`;

  async function readOlder() {
    if (reading || !older) return;
    reading = true;
    try {
      const answer = await request(older, { signal });
      if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.error?.fact ?? "The lines cannot be read.");
      const { lines: found, next, notes } = await answer.json();
      for (const note of notes) toast(note, "warn");
      const url = new URL(older, location.href);
      url.searchParams.set("cursor", next);
      older = next ? url.pathname + url.search : "";
      const fresh = found.reverse().filter((line) => !known.has(key(line)));
      if (!lines.length) known = new Set(fresh.slice(-3000).map(key));
      const bottom = whole() - view.scrollTop;
      lines = fresh.concat(lines);
      number(0);
      space.style.height = `${whole()}px`;
      view.scrollTop = atEnd ? whole() : whole() - bottom;
    } catch (error) {
      if (!signal.aborted) { older = ""; toast(error.message, "bad"); }
    } finally {
      reading = false;
      soon();
    }
  }

  function add(found) {
    const fresh = found.filter((line) => !known.has(key(line)));
    if (!fresh.length) return;
    if (known.size > 6000) known = new Set(lines.slice(-3000).map(key));
    for (const line of fresh) known.add(key(line));
    // Processes tell in their own rhythm: what is a little late goes where it belongs.
    fresh.sort((a, b) => a[AT] - b[AT]);
    let from = lines.length;
    if (lines.length && fresh[0][AT] < lines[lines.length - 1][AT]) {
      while (from > 0 && lines.length - from < 2000 && lines[from - 1][AT] > fresh[0][AT]) from--;
      lines = lines.slice(0, from).concat(lines.slice(from).concat(fresh).sort((a, b) => a[AT] - b[AT]));
    } else lines.push(...fresh);
    number(from);
    if (lines.length > MAX) {
      const dropped = lines.length - MAX, gone = place(dropped);
      for (const line of lines.splice(0, dropped)) open.delete(line);
      number(0);
      if (!atEnd) view.scrollTop -= gone;
      older = "";
    }
    space.style.height = `${whole()}px`;
    if (atEnd) view.scrollTop = whole(); else unseen += fresh.length;
    soon();
  }

  function pause(yes) {
    following = !yes;
    follow.setAttribute("aria-pressed", String(following));
    follow.querySelector("span").textContent = following ? "Pause" : "Follow";
    if (following) { add(waiting.splice(0)); toEnd(); }
    soon();
  }

  function toEnd() {
    atEnd = true;
    unseen = 0;
    view.scrollTop = whole();
    soon();
  }

  root.addEventListener("sl:lines", ({ detail }) => {
    lost += detail.lost;
    if (following) add(detail.lines);
    else { waiting.push(...detail.lines); if (waiting.length > MAX) waiting.splice(0, waiting.length - MAX); soon(); }
  }, { signal });
  view.addEventListener("scroll", () => {
    atEnd = view.scrollTop + view.clientHeight >= view.scrollHeight - height;
    if (atEnd) unseen = 0;
    if (view.scrollTop < 40 * height) readOlder();
    soon();
  }, { signal, passive: true });
  more.addEventListener("click", toEnd, { signal });
  root.querySelector("#log-end").addEventListener("click", toEnd, { signal });
  follow?.addEventListener("click", () => pause(following), { signal });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "f" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
    if (follow) pause(following);
  }, { signal });
  view.addEventListener("keydown", (event) => {
    const row = event.target.closest(".log-row");
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 20, PageUp: -20 }[event.key];
    if (event.key === "End") { event.preventDefault(); toEnd(); return; }
    if (!row || !step || !event.target.matches(".log-line")) return;
    event.preventDefault();
    const line = [...drawn].find(([, each]) => each === row)[0];
    const to = Math.min(lines.length - 1, Math.max(0, line.index + step)), y = place(to);
    if (y < view.scrollTop) view.scrollTop = y; else if (y + height > view.scrollTop + view.clientHeight) view.scrollTop = y + height - view.clientHeight;
    draw();
    drawn.get(lines[to])?.firstElementChild.focus({ preventScroll: true });
  }, { signal });

  const measure = () => {
    height = parseFloat(getComputedStyle(view).getPropertyValue("--row")) || 27;
    for (const line of open.keys()) { const details = drawn.get(line)?.querySelector(".log-details"); if (details) open.set(line, details.offsetHeight); }
    if (atEnd) view.scrollTop = whole();
    soon();
  };
  const watch = new ResizeObserver(measure);
  watch.observe(view);
  measure();
  readOlder();
  return () => { stops.abort(); watch.disconnect(); cancelAnimationFrame(frame); lines = []; drawn.clear(); };
}

function levelOf(severity) {
  return severity >= 17 ? "error" : severity >= 13 ? "warning" : severity >= 9 ? "info" : "debug";
}

function node(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function link(href, text, label) {
  const made = node("a", "log-trace mono", text);
  made.href = href;
  made.title = label;
  made.setAttribute("aria-label", `${label} ${text}`);
  return made;
}
