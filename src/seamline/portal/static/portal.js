// The shell's script: who is signed in, going from page to page, actions, what is live, keys. No page's own matter.

const content = document.getElementById("content");
const el = (id) => document.getElementById(id);
const SESSION = "seamline.session";

// Who is signed in. The cookie is the browser's; the word that makes it count is ours alone.

let session = read();

function read() {
  try { return JSON.parse(localStorage.getItem(SESSION)) ?? null; } catch { return null; }
}

function keep(found) {
  session = found;
  if (found) localStorage.setItem(SESSION, JSON.stringify(found)); else localStorage.removeItem(SESSION);
  el("sl-out").hidden = !found;
}

async function signIn(token) {
  const answer = await fetch("/v1/session", {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ token, cookie: true }),
  });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said(told, "The token was not taken."));
  keep({ page: told.page, role: told.role, session: told.session });
}

async function signOut() {
  await request("/v1/session", { method: "DELETE" }).catch(() => null);
  keep(null);
  showSignIn();
}

function said(told, otherwise) {
  const error = told?.error;
  return error ? [error.fact ?? error.message, error.remedy].filter(Boolean).join(". ").replace(/\.\. /g, ". ") : otherwise;
}

/** fetch, as who is signed in. */
export function request(url, options = {}) {
  const headers = new Headers(options.headers);
  headers.set("hx-request", "true");
  if (session) headers.set("x-seamline-page", session.page);
  return fetch(url, { ...options, headers, credentials: "same-origin" });
}

function showSignIn() {
  stopPage();
  stopLive();
  content.replaceChildren(el("sl-signed-out").content.cloneNode(true));
  content.removeAttribute("aria-busy");
  document.title = "Sign in · Seamline";
  el("sl-status").replaceChildren();
  const form = content.querySelector("form");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const trouble = form.querySelector(".trouble");
    trouble.hidden = true;
    // The whole address that the command prints is as good as the token in it.
    const token = form.elements.token.value.trim().replace(/^.*#token=/, "");
    try {
      await signIn(token);
      await load(here());
    } catch (error) {
      trouble.textContent = error.message;
      trouble.hidden = false;
      form.elements.token.select();
    }
  });
  form.elements.token.focus();
}

// From page to page. Links and GET forms are plain HTML; here they swap the content only.

let loading = null;
let shown = "";
const here = () => location.pathname + location.search;

export async function go(url, { replace = false } = {}) {
  const target = new URL(url, location.href);
  history.replaceState({ ...history.state, y: scrollY }, "");
  history[replace ? "replaceState" : "pushState"]({ y: 0 }, "", target);
  await load(target.pathname + target.search, target.hash);
}

async function load(url, hash = "", y = 0) {
  loading?.abort();
  const mine = (loading = new AbortController());
  closeMenu();
  content.setAttribute("aria-busy", "true");
  let answer, text;
  try {
    answer = await request(url, { signal: mine.signal, headers: { accept: "text/html" } });
    if (answer.status === 401) { keep(null); showSignIn(); return; }
    text = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") return;
    content.removeAttribute("aria-busy");
    toast("The portal does not answer. Is the application running?", "bad");
    return;
  }
  if (mine.signal.aborted) return;
  const path = new URL(url, location.href).pathname;
  const same = path === shown;
  stopPage();
  stopLive();
  if ((answer.headers.get("content-type") ?? "").includes("html")) {
    await htmx.swap({ text, target: content, sourceElement: content, swap: same ? "innerMorph" : "innerHTML" });
  } else {
    const note = document.createElement("p");
    note.className = "trouble";
    note.textContent = said(await Promise.resolve(text).then(JSON.parse).catch(() => null), "This cannot be shown.");
    content.replaceChildren(note);
  }
  const first = shown === "";
  shown = path;
  content.removeAttribute("aria-busy");
  for (const link of document.querySelectorAll("#sl-nav a[data-page]")) {
    const at = link.dataset.page;
    const current = path === at || (at !== "/" && path.startsWith(at + "/"));
    if (current) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (!same) {
    if (!first) content.querySelector("h1")?.focus({ preventScroll: true });
    if (hash) document.getElementById(decodeURIComponent(hash.slice(1)))?.scrollIntoView(); else scrollTo(0, y);
  }
  await startPage();
  startLive();
}

addEventListener("popstate", (event) => load(here(), location.hash, event.state?.y ?? 0));
history.scrollRestoration = "manual";

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  if (link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
  if (link.pathname.startsWith("/v1/") || link.pathname.startsWith("/assets/")) return;
  if (link.pathname === location.pathname && link.search === location.search && link.hash) return;
  event.preventDefault();
  link.closest("dialog")?.close();
  go(link.href);
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.method === "dialog") return;
  if (form.hasAttribute("data-act")) {
    event.preventDefault();
    act(form, event.submitter);
  } else if (form.method === "get" && new URL(form.action).origin === location.origin) {
    event.preventDefault();
    const url = new URL(form.action);
    const fields = [...new FormData(form, event.submitter)].filter(([, value]) => value !== "");
    url.search = new URLSearchParams(fields);
    go(url);
  }
});
// A choice in a filter acts at once; text waits for Enter.
document.addEventListener("change", (event) => {
  if (event.target.matches("form[data-filters] :is(select, input[type=checkbox])")) event.target.form.requestSubmit();
});

// A page's own script: the element with data-script is handed to what it exports.

let stops = [];

async function startPage() {
  drawn?.forget();
  settle(content);
  for (const root of content.querySelectorAll("[data-script]")) {
    const { start } = await import(`./${root.dataset.script}`);
    if (!root.isConnected) return;
    const stop = await start(root, { request, go, act, toast, confirmed, settle });
    if (stop) stops.push(stop);
  }
}

function stopPage() {
  for (const stop of stops) stop();
  stops = [];
}

// What came new into the page: moments in the visitor's own time zone, charts.

let drawn = null;
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const calendar = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long", hour12: false });

export function settle(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    const today = Math.abs(Date.now() - at) < 20 * 3600e3;
    const text = time.hasAttribute("data-ago") ? ago(at) : (time.hasAttribute("data-day") || !today ? calendar : clock).format(at);
    if (time.textContent !== text) time.textContent = text;
    time.title = exact.format(at);
  }
  if (root.querySelector("[data-chart]")) charts(root);
}

async function charts(root) {
  drawn ??= await import("./charts.js");
  drawn.draw(root);
}

export function ago(at) {
  const s = Math.max(0, (Date.now() - at) / 1000);
  if (s < 90) return `${Math.round(s)} s ago`;
  if (s < 5400) return `${Math.round(s / 60)} min ago`;
  return s < 129600 ? `${Math.round(s / 3600)} h ago` : `${Math.round(s / 86400)} days ago`;
}

document.addEventListener("htmx:after:settle", (event) => settle(event.target));
document.addEventListener("htmx:config:request", (event) => {
  if (session) event.detail.ctx.request.headers["x-seamline-page"] = session.page;
});
document.addEventListener("htmx:before:response", (event) => {
  const { status } = event.detail.ctx.response;
  if (status < 400) return;
  event.preventDefault();
  if (status === 401) { keep(null); showSignIn(); } else toast(`That could not be shown (${status}).`, "bad");
});

// Server-sent events over fetch, because a session needs its header. A tab that nobody sees does not listen.

/** Every event of `url` to `hear(name, data, id)`, until `signal` says stop; connects again when the line breaks. */
export async function listen(url, hear, signal) {
  for (let wait = 500; !signal.aborted; wait = Math.min(wait * 2, 10000)) {
    try {
      const answer = await request(url, { signal, headers: { accept: "text/event-stream" } });
      if (answer.status === 401) { keep(null); showSignIn(); return; }
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      line(true);
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        wait = 500;
        const parts = (rest + value).split("\n\n");
        rest = parts.pop();
        for (const part of parts) {
          let name = "message", id = "";
          const data = [];
          for (const row of part.split("\n")) {
            if (row.startsWith("event: ")) name = row.slice(7);
            else if (row.startsWith("id: ")) id = row.slice(4);
            else if (row.startsWith("data: ")) data.push(row.slice(6));
          }
          if (data.length) hear(name, data.join("\n"), id);
        }
      }
    } catch {
      if (signal.aborted) return;
    }
    if (signal.aborted) return;
    line(false);
    await new Promise((resolve) => { setTimeout(resolve, wait); signal.addEventListener("abort", resolve, { once: true }); });
  }
}

function line(up) {
  const note = el("sl-line");
  note.hidden = up;
  note.textContent = up ? "" : "reconnecting";
}

// What the visitor has opened stays open when its surroundings change.
htmx.config.morphIgnore.push("open");

let listening = null;

function startLive() {
  stopLive();
  if (document.hidden || !session) return;
  listening = new AbortController();
  const { signal } = listening;
  listen("/live/status", (name, data, id) => hear(el("sl-status"), name, data, id), signal);
  for (const root of content.querySelectorAll("[sl-live]")) {
    listen(root.getAttribute("sl-live"), (name, data, id) => hear(root, name, data, id), signal);
  }
}

function stopLive() {
  listening?.abort();
  listening = null;
}

function hear(root, name, data, id) {
  if (name === "html") {
    const target = el(id);
    if (target) htmx.swap({ text: data, target, sourceElement: target, swap: "innerMorph" });
  } else if (name === "trouble") {
    toast(said({ error: JSON.parse(data) }, "Something went wrong."), "bad");
  } else {
    root.dispatchEvent(new CustomEvent(`sl:${name}`, { detail: JSON.parse(data), bubbles: true }));
  }
}

document.addEventListener("visibilitychange", () => (document.hidden ? stopLive() : startLive()));
addEventListener("pagehide", stopLive);

// Actions.

/** Ask the visitor; true if they agree. */
export function confirmed(title, text = "", yes = "Yes") {
  const dialog = el("sl-confirm");
  el("sl-confirm-title").textContent = title;
  el("sl-confirm-text").textContent = text;
  el("sl-confirm-yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

/** Send a form with `data-act`, show how it goes and what came of it. */
export async function act(form, submitter) {
  const { confirm, confirmText, confirmYes, progress } = form.dataset;
  if (confirm && !(await confirmed(confirm, confirmText, confirmYes))) return;
  const buttons = [...form.querySelectorAll("button")].filter((button) => !button.disabled);
  for (const button of buttons) button.disabled = true;
  form.setAttribute("aria-busy", "true");
  const board = progress ? openProgress(progress) : null;
  try {
    const body = new URLSearchParams([...new FormData(form, submitter?.disabled ? undefined : submitter)]);
    if (submitter?.name) body.set(submitter.name, submitter.value);
    const answer = await request(form.getAttribute("action") || here(), { method: "POST", body });
    if (answer.status === 401) { board?.close(); keep(null); showSignIn(); return; }
    if (!answer.ok) throw new Error(said(await answer.json().catch(() => null), `That was refused (${answer.status}).`));
    await outcome(answer, form, board);
  } catch (error) {
    if (board) board.trouble(error.message); else toast(error.message, "bad");
    form.dispatchEvent(new CustomEvent("sl:failed", { detail: error.message, bubbles: true }));
  } finally {
    for (const button of buttons) button.disabled = false;
    form.removeAttribute("aria-busy");
  }
}

async function outcome(answer, form, board) {
  const frames = (await collected(answer, (name, data) => { if (name === "progress") board?.say(data); }));
  const trouble = frames.find(([name]) => name === "trouble");
  if (trouble) throw new Error(said({ error: JSON.parse(trouble[1]) }, "That did not work."));
  const done = frames.find(([name]) => name === "done");
  if (!done) throw new Error("The answer broke off. Look whether it was done before you try again.");
  const { text, go: to, into, html, again } = JSON.parse(done[1]);
  if (board) board.done(text); else if (text) toast(text, "good");
  if (into) {
    const target = el(into);
    if (target) await htmx.swap({ text: html, target, sourceElement: target, swap: "innerHTML" });
  }
  form.dispatchEvent(new CustomEvent("sl:done", { bubbles: true }));
  if (to) await go(to); else if (again) await load(here());
}

async function collected(answer, hear) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  const frames = [];
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return frames;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const name = /^event: (.*)$/m.exec(part)?.[1];
      if (!name) continue;
      const data = [...part.matchAll(/^data: (.*)$/gm)].map((found) => found[1]).join("\n");
      hear(name, data);
      frames.push([name, data]);
    }
  }
}

function openProgress(title) {
  const dialog = el("sl-progress"), list = el("sl-progress-list"), trouble = el("sl-progress-trouble");
  el("sl-progress-title").textContent = title;
  list.replaceChildren();
  trouble.hidden = true;
  const say = (text) => {
    const item = document.createElement("li");
    item.textContent = text;
    list.append(item);
    item.scrollIntoView({ block: "nearest" });
    return item;
  };
  dialog.showModal();
  return {
    say,
    close: () => dialog.close(),
    // Who has closed the board meanwhile is told all the same.
    done(text) { if (dialog.open) say(text || "done").classList.add("over"); else toast(text || "done", "good"); },
    trouble(text) { if (!dialog.open) toast(text, "bad"); list.lastElementChild?.classList.add("over"); trouble.textContent = text; trouble.hidden = false; },
  };
}
el("sl-progress-close").addEventListener("click", () => el("sl-progress").close());

/** A sentence in the corner. It stays while it is pointed at, bad news until it is closed. */
export function toast(text, kind = "") {
  const note = document.createElement("div");
  note.className = `toast ${kind}`;
  const words = document.createElement("p");
  words.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.className = "quiet small";
  close.textContent = "Close";
  close.addEventListener("click", () => note.remove());
  note.append(words, close);
  el("sl-toasts").append(note);
  if (kind !== "bad") {
    const leave = () => (note.matches(":hover, :focus-within") ? setTimeout(leave, 2000) : note.remove());
    setTimeout(leave, 6000);
  }
  while (el("sl-toasts").children.length > 4) el("sl-toasts").firstElementChild.remove();
}

// The menu of narrow screens, the theme, the keys.

const nav = el("sl-nav"), menu = el("sl-menu"), shade = el("sl-shade");

function openMenu() {
  nav.classList.add("open");
  shade.hidden = false;
  menu.setAttribute("aria-expanded", "true");
  nav.querySelector("a[aria-current], a")?.focus();
}

function closeMenu() {
  if (!nav.classList.contains("open")) return;
  const inside = nav.contains(document.activeElement);
  nav.classList.remove("open");
  shade.hidden = true;
  menu.setAttribute("aria-expanded", "false");
  if (inside) menu.focus();
}

menu.addEventListener("click", () => (nav.classList.contains("open") ? closeMenu() : openMenu()));
shade.addEventListener("click", closeMenu);
el("sl-out").addEventListener("click", signOut);
el("sl-keys").addEventListener("click", () => el("sl-help").showModal());

function turnTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("seamline.theme", root.dataset.theme);
  document.dispatchEvent(new Event("sl:theme"));
}
el("sl-theme").addEventListener("click", turnTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("sl:theme")));

let leading = 0;
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeMenu();
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, [contenteditable]") || document.querySelector("dialog[open]")) return;
  const led = Date.now() - leading < 1200;
  leading = 0;
  if (led) {
    const entry = document.querySelector(`#sl-help a[data-key="${CSS.escape(event.key)}"]`);
    if (entry) { event.preventDefault(); go(entry.href); }
  } else if (event.key === "g") {
    leading = Date.now();
  } else if (event.key === "/") {
    const field = content.querySelector("[data-search], input[type=search], .filters input");
    if (field) { event.preventDefault(); field.focus(); field.select?.(); }
  } else if (event.key === "?") {
    el("sl-help").showModal();
  } else if (event.key === "r") {
    load(here());
  } else if (event.key === "t") {
    turnTheme();
  }
});

// The start: a token in the address signs in, and leaves the address at once.

async function begin() {
  const token = /^#token=(.+)$/.exec(location.hash)?.[1];
  if (token) {
    history.replaceState(null, "", here());
    try {
      await signIn(decodeURIComponent(token));
    } catch (error) {
      toast(error.message, "bad");
    }
  }
  keep(session);
  if (session) await load(here(), location.hash); else showSignIn();
}
begin();
