// The sections of the page. Everything is drawn from the embedded JSON, so that no number is written twice.
const GROUP = (row) => `${row.environment}|${row.protocol}|${row.split}|${row.hash}|${row.n}`;
const link = (text, target) => /^(https?:\/\/|[\w./-]+$)/.test(target) ? h("a", { href: target }, text) : text;
const checkpoint = (row) => row.checkpoint ? h("code", {}, row.checkpoint) : row.trainSeed === null ? "none" : "not kept";
const environment = (row) => link(row.environmentTitle, `docs/envs/${row.environment}.md`);
const bounds = (row) => [row.floor, row.ceiling].map((r) => r === null ? "not run" : percent(r)).join(" / ");
const seedText = (row) => {
  const group = data.groups[row.group];
  return group.rows.length > 1 ? `${group.seeds}: ${group.text}` : row.trainings === 1 ? "1 training" : "-";
};
const seedTag = (row) => {
  if (data.groups[row.group].rows.length > 1) return row.trainSeed === null ? [] : [" ", h("span", { class: "tag", title: "Training seed" }, `seed ${row.trainSeed}`)];
  return row.trainings === 1 ? [" ", h("span", { class: "tag", title: "The spread between training seeds is not known" }, "one seed")] : [];
};
const rowName = (row) => [row.short, row.variant && h("small", { class: "variant" }, row.variant), ...seedTag(row)].filter(Boolean);

const COLUMNS = [
  { name: "Row", cell: rowName, sort: (r) => r.name, wide: true },
  { name: "Environment", cell: environment, sort: (r) => r.environmentTitle, tight: true },
  { name: "Success rate [95 % interval], n", cell: (r) => rateText(r.all), sort: (r) => r.all.rate, tight: true },
  { name: data.hard[0].toUpperCase() + data.hard.slice(1), cell: (r) => rateText(r.moved), sort: (r) => r.moved.rate, tight: true },
  { name: "Floor / ceiling", cell: bounds, tight: true },
  { name: "Seconds per plan", cell: (r) => secondsText(r.secondsPerPlan), sort: (r) => r.secondsPerPlan, tight: true },
  { name: "Seeds", cell: seedText, tight: true },
  { name: "Protocol", cell: (r) => [`${r.protocol}, ${r.split}`, h("br"), h("code", {}, r.hash)], sort: (r) => r.protocol, tight: true },
  { name: "Checkpoint", cell: checkpoint },
];

function barsSection(rows) {
  const panels = [...new Set(rows.map(GROUP))].map((key) => rows.filter((row) => GROUP(row) === key));
  return panels.map((panel) => {
    const [first] = panel;
    const lines = [[first.floor, "floor (random)"], [first.ceiling, "ceiling (oracle)"]].filter(([rate]) => rate !== null);
    const bars = panel.map((row) => h("div", { class: "bar" },
      h("div", { class: "name" }, row.short, ...seedTag(row), row.variant && h("small", {}, row.variant)),
      h("div", { class: "track", role: "img", "aria-label": `${row.name}: ${rateText(row.all)}` },
        h("i", { style: `width: ${100 * row.all.rate}%; background: ${colour(row)}` }),
        lines.map(([rate, name]) => h("u", { style: `left: ${100 * rate}%`, title: `${name} ${percent(rate)}` })),
        h("b", { style: `left: ${100 * row.all.low}%; width: ${100 * (row.all.high - row.all.low)}%` })),
      h("div", { class: "value" }, percent(row.all.rate), " ", h("small", {}, `[${(100 * row.all.low).toFixed(1)}, ${(100 * row.all.high).toFixed(1)}]`))));
    return h("div", { class: "card" },
      h("h3", {}, `${first.environmentTitle}, ${first.protocol}/${first.split}`),
      h("p", { class: "sub" }, `${first.n} pairs, hash `, h("code", {}, first.hash), `. Success within the fixed budget, Wilson 95 % interval.`),
      h("div", { class: "bars" }, bars, h("div", { class: "axis", "aria-hidden": "true" }, ["0", "25", "50", "75", "100 %"].map((t) => h("span", {}, t)))),
      legend([...lines.map(([rate, name]) => [`${name} ${percent(rate)}`, "", true]), ["yardstick, not learned", "var(--reference)"]]));
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
      section.group && h("p", { class: "sub" }, section.group),
      h("div", { class: "prose", html: section.about }),
      h("h4", {}, "Training objective"), h("div", { class: "formula", html: section.formula }), h("div", { class: "prose muted", html: section.symbols }),
      h("h4", {}, "Benchmark"), h("p", { class: "muted prose" }, data.budgetNote),
      own.length ? makeTable(columns, own, { name: section.title }) : h("p", { class: "muted" }, "No row in this report."));
  });
}

function trainingSection(rows) {
  const ids = [...new Set(rows.filter((row) => row.log !== null).map((row) => row.log))];
  if (!ids.length) return [h("p", { class: "muted" }, "No training log stands beside these rows.")];
  const logs = ids.map((id) => data.logs[id]);
  const metrics = [...new Set(logs.flatMap((log) => log.columns))];
  const select = h("select", { id: "metric" }, metrics.map((m) => h("option", {}, m)));
  const log = h("select", { id: "metric-scale" }, h("option", { value: "log" }, "logarithmic"), h("option", { value: "" }, "linear"));
  const chart = h("div");
  const draw = () => {
    const series = logs.flatMap((l, k) => {
      const c = l.columns.indexOf(select.value);
      const line = (points, validation) => ({ points: points.filter((p) => p[c + 1] !== null).map((p) => [p[0], p[c + 1]]), colour: `var(--c${k % 8})`, name: l.name + (validation ? ", validation" : ""), validation });
      return c < 0 ? [] : [line(l.train, false), line(l.validation, true)];
    });
    chart.replaceChildren(lineChart(series, { x: "optimiser step", y: select.value, log: log.value === "log", width: Math.min(1160, Math.max(340, innerWidth - 70)), height: 340 }));
  };
  select.addEventListener("change", draw);
  log.addEventListener("change", draw);
  draw();
  return [h("div", { class: "card" },
    h("div", { class: "controls" }, h("label", {}, h("span", {}, "Metric"), select), h("label", {}, h("span", {}, "Scale"), log)),
    chart, legend(logs.map((l, k) => [l.name, `var(--c${k % 8})`]).concat([["dashed: validation", "", true]])))];
}

function planningSection(rows) {
  const costs = rows.filter((row) => row.costs), distances = rows.filter((row) => row.distances);
  const names = (list) => legend(list.map((row) => [row.name, colour(row)]));
  const card = (title, sub, list, chart, none) => h("div", { class: "card" }, h("h3", {}, title), h("p", { class: "sub" }, sub), list.length ? [chart(), names(list)] : h("p", { class: "muted" }, none));
  return [h("div", { class: "charts" },
    card("Cost over iterations", "Best candidate of each iteration, relative to the first; median over plans, band: quartiles.", costs,
      () => lineChart(costs.map((row) => ({ points: row.costs.map(([, m], k) => [k + 1, m]), band: row.costs.map(([a, , b], k) => [k + 1, a, b]), colour: colour(row), name: row.name })), { x: "iteration", y: "relative cost" }),
      "Costs were not recorded in these runs; runs of this version and later record them."),
    card("Distance over time", "To the goal as success is judged, px; median over episodes, band: quartiles. Finished episodes keep their last distance.", distances,
      () => lineChart(distances.map((row) => ({ points: row.distances.map(([, m], k) => [k, m]), band: row.distances.map(([a, , b], k) => [k, a, b]), colour: colour(row), name: row.name })), { x: "env step", y: "distance, px" }),
      "No episodes are kept beside these rows."))];
}

function costSection(rows) {
  const t = (f) => (row) => row.training ? f(row.training) : "-";
  const machine = (row) => row.provenance ? `${row.provenance.machine.processor || row.provenance.machine.arch}, ${row.provenance.machine.cores} cores` : "not recorded";
  return [makeTable([
    { name: "Row", cell: (r) => [r.short, r.variant && h("small", { class: "variant" }, r.variant)].filter(Boolean), sort: (r) => r.name, wide: true },
    { name: "Parameters", cell: t((x) => countText(x.parameters)), sort: (r) => r.training ? r.training.parameters : 0, tight: true },
    { name: "Training", cell: t((x) => `${durationText(x.seconds)}, ${x.threads} threads`), sort: (r) => r.training ? r.training.seconds : 0, tight: true },
    { name: "Steps x batch", cell: t((x) => `${x.steps} x ${x.batch}`), tight: true },
    { name: "Training memory", cell: t((x) => x.peak_memory ? bytesText(x.peak_memory) : "not recorded"), tight: true },
    { name: "Seconds per plan", cell: (r) => secondsText(r.secondsPerPlan), sort: (r) => r.secondsPerPlan, tight: true },
    { name: "Steps to the end, mean", cell: (r) => r.meanSteps.toFixed(1), sort: (r) => r.meanSteps, tight: true },
    { name: "Evaluation memory", cell: (r) => r.provenance && r.provenance.peak_memory ? bytesText(r.provenance.peak_memory) : "not recorded", tight: true },
    { name: "Evaluated on", cell: machine },
  ], rows, { name: "Cost" })];
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
      p && ["Machine", `${p.machine.processor || p.machine.arch}, ${p.machine.cores} cores${p.machine.memory ? `, ${bytesText(p.machine.memory)}` : ""}, ${p.machine.os}, ${p.threads || "all"} threads`],
      ...row.notes.map((note) => ["Note", note]),
      ["Files", h("code", {}, row.path)],
    ].filter(Boolean);
    return h("details", { class: "card" }, h("summary", {}, h("h3", {}, row.name), " ", h("span", { class: "muted" }, `${row.environmentTitle}, ${row.split}`)), h("dl", {}, pairs.map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)])));
  });
}

const SECTIONS = { success: barsSection, table: tableSection, systems: systemsSection, training: trainingSection, planning: planningSection, episodes: episodesSection, cost: costSection, provenance: provenanceSection };

function render() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean), env = $("environment").value;
  const rows = data.rows.filter((row) => (!env || row.environment === env) && words.every((w) => row.search.includes(w)));
  $("none").hidden = rows.length > 0;
  for (const [id, section] of Object.entries(SECTIONS)) $(id).querySelector(".body").replaceChildren(...section(rows).filter(Boolean));
}

function start() {
  let next = 0;
  const colours = new Map();
  data.rows.forEach((row, id) => {
    row.id = id;
    if (!row.reference) {
      if (!colours.has(row.name)) colours.set(row.name, next++);
      row.colour = colours.get(row.name);
    }
    row.search = [row.name, row.system, row.environmentTitle, row.environment, row.protocol, row.split, row.hash].join(" ").toLowerCase();
  });
  const environments = new Map(data.rows.map((row) => [row.environment, row.environmentTitle]));
  $("environment").append(h("option", { value: "" }, "all"), ...[...environments].map(([value, name]) => h("option", { value }, name)));
  $("filter").addEventListener("input", render);
  $("environment").addEventListener("change", render);
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
