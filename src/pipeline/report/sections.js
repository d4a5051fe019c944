// The sections of the page, each from the data alone.

const DATA = JSON.parse(document.getElementById("data").textContent);
const BY_NAME = new Map(DATA.stages.map((stage) => [stage.stage, stage]));
const TEMPLATES = new Map(DATA.templates.map((template) => [template.name, template]));
/** What is known of a stage, in the order in which stages are counted: as all commands call it. */
const STATES = new Map(DATA.states.map((state) => [state.name, state]));
const instances = (template) => DATA.stages.filter((stage) => stage.template === template);

/** A section with content. One without any stays hidden. */
function fillSection(id, ...content) {
  const section = document.getElementById(id);
  section.append(...content);
  section.hidden = false;
}

/** The state of a stage, as a symbol. */
function mark(state) {
  return h("span", { class: `mark ${state}`, title: state }, STATES.get(state).symbol);
}

function badge(state, text = state) {
  return h("span", { class: `state ${state}` }, STATES.get(state).symbol, " ", text);
}

const link = (name, text = name) => h("a", { href: `#stage=${name}` }, text);
const pointText = (stage) => Object.entries(stage.point).map(([axis, value]) => `${axis}=${value}`).join(", ") || stage.stage;
const isOld = (stage) => stage["last-run"] && !stage["last-run"]["is-current"];
const metricsOf = (stage) => stage["last-run"]?.metrics ?? {};
const used = (usage) => [usage["cpu-seconds"] !== undefined && `${duration(usage["cpu-seconds"])} of the processor`, usage["peak-memory"] !== undefined && `${size(usage["peak-memory"])} of memory`,
  usage["gpu-memory"] !== undefined && `${size(usage["gpu-memory"])} of a GPU's memory`, usage["bytes-in"] > 0 && `read ${size(usage["bytes-in"])}`].filter(Boolean).join(", ");
/** How long a run took, and which part of its work that was, where it continued from a checkpoint. */
const took = ({ seconds, usage: { share } }) => `${duration(seconds)}${share === undefined ? "" : ` (last ${share > 0 ? `${Math.max(100 * share, 1).toFixed(0)} %` : "part"})`}`;
const device = (run) => [run["ran-on"]?.name ?? run["ran-on"]?.device, run["ran-on"]?.threads && `${run["ran-on"].threads} threads`].filter(Boolean).join(", ");
/** The values of these stages on an axis, and `undefined` where some of them do not have the axis: those are a group of their own. */
function valuesOf(axis, stages) {
  const all = [...new Set(stages.map((stage) => stage.point[axis]))];
  return [...all.filter((value) => value !== undefined).sort(compare), ...all.filter((value) => value === undefined)];
}
const cleanMark = (stages) => (stages.some((stage) => stage["uses-clean-labels"]) ? " †" : "");
const cleanNote = (stages) => stages.some((stage) => stage["uses-clean-labels"]) && h("p", { class: "muted" }, "† Learned from labels known to be right, or was chosen by them.");
const oldNote = (stages) => stages.some(isOld) && h("p", { class: "muted" }, "Grey rows are results of earlier runs: those stages have changed since.");

/** Why a stage is not fresh, as a sentence. */
const isFinished = (stage) => stage.state === "fresh" || stage.state === "remote";
const WHY = { fresh: "", remote: "", dirty: "It must run: ", waiting: "It waits ", blocked: "It cannot run: " };
const whyNot = (stage) => stage.why && `${WHY[stage.state]}${stage.why}.`;

function countStates(stages) {
  return [...STATES.keys()].map((state) => [state, stages.filter((stage) => stage.status === state).length]).filter(([, count]) => count > 0);
}

function head() {
  const made = Number(document.querySelector("meta[name=made]").content);
  document.getElementById("head").append(
    h("h1", {}, DATA.experiment),
    DATA.about ? h("p", { class: "lead" }, DATA.about) : "",
    h("ul", { class: "states", "aria-label": "States of the stages" }, countStates(DATA.stages).map(([state, count]) => {
      const content = badge(state, `${count} ${STATES.get(state).counted}`);
      const first = DATA.stages.find((stage) => stage.status === state);
      return h("li", {}, ["running", "failed", "interrupted"].includes(state) ? h("a", { href: `#stage=${first.stage}` }, content) : content);
    })),
    h("div", { class: "facts" },
      h("span", {}, "Command: ", h("code", { class: "whole" }, DATA.command)),
      h("span", {}, "Page made ", time(made))));
  document.getElementById("foot").append(`Made by pipeline ${DATA.version} from ${DATA.manifest} and the cache in ${DATA.cache}. This page loads nothing from elsewhere.`);
}

function summaries() {
  const stages = DATA.stages.filter((stage) => stage.kind === "summarize");
  if (DATA["only-graph"] || stages.length === 0) return;
  const blocks = stages.map((stage) => {
    const isEmpty = !stage.tables && !stage.plots;
    const state = isFinished(stage) ? "" : h("p", {}, badge(stage.status), " ", isEmpty ? "There is no result yet. " : isOld(stage) ? "This is the result of an earlier run. " : "", whyNot(stage));
    const tables = (stage.tables ?? []).map((table) => [
      h("h3", {}, table.title || stage.stage),
      h("div", { class: "box-table", tabindex: 0 }, h("table", {},
        h("thead", {}, h("tr", {}, table.header.map((name, index) => h("th", { scope: "col", class: table.numbers[index] && "number" }, name)))),
        h("tbody", {}, table.rows.map((row) => h("tr", {}, row.map((cell, index) => h("td", { class: `${table.numbers[index] ? "number" : ""} ${cell.best ? "best" : ""}` }, cell.text))))))),
      table.notes.map((note) => h("p", { class: "muted" }, note))]);
    // As images: what is in them cannot reach the page.
    const plots = (stage.plots ?? []).map((plot) => h("figure", {},
      h("img", { alt: `${plot.name} of ${stage.stage}`, src: `data:image/svg+xml;charset=utf-8,${encodeURIComponent(plot.svg)}` })));
    return h("div", { class: "results" }, tables.length === 0 || stages.length > 1 ? h("p", {}, link(stage.stage)) : "", state, tables, plots);
  });
  fillSection("summaries", ...blocks);
}

function metrics() {
  const content = [];
  for (const template of [...DATA.templates].reverse()) {
    const stages = instances(template.name).filter((stage) => Object.keys(metricsOf(stage)).length > 0);
    if (stages.length === 0 || template.kind === "summarize") continue;
    const names = [...new Set(stages.flatMap((stage) => Object.keys(metricsOf(stage))))];
    const headline = template.headline.filter((name) => names.includes(name));
    // Those of a class (`test-accuracy/cat`) are after those of all.
    const depth = (name) => name.split("/").length;
    const others = names.filter((name) => !headline.includes(name)).sort((one, other) => depth(one) - depth(other) || compare(one, other));
    const few = headline.length > 0 ? headline : others.filter((name) => depth(name) === depth(others[0])).slice(0, 6);
    const columns = (chosen) => [
      ...(template.axes.length === 0 ? [{ name: "stage", of: (stage) => stage.stage, show: (stage) => link(stage.stage) }] : []),
      ...template.axes.map((axis, index) => ({ name: axis, of: (stage) => stage.point[axis],
        show: (stage) => (index === 0 ? link(stage.stage, stage.point[axis] ?? "–") : stage.point[axis] ?? "") })),
      ...chosen.map((name) => ({ name, of: (stage) => metricsOf(stage)[name] })),
      { name: "state", of: (stage) => stage.status, show: (stage) => [mark(stage.status), cleanMark([stage])] },
    ];
    const all = [...few, ...others.filter((name) => !few.includes(name))];
    const place = h("div");
    const draw = (isAll) => {
      const more = all.length > few.length && h("button", { class: "chip", type: "button", "aria-pressed": String(isAll), click: () => draw(!isAll) }, `All ${all.length} metrics`);
      place.replaceChildren(dataTable(columns(isAll ? all : few), stages, (stage) => isOld(stage) && "old", more ? [more] : []));
    };
    draw(false);
    const missing = instances(template.name).length - stages.length;
    content.push(h("h3", {}, template.name, " ", h("span", { class: "muted" }, template.kind)),
      place, missing > 0 ? h("p", { class: "muted" }, `${missing} without a result yet`) : "", oldNote(stages) || "", cleanNote(stages) || "");
  }
  if (content.length > 0) fillSection("metrics", ...content);
}

/** The curves of a stage: each value of its tables over epochs or steps. */
function curvesOf(stage) {
  const curves = [];
  for (const table of [stage.curves, stage.evaluations].filter(Boolean)) {
    const x = Math.max(table.columns.indexOf("epoch"), 0);
    table.columns.forEach((name, column) => {
      if (column === x || (table === stage.evaluations && name === "step")) return;
      const points = table.rows.filter((row) => row[x] !== null && row[column] !== null).map((row) => [row[x], row[column]]);
      if (points.length > 0) curves.push({ name, x: table.columns[x], points });
    });
  }
  return curves;
}

/** The mean of the curves with this colour, where all of them have a value. */
function meanOf(name, colour, runs) {
  const own = runs.filter((one) => one.colour === colour);
  const sums = new Map();
  for (const [x, y] of own.flatMap((one) => one.points)) {
    const [count, sum] = sums.get(x) ?? [0, 0];
    sums.set(x, [count + 1, sum + y]);
  }
  const points = [...sums].filter(([, [count]]) => count === own.length).map(([x, [count, sum]]) => [x, sum / count]);
  points.sort((one, other) => one[0] - other[0]);
  return points.length > 0 && { name: `${name} (${own.length})${cleanMark(own.map((one) => one.stage))}`, colour, points };
}

function curves() {
  const all = DATA.stages.map((stage) => [stage, curvesOf(stage)]).filter(([, curves]) => curves.length > 0);
  const templates = [...new Set(all.map(([stage]) => stage.template))].reverse();
  if (templates.length === 0) return;
  const place = h("div");
  let off = new Set();
  let chosen = { template: templates.find((name) => TEMPLATES.get(name).kind === "train") ?? templates[0], metric: null, by: null };
  const draw = () => {
    const runs = all.filter(([stage]) => stage.template === chosen.template);
    const names = [...new Set(runs.flatMap(([, curves]) => curves.map((curve) => curve.name)))];
    if (!names.includes(chosen.metric)) chosen.metric = names.find((name) => name === "test-accuracy") ?? names.find((name) => name.includes("accuracy")) ?? names[0];
    const axes = TEMPLATES.get(chosen.template).axes;
    const values = (axis) => valuesOf(axis, runs.map(([stage]) => stage));
    const varying = axes.filter((axis) => values(axis).length > 1);
    if (chosen.by === null || (chosen.by !== "run" && !varying.includes(chosen.by))) {
      chosen.by = runs.length > 8 ? varying.find((axis) => axis !== "seed") ?? "run" : "run";
    }
    const order = chosen.by === "run" ? null : values(chosen.by);
    const series = runs.map(([stage, curves], index) => {
      const curve = curves.find((curve) => curve.name === chosen.metric);
      const colour = order ? order.indexOf(stage.point[chosen.by]) : index;
      return { name: `${pointText(stage)}${cleanMark([stage])}`, stage, colour, x: curve?.x, points: curve?.points ?? [] };
    }).filter((one) => one.points.length > 0);
    const nameOf = (axis, value) => `${axis}=${value ?? "–"}`;
    // Not a name of a stage, and not of a value that is called "–".
    const keyOf = (axis, value) => JSON.stringify([axis, value ?? null]);
    const hidden = (one) => off.has(one.stage.stage) || axes.some((axis) => off.has(keyOf(axis, one.stage.point[axis])));
    const drawn = () => {
      const runs = series.filter((one) => !hidden(one));
      return order ? [...runs.map((one) => ({ ...one, pale: true })), ...order.map((value, colour) => meanOf(nameOf(chosen.by, value), colour, runs)).filter(Boolean)] : runs;
    };
    const figure = lineChart(drawn, series[0]?.x ?? "epoch", order ? `${chosen.metric}: means of all runs with one ${chosen.by}, and each run behind them` : chosen.metric);
    const chip = (key, content) => h("button", { class: "chip", type: "button", "aria-pressed": String(!off.has(key)), click: (event) => {
      if (off.has(key)) off.delete(key); else off.add(key);
      event.currentTarget.setAttribute("aria-pressed", String(!off.has(key)));
      figure.querySelector(".chart").redraw();
    } }, content);
    const filters = varying.map((axis) => h("div", { class: "chips" }, h("span", { class: "muted" }, axis), values(axis).map((value) =>
      chip(keyOf(axis, value), order && axis === chosen.by
        ? [swatch(order.indexOf(value)), value ?? "–", cleanMark(series.filter((one) => one.stage.point[axis] === value).map((one) => one.stage))]
        : [value ?? "–"]))));
    const legend = series.map((one) => chip(one.stage.stage, [swatch(one.colour), one.name, isOld(one.stage) ? mark(one.stage.status) : ""]));
    const thinned = runs.some(([stage]) => stage.curves?.of || stage.evaluations?.of);
    place.replaceChildren(
      h("div", { class: "controls" },
        templates.length > 1 ? choice("Stage", templates.map((name) => [name, name]), chosen.template, (value) => { chosen = { template: value, metric: chosen.metric, by: null }; off = new Set(); draw(); }) : "",
        choice("Value", names.map((name) => [name, name]), chosen.metric, (value) => { chosen.metric = value; draw(); }),
        varying.length > 0 ? choice("Colour by", [["run", "run"], ...varying.map((axis) => [axis, axis])], chosen.by, (value) => { chosen.by = value; draw(); }) : ""),
      varying.length > 1 || order ? h("div", { class: "controls" }, filters) : "", figure,
      series.length > 0 ? h(series.length > 12 ? "details" : "div", {}, series.length > 12 ? h("summary", {}, `${series.length} runs`) : "", h("div", { class: "chips legend" }, legend)) : "",
      cleanNote(series.map((one) => one.stage)) || "",
      thinned ? h("p", { class: "muted" }, "Long curves are thinned: not every row of the file is drawn.") : "");
  };
  fillSection("curves", place);
  draw();
}

/** A section about one of several stages, which is chosen by its values on the axes. */
function oneOf(id, stages, show) {
  if (stages.length === 0) return;
  const controls = h("div", { class: "controls" });
  const place = h("div");
  const draw = (stage) => {
    const templates = [...new Set(stages.map((one) => one.template))];
    const same = stages.filter((one) => one.template === stage.template);
    const values = (axis) => valuesOf(axis, same);
    const axes = TEMPLATES.get(stage.template).axes.filter((axis) => values(axis).length > 1);
    // Of the stages with this value, the one that is most like the one before.
    const like = (one) => axes.filter((axis) => one.point[axis] === stage.point[axis]).length;
    const withValue = (axis, value) => same.filter((one) => one.point[axis] === value).reduce((best, one) => (like(one) > like(best) ? one : best));
    controls.replaceChildren(
      templates.length > 1 ? choice("Stage", templates.map((name) => [name, name]), stage.template, (name) => draw(stages.find((one) => one.template === name))) : "",
      // By its place: a choice is a text, and the group without the axis has none.
      ...axes.map((axis) => choice(axis, values(axis).map((value, place) => [String(place), value ?? "–"]), String(values(axis).indexOf(stage.point[axis])),
        (place) => draw(withValue(axis, values(axis)[place])))),
      link(stage.stage));
    place.replaceChildren(isOld(stage) ? h("p", {}, badge(stage.status), " This is the result of an earlier run. ", whyNot(stage)) : "", ...show(stage));
  };
  fillSection(id, controls, place);
  draw(stages[0]);
}

/** Facts side by side. */
function strip(entries) {
  const list = facts(entries);
  list.className = "strip";
  return list;
}

function evaluation() {
  oneOf("evaluation", DATA.stages.filter((stage) => stage.confusion || stage.reliability), (stage) => {
    const shown = ["test-accuracy", "test-loss", "test-ece", "noise-detection-auc"].filter((name) => name in metricsOf(stage));
    const bins = stage.reliability?.rows.map(([bin, samples, confidence, accuracy]) => {
      const count = stage.reliability.rows.length;
      return { low: (bin - 1) / count, high: bin / count, samples: samples ?? 0, confidence: confidence ?? 0, accuracy: accuracy ?? 0 };
    });
    return [strip(shown.map((name) => [name, number(metricsOf(stage)[name])])), h("div", { class: "pair" },
      stage.confusion ? matrix("Confusion matrix: samples by true class (rows) and predicted class (columns)", stage.confusion.classes, stage.confusion.rows, String) : "",
      bins ? h("figure", {}, h("figcaption", {}, "Reliability: bars show how often a prediction of this confidence is right; paler bars have fewer samples"), reliabilityChart(bins)) : "")];
  });
}

function noise() {
  oneOf("noise", DATA.stages.filter((stage) => stage.noise), ({ noise, "wrong-labels": wrong }) => {
    const percent = (value) => (value === 0 ? "0" : (100 * value).toFixed(value < 0.0995 ? 1 : 0));
    const requested = noise["requested-matrix"];
    return [strip([
      ["noise", noise.noise],
      ["requested rate", noise["requested-rate"] !== undefined ? number(noise["requested-rate"]) : null],
      ["only labels of", noise["corrupted-classes"]?.join(", ")],
      ["realised rate", number(noise["realised-rate"])],
      ["labels", `${number(noise.corrupted)} of ${number(noise.samples)} are wrong`],
    ]), h("div", { class: "pair" },
      requested ? matrix("Requested, in percent: true class (rows), given label (columns)", noise.classes, requested, percent) : "",
      matrix("Realised, in percent", noise.classes, noise["realised-matrix"], percent)),
      wrong ? h("figure", {}, h("figcaption", {}, wrong.length < noise.corrupted ? `${wrong.length} of ${number(noise.corrupted)} training images with a wrong label: true class → label` : "The training images with a wrong label: true class → label"),
        h("ul", { class: "samples" }, wrong.map((label) => h("li", { title: `training sample ${label.index}` },
          h("img", { alt: `Training sample ${label.index}`, src: label.image }), h("span", {}, label.clean), h("span", {}, `→ ${label.given}`))))) : ""];
  });
}

function views() {
  oneOf("views", DATA.stages.filter((stage) => stage.views), (stage) => [h("figure", {},
    h("figcaption", {}, "A training image in each row: the image, and its two views in the first epoch"),
    h("img", { class: "pixels", alt: `Training images of ${stage.stage} and their views`, src: stage.views }))]);
}

function times() {
  const seen = new Set();
  const rows = DATA.templates.map((template) => {
    const runs = instances(template.name).filter((stage) => {
      // Instances with one key are one run.
      const key = stage["last-run"]?.key;
      return key && !seen.has(key) && seen.add(key);
    });
    const seconds = runs.reduce((sum, stage) => sum + stage["last-run"].seconds, 0);
    const cpu = runs.map((stage) => stage["last-run"].usage["cpu-seconds"]).filter((seconds) => seconds !== undefined).reduce((sum, seconds) => sum + seconds, 0);
    const memory = runs.map((stage) => stage["last-run"].usage["peak-memory"] ?? 0).reduce((most, bytes) => Math.max(most, bytes), 0);
    return { name: template.name, seconds, cpu, memory, words: `${runs.length === 1 ? "1 run" : `${runs.length} runs`}, ${duration(seconds)}`,
      runs: runs.map((stage) => ({ start: stage["last-run"].finished - stage["last-run"].seconds, end: stage["last-run"].finished,
        words: `${stage.stage}: ${took(stage["last-run"])}`, link: `#stage=${stage.stage}` })) };
  }).filter((row) => row.runs.length > 0);
  if (rows.length === 0 || DATA["only-graph"]) return;
  const total = rows.reduce((sum, row) => sum + row.seconds, 0);
  fillSection("time", h("p", { class: "muted" }, `The last run of each stage: ${duration(total)} in all. Times without any run are cut out.`), timeline(rows),
    h("div", { class: "narrow" }, dataTable([
      { name: "stage", of: (row) => row.name },
      { name: "runs", of: (row) => row.runs.length },
      { name: "time", of: (row) => row.seconds, show: (row) => duration(row.seconds) },
      { name: "share", of: (row) => row.seconds / total, show: (row) => `${(100 * row.seconds / total).toFixed(1)} %` },
      { name: "processor", of: (row) => row.cpu || undefined, show: (row) => (row.cpu ? duration(row.cpu) : "") },
      { name: "peak memory", of: (row) => row.memory || undefined, show: (row) => (row.memory ? size(row.memory) : "") },
    ], rows)));
}

function runs() {
  if (DATA.runs.length === 0) return;
  const commit = (run) => run.git && `${run.git.commit.slice(0, 10)}${run.git.dirty ? ", changed since" : ""}`;
  fillSection("runs", h("p", { class: "muted" }, `The runs of this experiment that did something, newest first; ${"`pipeline history show RUN`"} has the manifest of each.`), dataTable([
    { name: "began", of: (run) => run.began, show: (run) => time(run.began) },
    { name: "run", of: (run) => run.run, show: (run) => h("code", { class: "whole" }, run.run) },
    { name: "took", of: (run) => run.seconds ?? undefined, show: (run) => (run.seconds === null ? "" : duration(run.seconds)) },
    { name: "result", of: (run) => run.state },
    { name: "ran", of: (run) => run.ran },
    { name: "failed", of: (run) => run.failed },
    { name: "asked for", of: (run) => run.asked.join(" ") || "everything" },
    { name: "host", of: (run) => run.host },
    ...(DATA.runs.some((run) => run.git) ? [{ name: "commit", of: commit }] : []),
  ], DATA.runs));
}

function origin() {
  if (DATA["only-graph"]) return;
  const run = (stage) => stage["last-run"];
  const column = (name, of, show) => ({ name, of: (stage) => run(stage) && of(run(stage), stage), show: show && ((stage) => (run(stage) ? show(run(stage), stage) : "")) });
  const code = (text) => h("code", { title: text }, text.slice(0, 8));
  fillSection("origin", h("p", { class: "muted" }, "A result depends on its key alone: the kind and its version, the parameters, the seed, and the content of every input."),
    dataTable([
      { name: "stage", of: (stage) => stage.stage, show: (stage) => [mark(stage.status), " ", link(stage.stage)] },
      column("kind", (_, stage) => stage.kind),
      column("version", (run) => run["kind-version"] ?? undefined),
      column("seed", (run) => run.seed ?? undefined, (run) => String(run.seed ?? "")),
      column("key", (run) => run.key, (run) => code(run.key)),
      column("artifact", (run) => run.artifact, (run) => code(run.artifact)),
      column("pipeline", (run) => run.version, (run) => run.version),
      column("device", device, device),
      column("host", (run) => run.host),
      column("finished", (run) => run.finished, (run) => time(run.finished)),
      column("took", (run) => run.seconds, took),
    ], DATA.stages, (stage) => isOld(stage) && "old"), oldNote(DATA.stages) || "");
}

function manifest() {
  if (DATA["only-graph"]) return;
  fillSection("manifest", DATA.changes.length > 0 ? h("p", {}, "Changed on the command line: ", DATA.changes.map((change) => [h("code", {}, change), " "])) : "",
    ...DATA.files.map((file, index) => h("details", { open: index === 0 }, h("summary", {}, file.name), h("pre", { tabindex: 0 }, file.text))));
}
