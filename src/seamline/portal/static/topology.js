// The topology's picture: modules inside workloads, calls that flow. Positions change only when what stands there does.

import cytoscape from "./vendor/cytoscape.js";
import { Graph, layout } from "./vendor/dagre.js";
import { written } from "./charts.js";

const STILL = matchMedia("(prefers-reduced-motion: reduce)");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const FONT = '13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';

export function start(root, { request, settle }) {
  const holder = root.querySelector("#topology-graph");
  const panel = root.querySelector("#topology-panel");
  keepStylesheet();
  const cy = cytoscape({
    container: holder, style: style(), elements: [], minZoom: 0.2, maxZoom: 2.5, userZoomingEnabled: false,
    boxSelectionEnabled: false, autoungrabify: true, selectionType: "single",
  });
  let placed = "", latest = null, chosen = null, taken = 0;

  function take(graph) {
    latest = graph;
    taken += 1;
    if (taken % 50 === 0) forgetLabels(cy);
    const wanted = new Map([...graph.nodes, ...graph.edges].map((each) => [each.id, each]));
    cy.batch(() => {
      cy.elements().filter((each) => !wanted.has(each.id())).forEach((each) => { if (each.isEdge()) each.remove(); });
      for (const node of graph.nodes) put("nodes", node);
      // A module that moves leaves its workload before that goes.
      for (const node of graph.nodes) {
        const found = cy.getElementById(node.id);
        if (node.kind !== "workload" && (found.parent().id() ?? null) !== (node.parent ?? null)) found.move({ parent: node.parent ?? null });
      }
      cy.elements().filter((each) => !wanted.has(each.id())).remove();
      for (const edge of graph.edges) if (wanted.has(edge.source) && wanted.has(edge.target)) put("edges", edge);
    });
    const shape = JSON.stringify([graph.nodes.map((each) => [each.id, each.parent]), holder.clientWidth < 640]);
    if (shape !== placed) arrange(graph, placed !== "");
    placed = shape;
    flow.measure();
  }

  function put(group, content) {
    const data = { ...content, text: label(content), wide: width(content) };
    const found = cy.getElementById(content.id);
    if (found.nonempty()) found.data(data);
    else cy.add({ group, data });
  }

  function planned(graph, rankdir) {
    const g = new Graph({ compound: true, multigraph: true });
    g.setGraph({ rankdir, nodesep: 24, ranksep: rankdir === "TB" ? 48 : 68, marginx: 12, marginy: 12 });
    g.setDefaultEdgeLabel(() => ({}));
    for (const node of graph.nodes) {
      g.setNode(node.id, node.kind === "workload" ? {} : { width: width(node) + 12, height: 56 });
    }
    for (const node of graph.nodes) if (node.parent) g.setParent(node.id, node.parent);
    for (const edge of graph.edges) if (edge.source !== edge.target) g.setEdge(edge.source, edge.target, {}, edge.id);
    for (const node of graph.nodes) if (node.kind === "workload" && !g.children(node.id).length) g.removeNode(node.id);
    layout(g);
    return g;
  }

  function arrange(graph, moving) {
    // From left to right or downwards: whichever can be drawn larger.
    const scale = (g) => Math.min(holder.clientWidth / g.graph().width, holder.clientHeight / g.graph().height, 1.15);
    const [across, down] = [planned(graph, "LR"), planned(graph, "TB")];
    const g = scale(across) >= scale(down) * 0.98 ? across : down;
    const at = (id) => ({ x: g.node(id).x, y: g.node(id).y });
    const leaves = cy.nodes().filter((each) => each.data("kind") !== "workload");
    if (moving && !STILL.matches) {
      leaves.forEach((each) => { each.animate({ position: at(each.id()) }, { duration: 450, easing: "ease-in-out-cubic" }); });
      setTimeout(() => { fit(); flow.measure(); }, 480);
    } else {
      leaves.positions((each) => at(each.id()));
      fit();
    }
  }

  function fit() {
    cy.fit(undefined, 26);
    if (cy.zoom() > 1.15) { cy.zoom(1.15); cy.center(); }
  }

  // What is selected, and what is known of it.

  async function choose(id) {
    chosen = id;
    const url = new URL(location.href);
    if (id) url.searchParams.set("node", id); else url.searchParams.delete("node");
    history.replaceState(history.state, "", url);
    cy.elements().unselect().removeClass("far");
    if (!id) { panel.hidden = true; panel.replaceChildren(); resized(); return; }
    const element = cy.getElementById(id);
    if (element.nonempty()) {
      element.select();
      const near = element.isEdge() ? element.union(element.connectedNodes()) : element.union(element.descendants()).closedNeighborhood();
      cy.elements().difference(near.union(near.parents())).addClass("far");
    }
    await refresh();
  }

  async function refresh() {
    if (!chosen) return;
    const asked = chosen;
    const answer = await request(`/topology/panel?node=${encodeURIComponent(asked)}`).catch(() => null);
    if (!answer || asked !== chosen) return;
    if (!answer.ok) { if (panel.hidden) chosen = null; return; }
    const text = await answer.text();
    if (asked !== chosen) return;
    const opening = panel.hidden;
    panel.hidden = false;
    await htmx.swap({ text, target: panel, sourceElement: panel, swap: "innerMorph" });
    settle(panel);
    if (opening) resized();
  }

  cy.on("tap", "node, edge", (event) => choose(event.target.id()));
  cy.on("tap", (event) => { if (event.target === cy) choose(null); });
  cy.on("mouseover", "node, edge", () => { holder.style.cursor = "pointer"; });
  cy.on("mouseout", "node, edge", () => { holder.style.cursor = ""; });
  const page = root.closest(".page");
  const onGraph = (event) => { take(event.detail); if (chosen && !panel.contains(document.activeElement)) refresh(); };
  page.addEventListener("sl:graph", onGraph);
  panel.addEventListener("click", (event) => { if (event.target.closest("[data-close]")) choose(null); });
  root.addEventListener("keydown", (event) => { if (event.key === "Escape" && !panel.hidden) choose(null); });
  root.querySelector(".graph-tools").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.hasAttribute("data-fit")) fit();
    else cy.zoom({ level: cy.zoom() * Number(button.dataset.zoom), renderedPosition: { x: cy.width() / 2, y: cy.height() / 2 } });
  });

  const flow = particles(cy, holder);
  let size = "";
  function resized() {
    requestAnimationFrame(() => {
      const now = `${holder.clientWidth}x${holder.clientHeight}`;
      if (now === size || !holder.isConnected) return;
      size = now;
      cy.resize();
      flow.resize();
      if (latest) take(latest);
      fit();
    });
  }
  const watch = new ResizeObserver(resized);
  watch.observe(holder);
  const repaint = () => { cy.style(style()); flow.paint(); };
  document.addEventListener("sl:theme", repaint);
  holder.picture = () => ({
    nodes: Object.fromEntries(cy.nodes().filter((each) => each.data("kind") !== "workload").map((each) => [each.id(), { ...each.position(), parent: each.parent().id() }])),
    edges: cy.edges().map((each) => each.id()),
  });
  take(JSON.parse(holder.dataset.graph));
  const asked = new URL(location.href).searchParams.get("node");
  if (asked) choose(asked);
  return () => {
    watch.disconnect();
    document.removeEventListener("sl:theme", repaint);
    page.removeEventListener("sl:graph", onGraph);
    flow.stop();
    cy.destroy();
  };
}

/** The library would write a style element, which our content policy refuses; with this it need not. */
function keepStylesheet() {
  const id = "__________cytoscape_stylesheet";
  if (document.getElementById(id)) return;
  const kept = document.createElement("link");
  kept.id = id;
  document.head.append(kept);
}

/** The library remembers every text that was ever drawn. Figures change for hours. */
function forgetLabels(cy) {
  cy.style().propCache = [];
}

const ruler = document.createElement("canvas").getContext("2d");

function label(each) {
  if (each.kind === "workload") return [each.label, each.note].filter(Boolean).join("  ");
  if (each.source) return each.rate ? written(Number(each.rate.toPrecision(2)), "/s") : "";
  if (!each.rate) return each.label;
  return `${each.label}\n${written(Number(each.rate.toPrecision(3)), "/s")}${each.p95 == null ? "" : ` · ${written(each.p95, "ms")}`}`;
}

function width(each) {
  ruler.font = FONT;
  // Room for figures to come, so that nothing moves when they do.
  return Math.max(124, ruler.measureText(each.label).width + 36);
}

function style() {
  const tone = (element) => css({ good: "line-strong", warn: "warn", bad: "bad", idle: "line-strong" }[element.data("state")] ?? "line-strong");
  const font = { "font-family": "system-ui, sans-serif", "font-size": 12.5, color: css("text") };
  return [
    { selector: "node", style: { ...font, label: "data(text)", "text-wrap": "wrap", "text-valign": "center", "text-halign": "center", "line-height": 1.3, shape: "round-rectangle", "corner-radius": 8, width: "data(wide)", height: 46, "background-color": css("surface"), "border-width": 1.5, "border-color": tone, "overlay-opacity": 0 } },
    { selector: 'node[kind = "module"][state = "bad"]', style: { "background-color": css("bad-soft"), "border-width": 2 } },
    { selector: 'node[kind = "module"][state = "warn"]', style: { "background-color": css("warn-soft") } },
    { selector: 'node[kind = "workload"]', style: { "background-color": css("sunk"), "background-opacity": 0.75, "border-width": 1, "border-style": "dashed", "border-color": css("line-strong"), padding: 16, "text-valign": "top", "text-margin-y": -4, "font-size": 11.5, color: css("muted"), "corner-radius": 12 } },
    { selector: 'node[kind = "public"]', style: { shape: "round-tag", "background-color": css("bg"), "border-style": "dashed" } },
    { selector: "edge", style: { ...font, "font-size": 11, color: css("muted"), label: "data(text)", "text-background-color": css("surface"), "text-background-opacity": 0.9, "text-background-padding": 2, "curve-style": "bezier", "target-arrow-shape": "triangle", "arrow-scale": 0.9, width: (each) => 1 + Math.min(4, Math.log2(1 + (each.data("rate") ?? 0)) / 2), "line-color": (each) => css(edgeTone(each)), "target-arrow-color": (each) => css(edgeTone(each)), "line-opacity": 0.65, "overlay-opacity": 0 } },
    { selector: 'edge[kind = "event"]', style: { "line-style": "dashed", "line-dash-pattern": [5, 4] } },
    { selector: "node:selected", style: { "border-color": css("accent"), "border-width": 2.5, "border-style": "solid" } },
    { selector: "edge:selected", style: { "line-color": css("accent"), "target-arrow-color": css("accent"), "line-opacity": 1 } },
    { selector: ".far", style: { opacity: 0.35 } },
  ];
}

const edgeTone = (each) => ({ warn: "warn", bad: "bad" })[each.data("state")] ?? "line-strong";

/** Calls as dots that run along the edges, on a canvas above the picture; as many as there is traffic, red where it fails. */
function particles(cy, holder) {
  const canvas = document.createElement("canvas");
  canvas.className = "graph-flow";
  holder.append(canvas);
  const ctx = canvas.getContext("2d");
  let ways = [], colours = {}, last = 0, asked = 0, time = 0;

  function resize() {
    canvas.width = holder.clientWidth * devicePixelRatio;
    canvas.height = holder.clientHeight * devicePixelRatio;
  }

  function paint() { colours = { good: css("accent"), bad: css("bad") }; }

  function measure() {
    const old = new Map(ways.map((each) => [each.id, each.phase]));
    ways = cy.edges().filter((each) => each.data("rate") > 0).map((each) => {
      const from = each.sourceEndpoint(), to = each.targetEndpoint(), bend = each.controlPoints()?.[0];
      const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
      const count = Math.max(1, Math.min(7, Math.round(Math.log2(1 + each.data("rate")))));
      return { id: each.id(), from, to, bend, length, count, red: Math.round(count * (each.data("errors") ?? 0)) || (each.data("state") === "bad" ? 1 : 0), far: each.hasClass("far"), phase: old.get(each.id()) ?? Math.random() };
    });
  }

  function frame(now) {
    asked = requestAnimationFrame(frame);
    if (now - last < 32 || STILL.matches || document.hidden) { if (STILL.matches) ctx.clearRect(0, 0, canvas.width, canvas.height); return; }
    time += Math.min(now - last, 100);
    last = now;
    const zoom = cy.zoom() * devicePixelRatio, pan = cy.pan();
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, canvas.width, canvas.height);
    ctx.setTransform(zoom, 0, 0, zoom, pan.x * devicePixelRatio, pan.y * devicePixelRatio);
    for (const way of ways) {
      if (way.far) continue;
      for (let i = 0; i < way.count; i += 1) {
        const t = (way.phase + i / way.count + (time * 0.07) / way.length) % 1;
        const { x, y } = point(way, t);
        ctx.fillStyle = i < way.red ? colours.bad : colours.good;
        ctx.beginPath();
        ctx.arc(x, y, 2.6, 0, 7);
        ctx.fill();
      }
    }
  }

  function point({ from, to, bend }, t) {
    const u = 1 - t;
    if (!bend) return { x: from.x * u + to.x * t, y: from.y * u + to.y * t };
    return { x: u * u * from.x + 2 * u * t * bend.x + t * t * to.x, y: u * u * from.y + 2 * u * t * bend.y + t * t * to.y };
  }

  resize();
  paint();
  asked = requestAnimationFrame(frame);
  cy.on("select unselect", () => setTimeout(measure));
  return { resize, paint, measure, stop: () => { cancelAnimationFrame(asked); canvas.remove(); } };
}
