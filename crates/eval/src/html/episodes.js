// The grid of episodes, and the viewer that draws one from its recorded states.
const UNITS = { frame: 100 }; // milliseconds per env step: the environments run at 10 Hz

/** The states of an episode as numbers, from rounded differences per value. */
function unpack(episode, scene) {
  const values = episode.states.map((column, c) => { let v = 0; return column.map((d) => (v += d) / scene.scales[c]); });
  return values[0].map((_, t) => values.map((column) => column[t]));
}
const goalOf = (episode, scene) => episode.goal.map((v, c) => v / scene.scales[c]);

const hex = (rgb) => `rgb(${rgb.join(",")})`;

function drawBody(g, body, state, style) {
  const [x, y, angle] = [state[body.pose[0]], state[body.pose[1]], body.pose.length > 2 ? state[body.pose[2]] : 0];
  g.save();
  g.translate(x, y);
  g.rotate(angle);
  const shape = new Path2D();
  if (body.radius) shape.arc(0, 0, body.radius, 0, 2 * Math.PI);
  for (const part of body.parts) { part.forEach(([px, py], i) => i ? shape.lineTo(px, py) : shape.moveTo(px, py)); shape.closePath(); }
  g.fillStyle = style.fill; g.strokeStyle = style.line; g.lineWidth = style.width; g.setLineDash(style.dash || []);
  // Outline below, fill above: the seams between the parts of a body do not show.
  g.stroke(shape);
  if (style.fill) g.fill(shape);
  g.restore();
}

/** Draws the scene at a state, the goal over it, and where the bodies have been. */
function drawScene(canvas, scene, states, goal, time) {
  const g = canvas.getContext("2d"), scale = canvas.width / scene.size;
  g.setTransform(scale, 0, 0, scale, 0, 0);
  g.fillStyle = hex(scene.background);
  g.fillRect(0, 0, scene.size, scene.size);
  for (const item of scene.statics) {
    g.fillStyle = hex(item.fill);
    g.beginPath();
    item.polygon.forEach(([x, y], i) => i ? g.lineTo(x, y) : g.moveTo(x, y));
    g.fill();
  }
  const unit = scene.size / 512, t0 = Math.min(Math.floor(time), states.length - 1), t1 = Math.min(t0 + 1, states.length - 1), f = time - t0;
  const now = states[t0].map((v, c) => {
    let d = states[t1][c] - v;
    if (scene.turns.includes(c)) d = Math.atan2(Math.sin(d), Math.cos(d));
    return v + f * d;
  });
  for (const body of scene.bodies) {
    g.beginPath();
    states.slice(0, t0 + 1).concat([now]).forEach((s, i) => i ? g.lineTo(s[body.pose[0]], s[body.pose[1]]) : g.moveTo(s[body.pose[0]], s[body.pose[1]]));
    g.strokeStyle = hex(body.line); g.globalAlpha = 0.45; g.lineWidth = 2 * unit; g.setLineDash([]); g.stroke(); g.globalAlpha = 1;
  }
  for (const body of scene.bodies) drawBody(g, body, now, { fill: hex(body.fill), line: hex(body.line), width: 4 * unit });
  for (const body of scene.bodies) drawBody(g, body, goal, { fill: "rgb(46 160 67 / 0.16)", line: "rgb(30 130 60)", width: 2.5 * unit, dash: [7 * unit, 5 * unit] });
}

const viewer = { row: null, at: 0, time: 0, playing: false, last: 0 };
const viewed = () => viewer.row.episodes.list[viewer.at];

function openEpisode(row, index) {
  const at = row.episodes.list.findIndex((e) => e.i === index);
  if (at < 0) return;
  Object.assign(viewer, { row, at, time: 0 });
  const episode = viewed(), scene = data.scenes[episode.c];
  Object.assign(viewer, { scene, states: unpack(episode, scene), goal: goalOf(episode, scene) });
  const select = $("viewer-row");
  select.replaceChildren(...data.rows.filter((r) => r.episodes && r.hash === row.hash && r.episodes.list.some((e) => e.i === index))
    .map((r) => h("option", { value: r.id, selected: r === row }, r.name)));
  $("viewer-title").textContent = `Pair ${index}`;
  const won = episode.s ? h("span", { class: "won-text" }, `Success after ${episode.t} steps`) : h("span", { class: "lost-text" }, `No success in ${episode.t} steps`);
  $("viewer-verdict").replaceChildren(won, episode.m ? ` \u00b7 ${data.hard}` : "");
  $("viewer-slider").max = viewer.states.length - 1;
  $("canvas").setAttribute("aria-label", `Animation of pair ${index} by ${row.name}`);
  if (!$("viewer").open) {
    $("viewer").showModal();
    $("canvas").focus(); // where Space and the arrow keys play and step
  }
  history.replaceState(null, "", `#episode=${row.id}-${index}`);
  play(!matchMedia("(prefers-reduced-motion: reduce)").matches);
  show();
}

function show() {
  const step = Math.min(Math.round(viewer.time), viewer.states.length - 1), d = viewed().d;
  drawScene($("canvas"), viewer.scene, viewer.states, viewer.goal, viewer.time);
  $("viewer-slider").value = step;
  $("viewer-step").textContent = `Step ${step} of ${viewer.states.length - 1}, ${d[step]} px from the goal`;
  $("viewer-curve").replaceChildren(lineChart([{ points: d.map((v, t) => [t, v]), colour: colour(viewer.row) }],
    { x: "env step", y: "distance, px", cursor: step, width: 400, height: 210, levels: viewer.scene.threshold ? [{ y: viewer.scene.threshold, name: `${viewer.scene.threshold} px` }] : [] }));
}

function play(on) {
  viewer.playing = on;
  viewer.last = 0;
  $("viewer-play").textContent = on ? "Pause" : "Play";
  if (on) {
    if (viewer.time >= viewer.states.length - 1) viewer.time = 0;
    requestAnimationFrame(tick);
  }
}
function tick(now) {
  if (!viewer.playing || !$("viewer").open) return;
  if (viewer.last) viewer.time += Math.min(now - viewer.last, 200) / UNITS.frame;
  viewer.last = now;
  const end = viewer.states.length - 1;
  if (viewer.time >= end) { viewer.time = end; play(false); }
  show();
  if (viewer.playing) requestAnimationFrame(tick);
}
function seek(step) {
  play(false);
  viewer.time = Math.max(0, Math.min(viewer.states.length - 1, step));
  show();
}
function neighbour(by) {
  const list = viewer.row.episodes.list;
  openEpisode(viewer.row, list[(viewer.at + by + list.length) % list.length].i);
}

function wireViewer() {
  const dialog = $("viewer");
  $("viewer-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    play(false);
    history.replaceState(null, "", location.pathname + location.search);
    const cell = document.querySelector(`.cell[data-episode="${viewed().i}"]`);
    if (cell) { cell.parentNode.querySelectorAll('[tabindex="0"]').forEach((c) => { c.tabIndex = -1; }); cell.tabIndex = 0; cell.focus(); }
  });
  dialog.addEventListener("click", (e) => { if (e.target === dialog) dialog.close(); });
  $("viewer-slider").addEventListener("input", (e) => seek(+e.target.value));
  $("viewer-play").addEventListener("click", () => play(!viewer.playing));
  $("viewer-previous").addEventListener("click", () => neighbour(-1));
  $("viewer-next").addEventListener("click", () => neighbour(1));
  $("viewer-row").addEventListener("change", (e) => openEpisode(data.rows[+e.target.value], viewed().i));
  dialog.addEventListener("keydown", (e) => {
    const field = ["SELECT", "INPUT"].includes(e.target.tagName);
    if (e.key === "[") neighbour(-1);
    else if (e.key === "]") neighbour(1);
    else if (e.key === " " && e.target.tagName !== "BUTTON" && !field) play(!viewer.playing);
    else if (e.key === "ArrowLeft" && !field) seek(Math.round(viewer.time) - 1);
    else if (e.key === "ArrowRight" && !field) seek(Math.round(viewer.time) + 1);
    else return;
    e.preventDefault();
  });
}

const FILTERS = {
  all: ["all episodes", () => true],
  won: ["solved", (e) => e.s],
  lost: ["not solved", (e) => !e.s],
  moved: [data.hard, (e) => e.m],
  still: [`not ${data.hard}`, (e) => !e.m],
};

/** The episodes section: a row, which of its episodes, and a grid that the arrow keys walk. */
function episodesSection(rows) {
  const own = rows.filter((row) => row.episodes);
  if (!own.length) return [h("p", { class: "muted" }, "No episodes are kept beside these rows.")];
  const rowSelect = h("select", { id: "grid-row" }, own.map((row) => h("option", { value: row.id }, `${row.name}, ${row.environmentTitle}, ${row.protocol}/${row.split}`)));
  rowSelect.value = String((own.find((row) => !row.reference) || own[0]).id);
  const filter = h("select", { id: "grid-filter" }, Object.entries(FILTERS).map(([key, [name]]) => h("option", { value: key }, name)));
  const other = h("select", { id: "grid-other" });
  const cells = h("div", { class: "cells", role: "group", "aria-label": "Episodes" }), said = h("p", { class: "muted", role: "status", id: "grid-count" });
  const fillOther = () => {
    const row = data.rows[+rowSelect.value];
    other.replaceChildren(h("option", { value: "" }, "any outcome there"), ...own.filter((r) => r !== row && r.hash === row.hash).map((r) => h("option", { value: r.id }, `differs from ${r.name}`)));
  };
  const fill = () => {
    const row = data.rows[+rowSelect.value];
    let list = row.episodes.list.filter(FILTERS[filter.value][1]);
    if (other.value) {
      const theirs = new Map(data.rows[+other.value].episodes.list.map((e) => [e.i, e.s]));
      list = list.filter((e) => theirs.has(e.i) && theirs.get(e.i) !== e.s);
    }
    said.textContent = `${list.length} of ${row.n} episodes, ${list.filter((e) => e.s).length} solved${row.episodes.list.length < row.n ? `; only ${row.episodes.list.length} are kept in this page` : ""}`;
    cells.replaceChildren(...list.map((e, k) => h("button", {
      type: "button", class: `cell ${e.s ? "won" : "lost"}${e.m ? " moved" : ""}`, "data-episode": e.i, tabindex: k ? -1 : 0,
      title: `Pair ${e.i}: ${e.s ? "solved" : "not solved"} after ${e.t} steps`, "aria-label": `Pair ${e.i}, ${e.s ? "solved" : "not solved"}`,
      onclick: () => openEpisode(row, e.i),
    }, String(e.i))));
  };
  cells.addEventListener("keydown", (e) => {
    const all = [...cells.children], at = all.indexOf(document.activeElement);
    if (at < 0) return;
    const columns = Math.max(1, getComputedStyle(cells).gridTemplateColumns.split(" ").length);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns, ArrowDown: at + columns, Home: 0, End: all.length - 1 }[e.key];
    if (to === undefined || !all[to]) return;
    e.preventDefault();
    all[at].tabIndex = -1; all[to].tabIndex = 0; all[to].focus();
  });
  rowSelect.addEventListener("change", () => { fillOther(); fill(); });
  filter.addEventListener("change", fill);
  other.addEventListener("change", fill);
  fillOther();
  fill();
  return [
    h("p", { class: "sub" }, "One cell per start and goal. Click it, or walk with the arrow keys and press Enter, to see the episode."),
    h("div", { class: "controls" }, h("label", {}, h("span", {}, "Row"), rowSelect), h("label", {}, h("span", {}, "Show"), filter), h("label", {}, h("span", {}, "Compared with"), other)),
    said, cells,
    h("div", { class: "legend" }, h("span", {}, h("i", { class: "key won" }), "solved"), h("span", {}, h("i", { class: "key lost" }), "not solved"), h("span", {}, h("i", { class: "key moved" }), data.hard)),
  ];
}
