"use strict";
// Draws the history in the colours of the page. The filters select what is shown; a chart is drawn when it comes into
// view, or when the page is printed.
(() => {
  const { groups } = JSON.parse(document.getElementById("data").textContent);
  const selects = [...document.querySelectorAll(".filters select")];
  const chosen = () => Object.fromEntries(selects.map((select) => [select.id.slice(3), select.value]));
  const colour = (name) => getComputedStyle(document.body).getPropertyValue(`--${name}`).trim();
  const HUES = ["accent", "second", "good", "third", "ink", "muted", "bad"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x"];

  const waiting = new Map();
  const draw = (box) => {
    const make = waiting.get(box);
    if (!make) return;
    waiting.delete(box);
    sight.unobserve(box);
    const { traces, layout } = make();
    const axis = { gridcolor: colour("grid"), linecolor: colour("muted"), zeroline: false, automargin: true,
                   fixedrange: true, tickfont: { color: colour("muted") } };
    Plotly.newPlot(box, traces, {
      height: 210, margin: { l: 8, r: 12, t: 8, b: 8 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: colour("muted") }, showlegend: false, dragmode: false,
      hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("grid"), font: { color: colour("ink") }, align: "left" },
      ...layout, xaxis: { ...axis, showgrid: false, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
    }, { displayModeBar: false, responsive: true });
  };
  const sight = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
  }, { rootMargin: "300px" });

  const chart = (into, title, note, make, { height = 210, wide = false, bad = false } = {}) => {
    const whole = document.createElement("div");
    whole.className = wide ? "chart wide" : "chart";
    const heading = document.createElement("h3");
    const small = document.createElement("small");
    small.textContent = note;
    small.className = bad ? "bad" : "";
    heading.append(title, small);
    const box = document.createElement("div");
    box.className = "plot";
    box.style.minHeight = `${height}px`;
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", `${title}: ${note}`);
    whole.append(heading, box);
    into.append(whole);
    waiting.set(box, make);
    sight.observe(box);
  };

  const two = (value) => value === null || value === undefined ? "–" : String(Number(value.toPrecision(3)));
  const short = (n) => n >= 1000 ? `${Number((n / 1000).toPrecision(3))}k` : String(n);

  // Runs are equally spaced, whatever their dates. At most about four dates are written below, so that they fit.
  const overRuns = (runs) => {
    const step = Math.max(1, Math.ceil(runs.length / 4));
    const at = runs.map((_, i) => i).filter((i) => i % step === 0);
    return { tickvals: at, ticktext: at.map((i) => runs[i].date.slice(2, 10)), range: [-0.5, Math.max(runs.length - 0.5, 1.5)] };
  };
  const told = (run) => `${run.date.slice(0, 16).replace("T", " ")} ${run.commit}${run.changed ? " with changes" : ""}`;

  const line = (name, x, y, k, more = {}) => ({
    name, x, y, type: "scatter", mode: "lines+markers", connectgaps: true, line: { color: colour(HUES[k % HUES.length]), width: 1.8 },
    marker: { color: colour(HUES[k % HUES.length]), symbol: SYMBOLS[k % SYMBOLS.length], size: 7 }, ...more,
  });
  const titled = (text) => ({ text, standoff: 6, font: { size: 12 } });
  const legend = { showlegend: true, legend: { orientation: "h", y: -0.2, yanchor: "top", x: 0, font: { size: 12 } } };

  const history = (runs, figure) => () => {
    const at = runs.map((_, i) => i);
    const edge = { x: at, type: "scatter", mode: "lines", line: { width: 0 }, hoverinfo: "skip", connectgaps: false };
    const texts = runs.map((run, i) => `${told(run)}<br>${two(figure.values[i])}` +
      (figure.low[i] === null ? "" : `, expected ${two(figure.low[i])} … ${two(figure.high[i])}`));
    const dots = runs.length > 80 ? 3 : 6;
    const known = figure.values.filter((value) => value !== null);
    return {
      traces: [
        { ...edge, y: figure.low, name: "band from" },
        { ...edge, y: figure.high, name: "band to", fill: "tonexty", fillcolor: colour("soft"), opacity: 0.5 },
        { x: at, y: figure.values, name: "run", type: "scatter", mode: "lines+markers", connectgaps: true, text: texts,
          hoverinfo: "text", line: { color: colour("accent"), width: 1.4 }, marker: { color: colour("accent"), size: dots } },
        { x: figure.below, y: figure.below.map((i) => figure.values[i]), name: "slower", type: "scatter", mode: "markers",
          text: figure.below.map((i) => `slower: ${texts[i]}`), hoverinfo: "text",
          marker: { color: colour("bad"), symbol: "triangle-down", size: 10 } },
      ],
      layout: { xaxis: overRuns(runs), yaxis: { range: [0, 1.12 * Math.max(...known, ...figure.high.filter((v) => v !== null))] } },
    };
  };

  const render = () => {
    const by = chosen();
    waiting.clear();
    sight.disconnect();
    for (const grid of document.querySelectorAll(".charts")) {
      for (const box of grid.querySelectorAll(".js-plotly-plot")) Plotly.purge(box);
      grid.replaceChildren();
    }
    for (const part of document.querySelectorAll("[data-group]")) part.hidden = part.dataset.group !== `${by.machine} ${by.mode}`;
    for (const row of document.querySelectorAll(".rows tbody tr")) {
      const [, job, , dtype, threads] = [...row.cells].map((cell) => cell.textContent);
      row.hidden = (by.job && job !== by.job) || (by.dtype && dtype !== by.dtype) || (by.threads && threads !== by.threads);
    }
    const group = groups.find((g) => g.machine === by.machine && g.mode === by.mode);
    const into = (id) => document.getElementById(id);
    if (!group) {
      for (const grid of document.querySelectorAll(".charts")) grid.textContent = `No ${by.mode} runs on this machine.`;
      return;
    }
    const { runs } = group;
    const wanted = group.series.filter((s) => (!by.job || s.job === by.job) && (!by.dtype || s.dtype === by.dtype));
    const shown = wanted.filter((s) => !by.threads || s.threads === by.threads);

    for (const s of shown.filter((s) => s[by.figure])) {
      const figure = s[by.figure];
      const last = figure.values.findLast((value) => value !== null);
      const bad = figure.below.includes(runs.length - 1);
      const unit = by.figure === "peer" ? "× the best peer" : `of ${s.bound}`;
      chart(into("charts-over"), s.name, `${two(last)} ${unit}${bad ? ", slower" : ""}`, history(runs, figure), { bad });
    }

    const newest = (s) => s.ceiling.values.at(-1);
    const perClass = (title, note, unit, value, among) => {
      const jobs = [...new Set(among.map((s) => `${s.job}${by.dtype ? "" : ` ${s.dtype}`}`))];
      const lines = jobs.map((name) => among
        .filter((s) => `${s.job}${by.dtype ? "" : ` ${s.dtype}`}` === name && value(s) !== null)
        .sort((a, b) => a.classes - b.classes)).map((found, k) => ({ found, k, name: jobs[k] })).filter(({ found }) => found.length > 1);
      if (!lines.length) return;
      const classes = [...new Set(lines.flatMap(({ found }) => found.map((s) => s.classes)))].sort((a, b) => a - b);
      chart(into("charts-scaling"), title, note, () => ({
        traces: lines.map(({ found, k, name }) => line(name, found.map((s) => s.classes), found.map(value), k,
          { hovertemplate: `${name}, C = %{x}: %{y:.3g} ${unit}<extra></extra>` })),
        layout: { height: 320, ...legend, yaxis: { rangemode: "tozero", title: titled(unit) },
                  xaxis: { type: "log", tickvals: classes, ticktext: classes.map(short), title: titled("classes") } },
      }), { height: 320 });
    };
    const kernels = wanted.filter((s) => s.job !== "evaluate");
    const withThreads = kernels.filter((s) => s.threads === (by.threads || "all"));
    perClass("Fraction of the ceiling", `${by.dtype || "all dtypes"}, ${by.threads || "all"} threads`.replace("one threads", "one thread"),
      "of the ceiling", newest, withThreads);
    const rateOf = new Map(kernels.filter((s) => s.threads === "one" && newest(s) !== null).map((s) => [`${s.job} ${s.classes} ${s.dtype}`, s.rate]));
    perClass("Speed-up of all threads", "", "× one thread", (s) => {
      const one = rateOf.get(`${s.job} ${s.classes} ${s.dtype}`);
      return one && newest(s) !== null ? Number((s.rate / one).toPrecision(4)) : null;
    }, kernels.filter((s) => s.threads === "all"));

    for (const [kind, file] of [["array functions", false], ["files", true]]) {
      const compared = shown.filter((s) => newest(s) !== null && Object.keys(s.peers).length && (s.job === "evaluate") === file);
      if (!compared.length) continue;
      const label = (s) => s.name.replace("evaluate ", "").replace(` ${by.dtype}`, "");
      const ratios = compared.flatMap((s) => Object.values(s.peers));
      const ends = [0.8 * Math.min(1, ...ratios), 1.25 * Math.max(1, ...ratios)].map(Math.log10);
      const peers = [...new Set(compared.flatMap((s) => Object.keys(s.peers)))];
      const height = 90 + 24 * compared.length;
      chart(into("charts-peers"), `Peers: ${kind}`, `our speed relative to each peer; left of the line the peer is faster`, () => ({
        traces: peers.map((peer, k) => {
          const found = compared.filter((s) => s.peers[peer] !== undefined);
          return line(peer, found.map((s) => s.peers[peer]), found.map(label), k,
            { mode: "markers", hovertemplate: `%{y}: %{x:.3g} × ${peer}<extra></extra>` });
        }),
        layout: {
          height, showlegend: true, legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0, font: { size: 12 } },
          xaxis: { type: "log", range: ends, showgrid: true, dtick: "D2", title: titled("relative speed") },
          yaxis: { autorange: "reversed", type: "category", categoryarray: compared.map(label), tickfont: { color: colour("ink"), size: 11 } },
          shapes: [{ type: "line", x0: 1, x1: 1, yref: "paper", y0: 0, y1: 1, line: { color: colour("second"), width: 1.4, dash: "dash" } }],
        },
      }), { height, wide: true });
    }

    const at = runs.map((_, i) => i);
    const text = runs.map(told);
    const dots = runs.length > 40 ? { mode: "lines" } : {};
    chart(into("charts-process"), "Start-up", "seconds of a new process", () => ({
      traces: Object.entries(group.startup).map(([name, values], k) => line(name, at, values, k,
        { ...dots, text, hovertemplate: `%{text}<br>${name}: %{y:.3g} s<extra></extra>` })),
      layout: { height: 320, ...legend, xaxis: overRuns(runs), yaxis: { type: "log", dtick: 1, title: titled("seconds") } },
    }), { height: 320 });
    chart(into("charts-process"), "Peak memory", "of evaluate, with one row group larger than its memory limit", () => ({
      traces: [line("peak", at, group.memory.peak, 0, { ...dots, text, hovertemplate: "%{text}<br>%{y:.0f} MB<extra></extra>" }),
               line("limit", at, group.memory.limit, 1, { mode: "lines", hoverinfo: "skip", line: { color: colour("second"), dash: "dash", width: 1.4 } })],
      layout: { height: 320, ...legend, xaxis: overRuns(runs), yaxis: { rangemode: "tozero", title: titled("MB") } },
    }), { height: 320 });
  };

  for (const select of selects) select.addEventListener("change", () => {
    if (select.id === "by-machine" && !groups.some((g) => g.machine === select.value && g.mode === chosen().mode)) {
      document.getElementById("by-mode").value = groups.find((g) => g.machine === select.value).mode;
    }
    render();
  });
  for (const media of ["(prefers-color-scheme: dark)", "print"]) matchMedia(media).addEventListener("change", () => {
    render();
    if (matchMedia("print").matches) drawAll();
  });
  const drawAll = () => { for (const box of [...waiting.keys()]) draw(box); };
  addEventListener("beforeprint", drawAll);
  render();
})();
