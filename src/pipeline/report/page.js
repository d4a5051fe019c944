// The chosen stage, and the page as a whole.

/** What is known of a stage, or of all instances of one. */
function showStage(name) {
  const place = document.getElementById("stage");
  const stage = BY_NAME.get(name);
  const template = TEMPLATES.get(stage ? stage.template : name);
  if (!template) return false;
  const all = instances(template.name);
  if (stage && (all.length === 1 || name !== template.name)) place.replaceChildren(...details(stage, all).flat(Infinity));
  else place.replaceChildren(...overview(template, all));
  place.scrollTop = 0;
  for (const node of document.querySelectorAll(".picture a")) {
    const chosen = node.getAttribute("href") === `#stage=${template.name}`;
    node.classList.toggle("chosen", chosen);
    if (chosen) node.setAttribute("aria-current", "true"); else node.removeAttribute("aria-current");
  }
  for (const edge of document.querySelectorAll(".picture .edge")) {
    edge.classList.toggle("chosen", edge.dataset.from === template.name || edge.dataset.to === template.name);
  }
  return true;
}

function overview(template, all) {
  const names = [...new Set(all.flatMap((stage) => Object.keys(metricsOf(stage))))];
  const shown = (template.headline.length > 0 ? template.headline.filter((name) => names.includes(name)) : names).slice(0, 2);
  return [
    h("h3", {}, template.name, " ", h("span", { class: "muted" }, template.kind)),
    h("ul", { class: "states" }, countStates(all).map(([state, count]) => h("li", {}, badge(state, `${count} ${STATES.get(state).counted}`)))),
    h("p", { class: "muted" }, `${all.length} instances`),
    dataTable([
      { name: "instance", of: pointText, show: (stage) => [mark(stage.status), " ", link(stage.stage, pointText(stage))] },
      ...shown.map((name) => ({ name, of: (stage) => metricsOf(stage)[name] })),
    ], all, (stage) => isOld(stage) && "old"),
  ];
}

/** The inputs of a stage; of a stage with many instances at one port, how many, and the links folded: as `pipeline graph` has it. */
function reads(inputs) {
  const templateOf = (input) => BY_NAME.get(input.from)?.template ?? input.from;
  const groups = new Map();
  for (const input of inputs) {
    const key = JSON.stringify([input.port, templateOf(input)]);
    groups.set(key, [...(groups.get(key) ?? []), input]);
  }
  return [...groups.values()].map((group) => {
    const { port, from } = group[0];
    const before = port === from ? "" : `${port}: `;
    if (group.length <= DATA["most-names"]) return h("div", {}, before, group.map((input, index) => [index > 0 ? ", " : "", link(input.from)]));
    return h("details", {}, h("summary", {}, `${before}${group.length} of ${templateOf(group[0])}`), group.map((input) => h("div", {}, link(input.from))));
  });
}

function details(stage, all) {
  const run = stage["last-run"];
  const running = stage.running;
  const values = Object.entries(metricsOf(stage));
  const isSet = (value) => value !== null && (typeof value !== "object" || Object.keys(value).length > 0);
  const parameters = Object.entries(stage.parameters).filter(([, value]) => isSet(value));
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const most = 12;
  return [
    h("h3", {}, stage.template, " ", h("span", { class: "muted" }, stage.kind)),
    Object.keys(stage.point).length > 0 ? h("p", { class: "point" }, pointText(stage)) : "",
    h("p", {}, badge(stage.status)),
    all.length > 1 ? h("p", { class: "back" }, link(stage.template, `← all ${all.length} instances`)) : "",
    stage.why ? h("p", {}, whyNot(stage)) : "",
    stage.failed ? [h("p", {}, h("b", {}, "Its last run failed"), ", ", time(stage.failed.at)), h("pre", { class: "failure", tabindex: 0 }, stage.failed.message)] : "",
    stage.interrupted ? h("p", {}, h("b", {}, "Its last run was interrupted"), stage.interrupted.at ? [", ", time(stage.interrupted.at)] : "",
      `${stage.interrupted.reached ? `, at ${stage.interrupted.reached}` : ""}${stage.interrupted.host ? `, on ${stage.interrupted.host}` : ""}. The next run ${stage.interrupted["has-checkpoint"] ? "continues from its checkpoint" : "begins again"}.`) : "",
    running ? h("p", {}, h("b", {}, "Running now"), ` on ${running.owner.host} since `, time(running.owner.since)) : "",
    run && !run["is-current"] ? h("p", { class: "muted" }, "What follows is its last run, before it changed.") : "",
    facts([
      ["reads", stage.inputs.length > 0 ? reads(stage.inputs) : null],
      ["seed", stage.seed === undefined ? null : String(stage.seed)],
      ["last run", run ? [time(run.finished), `, took ${took(run)}`] : "never"],
      ["used", run ? used(run.usage) : null],
      ["because", run?.reason],
      ["on", run ? [run.host, device(run) ? ` (${device(run)})` : ""].join("") : null],
      ["remark", run?.["ran-on"]?.remark],
      ["versions", run ? `pipeline ${run.version}, ${stage.kind} ${run["kind-version"] ?? ""}` : null],
      ["declared", `line ${stage.line}${stage.file ? ` of ${stage.file}` : ""}`],
      ["key", run?.key || stage.key ? h("code", { class: "whole" }, run?.key ?? stage.key) : null],
      ["artifact", run ? h("code", { class: "whole" }, run.path) : null],
      ["size", run ? `${size(run.bytes)}, ${run.files === 1 ? "1 file" : `${run.files} files`}` : null],
    ]),
    values.length > 0 ? h("details", { open: values.length <= most }, h("summary", {}, `Metrics (${values.length})`), facts(values.map(([name, value]) => [name, number(value)]))) : "",
    parameters.length > 0 ? h("details", { open: parameters.length <= most }, h("summary", {}, `Parameters (${parameters.length})`), facts(parameters.map(([name, value]) => [name, h("code", {}, text(value))]))) : "",
    (stage.notes ?? []).map((note) => h("p", { class: "muted" }, note)),
    stage.log ? [h("details", { open: true }, h("summary", {}, stage.log["left-out"] > 0 ? `The end of its log (${size(stage.log["left-out"])} before it)` : "Log"), h("pre", { tabindex: 0 }, stage.log.text))] : "",
  ];
}

/** Shows the stage that the address names. */
function follow(event) {
  const hash = decodeURIComponent(location.hash);
  if (!hash.startsWith("#stage=") || !showStage(hash.slice("#stage=".length)) || !event) return;
  const place = document.getElementById("stage");
  place.focus({ preventScroll: true });
  const { top, bottom } = place.getBoundingClientRect();
  // On a phone it is below the graph; a link from elsewhere on the page leads to it.
  if (top < 0 || top > innerHeight * 0.6 || bottom < 80) place.scrollIntoView({ block: "start" });
}

function contents() {
  const sections = [...document.querySelectorAll("main section:not([hidden])")];
  document.getElementById("contents").append(...sections.map((section) => h("a", { href: `#${section.id}` }, section.querySelector("h2").textContent)));
}

for (const fill of [head, summaries, metrics, curves, evaluation, noise, views, times, runs, origin, manifest, contents]) fill();
const first = DATA.templates.find((template) => instances(template.name).some((stage) => !isFinished(stage))) ?? DATA.templates[DATA.templates.length - 1];
if (first) showStage(first.name);
addEventListener("hashchange", follow);
follow(null);
// For whoever checks that the page has been made.
document.documentElement.dataset.ready = "true";
