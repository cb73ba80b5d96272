// The sections of the page. Everything is drawn from the embedded JSON, so that no number is written twice.
const GROUP = (row) => `${row.environment}|${row.protocol}|${row.split}|${row.hash}|${row.n}`;
const checkpoint = (row) => row.checkpoint ? h("code", {}, row.checkpoint) : row.trainSeed === null ? "none" : "not kept";
const environment = (row) => row.environmentPage ? h("a", { href: row.environmentPage }, row.environmentTitle) : row.environmentTitle;
const bounds = (row) => [row.floor, row.ceiling].map((r) => r === null ? "not run" : percent(r)).join(" / ");
const seedText = (row) => {
  const group = data.groups[row.group];
  if (group.rows.length > 1) return [twoLines(group.text, " ("), small(group.seeds)];
  return row.trainings === 1 ? "1 training" : "-";
};
const seedTag = (row) => {
  if (row.seeds) return [" ", h("span", { class: "tag" }, row.seeds)];
  return row.trainings === 1 ? [" ", h("span", { class: "tag", title: "The spread between training seeds is not known" }, "one seed")] : [];
};
/** Seeds of the same row that are not among `rows`. */
const folded = (row, rows) => data.groups[row.group].rows.map((id) => data.rows[id]).filter((other) => !rows.includes(other));
/** Rows by environment: [title, rows]. */
const byEnvironment = (rows) => [...new Set(rows.map((row) => row.environmentTitle))].map((title) => [title, rows.filter((row) => row.environmentTitle === title)]);
const rowName = (row) => [row.short, row.variant && small(row.variant), ...seedTag(row)].filter(Boolean);

const COLUMNS = [
  { name: "Row", cell: rowName, sort: (r) => r.name, wide: true },
  { name: "Environment, protocol", cell: (r) => [environment(r), small(`${r.protocol}, ${r.split}`, h("br"), h("code", {}, r.hash))], sort: (r) => r.environmentTitle + r.protocol, tight: true },
  { name: "Success rate [95 % interval], n", cell: (r) => rateCell(r.all), sort: (r) => r.all.rate, tight: true },
  { name: data.hard[0].toUpperCase() + data.hard.slice(1), cell: (r) => rateCell(r.moved), sort: (r) => r.moved.rate, tight: true },
  { name: "Floor / ceiling", cell: bounds, tight: true },
  { name: "Seconds per plan", cell: (r) => secondsText(r.secondsPerPlan), sort: (r) => r.secondsPerPlan, tight: true },
  { name: "Seeds", cell: seedText },
  { name: "Checkpoint", cell: checkpoint },
];

function barsSection(rows) {
  const panels = [...new Set(rows.map(GROUP))].map((key) => rows.filter((row) => GROUP(row) === key));
  return panels.map((panel) => {
    const [first] = panel;
    const lines = [[first.floor, "floor (random)", "dot"], [first.ceiling, "ceiling (oracle)", "dash"]].filter(([rate]) => rate !== null);
    const more = panel.some((row) => folded(row, rows).length);
    const bars = panel.map((row) => h("div", { class: "bar" },
      h("div", { class: "name" }, row.short, ...seedTag(row), row.variant && h("small", {}, row.variant)),
      h("div", { class: "track", role: "img", "aria-label": `${row.name}: ${rateText(row.all)}` },
        h("i", { style: `width: ${100 * row.all.rate}%; background: ${colour(row)}` }),
        lines.map(([rate, name, mark]) => h("u", { class: mark === "dot" && "floor", style: `left: ${100 * rate}%`, title: `${name} ${percent(rate)}` })),
        h("b", { style: `left: ${100 * row.all.low}%; width: ${100 * (row.all.high - row.all.low)}%` }),
        folded(row, rows).map((other) => h("s", { style: `left: ${100 * other.all.rate}%`, title: `${other.seeds}: ${rateText(other.all)}` }))),
      h("div", { class: "value" }, percent(row.all.rate), " ", h("small", {}, `[${(100 * row.all.low).toFixed(1)}, ${(100 * row.all.high).toFixed(1)}]`))));
    return h("div", { class: "card" },
      h("h3", {}, `${first.environmentTitle}, ${first.protocol}/${first.split}`),
      h("p", { class: "sub" }, `${first.n} pairs, hash `, h("code", {}, first.hash), `. Success within the fixed budget, Wilson 95 % interval.`),
      h("div", { class: "bars" }, bars, h("div", { class: "axis", "aria-hidden": "true" }, ["0", "25", "50", "75", "100 %"].map((t) => h("span", {}, t)))),
      legend([...lines.map(([rate, name, mark]) => [`${name} ${percent(rate)}`, "", mark]), ["yardstick, not learned", "var(--reference)"], ...(more ? [["other seeds", "", "ring"]] : [])]));
  });
}

function tableSection(rows) {
  const hashes = new Set(rows.map(GROUP)).size;
  return [
    makeTable(COLUMNS, rows, { name: "All rows" }),
    h("p", { class: "hint" }, data.hardNotes.join(" ") + " ", hashes > 1 && `These rows belong to ${hashes} sets of pairs; compare within one only. `, "An interval covers the choice of pairs, not the spread between training seeds."),
  ];
}

function systemsSection(rows) {
  const columns = [
    { name: "Environment", cell: (r) => [environment(r), r.details && `, ${r.details}`], sort: (r) => r.environmentTitle, wide: true },
    ...[2, 3, 4].map((i) => COLUMNS[i]), { name: "Checkpoint", cell: checkpoint },
  ];
  return data.sections.map((section) => {
    const own = rows.filter((row) => row.system === section.system);
    return h("details", { class: "card", open: own.length > 0, id: `system-${section.system}` },
      h("summary", {}, h("h3", {}, section.title), " ", own.length === 0 && h("span", { class: "tag" }, "no row here")),
      h("div", { class: "prose", html: section.about }),
      h("h4", {}, "Training objective"), h("div", { class: "formula", html: section.formula }), h("div", { class: "prose muted", html: section.symbols }),
      h("h4", {}, "Benchmark"), h("p", { class: "muted prose" }, data.budgetNote),
      own.length ? makeTable(columns, own, { name: section.title }) : h("p", { class: "muted" }, "No row in this report."));
  });
}

function trainingSection(rows) {
  const logged = byEnvironment(rows.filter((row) => row.log !== null)).map(([title, own]) => [title, [...new Set(own.map((row) => row.log))].map((id) => ({ ...data.logs[id], colour: colour(own.find((row) => row.log === id)) }))]);
  if (!logged.length) return [h("p", { class: "muted" }, "No training log stands beside these rows.")];
  const metrics = [...new Set(logged.flatMap(([, logs]) => logs.flatMap((log) => log.columns)))];
  const select = h("select", { id: "metric" }, metrics.map((m) => h("option", {}, m)));
  const scale = h("select", { id: "metric-scale" }, h("option", { value: "log" }, "logarithmic"), h("option", { value: "" }, "linear"));
  const charts = h("div", { class: "charts" });
  const card = ([title, logs]) => {
    const own = logs.filter((log) => log.columns.includes(select.value));
    const series = own.flatMap((log) => {
      const c = log.columns.indexOf(select.value);
      const line = (points, dashed) => ({ points: points.filter((p) => p[c + 1] !== null).map((p) => [p[0], p[c + 1]]), colour: log.colour, name: log.name + (dashed ? ", validation" : ""), dashed });
      return [line(log.train, false), line(log.validation, true)];
    });
    return h("div", { class: "card" }, h("h3", {}, title), lineChart(series, { x: "optimiser step", y: select.value, log: scale.value === "log" }),
      legend([...own.map((log) => [log.name, log.colour]), ["validation", "", "dash"]]));
  };
  const draw = () => charts.replaceChildren(...logged.map(card));
  select.addEventListener("change", draw);
  scale.addEventListener("change", draw);
  draw();
  return [h("div", { class: "controls" }, h("label", {}, h("span", {}, "Metric"), select), h("label", {}, h("span", {}, "Scale"), scale)), charts];
}

/** Bands of more curves than these hide each other. */
const MOST_BANDS = 5;

/** A chart for each environment of one quantity per row: medians, and quartiles of a few. */
function bandCharts(title, sub, rows, quantity, first, axes, none) {
  if (!rows.length) return h("div", { class: "card" }, h("h3", {}, title), h("p", { class: "muted" }, none));
  return byEnvironment(rows).map(([environment, own]) => {
    const bands = own.length <= MOST_BANDS;
    const series = own.map((row) => ({ points: row[quantity].map(([, m], k) => [k + first, m]), band: bands && row[quantity].map(([a, , b], k) => [k + first, a, b]), colour: colour(row), name: row.name, dashed: row.system === "random" }));
    return h("div", { class: "card" }, h("h3", {}, `${title}, ${environment}`), h("p", { class: "sub" }, `${sub}${bands ? " Band: quartiles." : ""}`), lineChart(series, axes),
      legend(own.map((row) => [row.name, colour(row), row.system === "random" && "dash"])));
  });
}

function planningSection(rows) {
  const distances = rows.filter((row) => row.distances && (!row.reference || ["random", "oracle"].includes(row.system)));
  return [h("div", { class: "charts" },
    bandCharts("Cost over iterations", "Best candidate of each iteration, relative to the first; median over plans.", rows.filter((row) => row.costs),
      "costs", 1, { x: "iteration", y: "relative cost" }, "Costs were not recorded in these runs; runs of this version and later record them."),
    bandCharts("Distance over time", "To the goal as success is judged, px; median over episodes. Finished episodes keep their last distance.", distances,
      "distances", 0, { x: "env step", y: "distance, px" }, "No episodes are kept beside these rows."))];
}

function costSection(rows) {
  const t = (f) => (row) => row.training ? f(row.training) : "-";
  return [makeTable([
    { name: "Row", cell: rowName, sort: (r) => r.name, wide: true },
    { name: "Environment", cell: (r) => r.environmentTitle, sort: (r) => r.environmentTitle, tight: true },
    { name: "Parameters", cell: t((x) => countText(x.parameters)), sort: (r) => r.training ? r.training.parameters : 0, tight: true },
    { name: "Training", cell: t((x) => [durationText(x.seconds), small(`${x.steps} x ${x.batch}, ${x.threads} threads`)]), sort: (r) => r.training ? r.training.seconds : 0, tight: true },
    { name: "Its memory", cell: t((x) => x.peak_memory ? bytesText(x.peak_memory) : "not recorded"), tight: true },
    { name: "Trained on", cell: t((x) => machineText(x.machine)) },
    { name: "Seconds per plan", cell: (r) => secondsText(r.secondsPerPlan), sort: (r) => r.secondsPerPlan, tight: true },
    { name: "Steps to the end, mean", cell: (r) => r.meanSteps.toFixed(1), sort: (r) => r.meanSteps, tight: true },
    { name: "Evaluation memory", cell: (r) => r.provenance && r.provenance.peak_memory ? bytesText(r.provenance.peak_memory) : "not recorded", tight: true },
    { name: "Evaluated on", cell: (r) => machineText(r.provenance && r.provenance.machine) },
  ], rows, { name: "Cost" }), h("p", { class: "hint" }, data.costNote)];
}

function provenanceSection(rows) {
  return rows.map((row) => {
    const p = row.provenance, x = row.training;
    const pairs = [
      ["Command", h("code", {}, row.command)],
      ["Protocol", `${row.protocol}, ${row.split}, hash ${row.hash}, evaluation seed ${row.seed}`],
      row.checkpointHash && ["Weights", `${row.checkpoint || ""} (hash ${row.checkpointHash})`],
      row.settings && ["Settings", h("code", {}, row.settings)],
      x && ["Training", `${x.steps} steps of ${x.batch}, seed ${x.seed === null ? "not recorded" : x.seed}, data ${x.data_hash || "not recorded"}`],
      p && ["Program", `worldbench ${p.version}, ${p.git ? `git ${p.git.revision.slice(0, 12)}${p.git.modified ? " with changes" : ""}` : "no checkout"}, ${p.finished}`],
      p && ["Machine", `${machineText(p.machine)}${p.machine.memory ? `, ${bytesText(p.machine.memory)}` : ""}, ${p.machine.os}, ${p.threads || "all"} threads`],
      ...row.notes.map((note) => ["Note", note]),
      ["Files", h("code", {}, row.path)],
    ].filter(Boolean);
    return h("details", { class: "card" }, h("summary", {}, h("h3", {}, row.name), " ", h("span", { class: "muted" }, `${row.environmentTitle}, ${row.split}`)), h("dl", {}, pairs.map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])));
  });
}

const SECTIONS = { success: barsSection, table: tableSection, systems: systemsSection, training: trainingSection, planning: planningSection, episodes: episodesSection, cost: costSection, provenance: provenanceSection };

function render() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean), env = $("environment").value;
  const found = data.rows.filter((row) => (!env || row.environment === env) && words.every((w) => row.search.includes(w)));
  const shown = new Set();
  const rows = $("seeds").value ? found : found.filter((row) => !shown.has(row.group) && shown.add(row.group));
  $("none").hidden = rows.length > 0;
  for (const [id, section] of Object.entries(SECTIONS)) $(id).querySelector(".body").replaceChildren(...section(rows).filter(Boolean));
}

function start() {
  let next = 0;
  const colours = new Map();
  data.rows.forEach((row, id) => {
    row.id = id;
    if (!row.reference) {
      // One colour for a method on every environment: what follows the first comma are inputs and settings.
      const method = row.short + row.variant.split(",")[0];
      if (!colours.has(method)) colours.set(method, next++);
      row.colour = colours.get(method);
    }
    row.search = [row.name, row.seeds, row.system, row.environmentTitle, row.environment, row.protocol, row.split, row.hash].join(" ").toLowerCase();
  });
  const environments = new Map(data.rows.map((row) => [row.environment, row.environmentTitle]));
  $("environment").append(h("option", { value: "" }, "all"), ...[...environments].map(([value, name]) => h("option", { value }, name)));
  $("filter").addEventListener("input", render);
  $("environment").addEventListener("change", render);
  $("seeds").addEventListener("change", render);
  $("seeds-label").hidden = data.groups.every((group) => group.rows.length === 1);
  const dark = matchMedia("(prefers-color-scheme: dark)"), root = document.documentElement;
  const theme = () => { root.dataset.theme = dark.matches ? "dark" : "light"; };
  theme();
  dark.addEventListener("change", theme);
  $("theme").addEventListener("click", () => { root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark"; });
  $("made").textContent = `Made by worldbench ${data.made.version}${data.made.git ? `, git ${data.made.git.revision.slice(0, 12)}` : ""}, ${data.made.finished}: ${data.made.command}`;
  wireViewer();
  render();
  const found = /^#episode=(\d+)-(\d+)$/.exec(location.hash);
  const row = found && data.rows[+found[1]];
  if (row && row.episodes) openEpisode(row, +found[2]);
}
start();
