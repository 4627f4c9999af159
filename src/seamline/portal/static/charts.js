// Charts with uPlot: every figure with data-chart. Marks stand on each of them, and their cursors move together.
// data-chart: {"at": [seconds], "series": [{"name", "values", "unit", "kind"}], "marks": [{"at", "title", "kind"}]}

let uPlot = null;
const charts = new Map(); // figure to {plot, text, resize}

const UNITS = {
  ms: (v) => (v >= 1000 ? `${+(v / 1000).toPrecision(3)} s` : v >= 1 || v === 0 ? `${+v.toPrecision(3)} ms` : `${+(v * 1000).toPrecision(3)} µs`),
  s: (v) => (v >= 1 || v === 0 ? `${+v.toPrecision(3)} s` : UNITS.ms(v * 1000)),
  "/s": (v) => `${short(v)}/s`,
  ratio: (v) => `${+(v * 100).toPrecision(3)} %`,
  By: (v) => (v >= 1e9 ? `${+(v / 1e9).toPrecision(3)} GB` : v >= 1e6 ? `${+(v / 1e6).toPrecision(3)} MB` : v >= 1e3 ? `${+(v / 1e3).toPrecision(3)} kB` : `${v} B`),
};
const short = (v) => (Math.abs(v) >= 1e6 ? `${+(v / 1e6).toPrecision(3)} M` : Math.abs(v) >= 1e4 ? `${+(v / 1e3).toPrecision(3)} k` : `${+v.toPrecision(4)}`);
export const written = (value, unit) => (value == null ? "–" : UNITS[unit] ? UNITS[unit](value) : `${short(value)}${unit && unit !== "1" ? ` ${unit}` : ""}`);

async function library() {
  if (uPlot) return uPlot;
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = new URL("./vendor/uplot.css", import.meta.url);
  const script = document.createElement("script");
  script.src = new URL("./vendor/uplot.js", import.meta.url);
  const loaded = (node) => new Promise((resolve, reject) => { node.onload = resolve; node.onerror = reject; });
  const both = [loaded(style), loaded(script)];
  document.head.append(style, script);
  await Promise.all(both);
  return (uPlot = window.uPlot);
}

/** Draw what is new in `root`, and bring up to date what has other data than before. */
export async function draw(root) {
  const figures = root.matches?.("[data-chart]") ? [root] : [...root.querySelectorAll("[data-chart]")];
  if (!figures.length) return;
  await library();
  for (const figure of figures) if (figure.isConnected) drawOne(figure);
}

function drawOne(figure) {
  const text = figure.dataset.chart;
  const known = charts.get(figure);
  if (known?.text === text) return;
  const data = JSON.parse(text);
  if (known && known.shape === shape(data)) {
    known.text = text;
    known.marks.splice(0, Infinity, ...(data.marks ?? []));
    known.plot.setData(table(data));
    return;
  }
  known?.stop();
  charts.set(figure, make(figure, data, text));
}

const shape = (data) => data.series.map((each) => each.name).join("\n");
const table = (data) => [data.at, ...data.series.map((each) => each.values)];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

const PALETTE = ["accent", "warn", "good", "bad", "muted"];

function make(figure, data, text) {
  const holder = figure.querySelector(".plot");
  const marks = [...(data.marks ?? [])];
  const height = Number(figure.dataset.height) || 180;
  const unit = data.series[0]?.unit ?? "";
  const axis = () => ({ stroke: colour("muted"), font: "11px system-ui, sans-serif", grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } });
  const tip = document.createElement("div");
  tip.className = "chart-tip";
  tip.hidden = true;
  const options = {
    width: Math.max(holder.clientWidth, 120), height, legend: { show: false }, padding: [8, 18, 0, 0],
    cursor: { sync: { key: figure.dataset.sync ?? "page" }, points: { size: 6 }, drag: { x: false, y: false } },
    scales: { x: { time: true }, y: { range: (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.1 : 1] } },
    axes: [
      { ...axis(), space: 70, size: 24, values: (plot, splits) => splits.map((s) => moment(s, plot.scales.x.max - plot.scales.x.min < 240)) },
      { ...axis(), size: 58, space: 34, values: (_, splits) => splits.map((value) => written(value, unit)) },
    ],
    series: [{}, ...data.series.map((each, index) => {
      const stroke = each.colour ?? PALETTE[index % PALETTE.length];
      return {
        label: each.name, stroke: () => colour(stroke), width: 1.5, spanGaps: false, points: { show: false },
        fill: each.kind === "area" || (index === 0 && data.series.length === 1) ? () => `${colour(stroke)}22` : undefined,
        dash: each.kind === "before" ? [4, 4] : undefined,
      };
    })],
    hooks: { drawClear: [(plot) => drawMarks(plot, marks)], setCursor: [(plot) => show(plot, tip, figure, marks)] },
  };
  holder.replaceChildren(tip);
  const plot = new uPlot(options, table(data), holder);
  const watch = new ResizeObserver(() => { if (holder.clientWidth) plot.setSize({ width: holder.clientWidth, height }); });
  watch.observe(holder);
  return { plot, text, marks, shape: shape(data), stop: () => { watch.disconnect(); plot.destroy(); tip.remove(); } };
}

const format = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
const precise = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const moment = (s, fine) => (fine ? precise : format).format(new Date(s * 1000));

function drawMarks(plot, marks) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = colour("text");
  ctx.fillStyle = colour("text");
  ctx.globalAlpha = 0.55;
  ctx.lineWidth = devicePixelRatio;
  for (const mark of marks) {
    const x = Math.round(plot.valToPos(mark.at, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const r = 4 * devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(x - r, bbox.top);
    ctx.lineTo(x + r, bbox.top);
    ctx.lineTo(x, bbox.top + 1.4 * r);
    ctx.fill();
  }
  ctx.restore();
}

function show(plot, tip, figure, marks) {
  const { left, idx } = plot.cursor;
  if (left == null || left < 0 || idx == null || !figure.matches(":hover")) { tip.hidden = true; return; }
  const at = plot.data[0][idx];
  const rows = [row("", precise.format(new Date(at * 1000)))];
  plot.series.forEach((series, index) => {
    if (!index) return;
    const { unit } = JSON.parse(figure.dataset.chart).series[index - 1] ?? {};
    rows.push(row(series.label, written(plot.data[index][idx], unit)));
  });
  const near = marks.filter((mark) => Math.abs(plot.valToPos(mark.at, "x") - left) < 8);
  for (const mark of near) rows.push(row(mark.kind, mark.title));
  tip.replaceChildren(...rows);
  tip.hidden = false;
  const over = plot.over, room = over.clientWidth;
  tip.style.left = `${over.offsetLeft + (left > room / 2 ? Math.max(0, left - tip.offsetWidth - 12) : left + 12)}px`;
  tip.style.top = "6px";
}

function row(name, text) {
  const line = document.createElement("div");
  const label = document.createElement("span");
  const value = document.createElement("bdi");
  label.textContent = name;
  value.textContent = text;
  line.append(label, value);
  return line;
}

/** Charts that have left the page hold no memory. */
export function forget() {
  for (const [figure, chart] of charts) {
    if (!figure.isConnected) { chart.stop(); charts.delete(figure); }
  }
}

document.addEventListener("sl:theme", () => {
  for (const [figure, chart] of [...charts]) {
    chart.stop();
    charts.delete(figure);
    if (figure.isConnected) drawOne(figure);
  }
});
