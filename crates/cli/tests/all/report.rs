//! The benchmark page: as a file, and in a browser.

use std::collections::BTreeSet;
use std::ffi::OsString;

use worldbench_eval::{ResultDir, System};

use super::*;

/// The rows committed with the published table.
fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks")
}

/// Their rows in the order of the page.
fn rows() -> Vec<ResultDir> {
    let mut runs = ResultDir::find(&committed()).unwrap();
    runs.sort_by_key(|run| (run.row.environment.clone(), run.row.system, run.row.label()));
    runs
}

/// Writes the page of the committed rows.
fn page(dir: &Path) -> PathBuf {
    let path = dir.join("report.html");
    let output = worldbench(&["report", text(&committed()), "-o", text(&path)]);
    assert!(output.status.success(), "{}", stderr(&output));
    path
}

#[test]
fn both_pages_are_written() {
    let dir = tempfile::tempdir().unwrap();
    assert!(std::fs::metadata(page(dir.path())).unwrap().len() < 15_000_000);
    let path = dir.path().join("report.md");
    assert!(worldbench(&["report", text(&committed()), "-o", text(&path)]).status.success());
    let shown = std::fs::read_to_string(path).unwrap();
    for run in ResultDir::find(&committed()).unwrap() {
        assert!(shown.contains(&run.row.score.all.text()), "{}", run.path.display());
    }
    assert!(shown.contains("## Cost") && shown.contains("### GCIVL"));
}

/// A Chromium; where none is found the test is skipped, or fails if WORLDBENCH_REQUIRE_BROWSER=1 is set.
fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = std::env::split_paths(&path)
        .flat_map(|dir| names.map(|name| dir.join(name)))
        .find(|candidate| candidate.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("WORLDBENCH_REQUIRE_BROWSER") != Some(OsString::from("1")),
            "WORLDBENCH_REQUIRE_BROWSER=1, but there is no chromium in PATH"
        );
        skipped("there is no chromium in PATH");
    }
    found
}

/// Runs `script` at the end of the page in a window of `size`; what it leaves in the variable `seen`. A message on the
/// console fails the test.
fn seen(page: &Path, size: &str, script: &str) -> Option<Value> {
    let browser = chromium()?;
    let dir = tempfile::tempdir().unwrap();
    let html = std::fs::read_to_string(page).unwrap();
    let driver = format!(
        "<script>const seen = {{}};\n{script}\nconst result = document.createElement('pre');\nresult.id = 'seen';\n\
         result.textContent = JSON.stringify(seen);\ndocument.body.append(result);</script></body>"
    );
    let driven = dir.path().join("driven.html");
    std::fs::write(&driven, html.replace("</body>", &driver)).unwrap();
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--v=0",
            "--dump-dom",
        ])
        .arg("--virtual-time-budget=2000")
        .arg(format!("--window-size={size}"))
        .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
        .arg(format!("file://{}", driven.display()))
        .output()
        .unwrap();
    let messages = stderr(&output);
    let console: Vec<&str> = messages.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(console.is_empty(), "{console:#?}");
    let dom = stdout(&output);
    let result = dom.split_once("<pre id=\"seen\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let (result, _) = result.unwrap_or_else(|| panic!("the page did not run: {messages}"));
    let result = result.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    Some(serde_json::from_str(&result).unwrap())
}

const TABLE: &str = "
const rows = () => [...document.querySelectorAll('#table tbody tr')];
const type = (text) => { $('filter').value = text; $('filter').dispatchEvent(new Event('input')); };
const choose = (id, value) => { $(id).value = value; $(id).dispatchEvent(new Event('change')); };
const texts = (selector) => [...document.querySelectorAll(selector)].map((e) => e.textContent);
seen.groups = [rows().length, data.groups.length];
seen.legends = Math.max(...[...document.querySelectorAll('.legend')].map((l) => l.children.length));
choose('seeds', 'all');
seen.cells = rows().map((tr) => [...tr.cells].map((cell) => cell.textContent));
document.querySelectorAll('#table th button')[2].click();
seen.sorted = rows().map((tr) => tr.cells[2].textContent);
seen.cost = [...document.querySelectorAll('#cost tbody tr')].map((tr) => [...tr.cells].map((cell) => cell.textContent));
seen.provenance = texts('#provenance details');
seen.names = [...$('grid-row').options].map((option) => option.textContent);
seen.broken = document.querySelector('main').textContent.includes('[object');
choose('environment', 'two_room');
seen.rooms = rows().length;
choose('environment', '');
type('lewm cem');
seen.filtered = rows().map((tr) => tr.cells[0].textContent);
seen.bars = document.querySelectorAll('#success .track').length;
type('no such row');
seen.none = [rows().length, $('none').hidden];
type('');
seen.all = rows().length;
seen.math = document.querySelectorAll('#systems math').length;
seen.curves = document.querySelectorAll('#training path.curve').length;
seen.overflow = document.documentElement.scrollWidth - innerWidth;";

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

#[test]
fn the_table_shows_the_results_and_the_filter_works() {
    let dir = tempfile::tempdir().unwrap();
    let page = page(dir.path());
    let Some(seen) = seen(&page, "1280,900", TABLE) else { return };
    let runs = rows();
    let rows: Vec<_> = runs.iter().map(|run| run.row.clone()).collect();
    assert_eq!(seen["cells"].as_array().unwrap().len(), rows.len());
    for (cells, row) in seen["cells"].as_array().unwrap().iter().zip(&rows) {
        assert!(cells[0].as_str().unwrap().starts_with(row.system.label()), "{cells}");
        let shown = [&cells[2], &cells[3]].map(|cell| cell.as_str().unwrap());
        assert_eq!(shown, [row.score.all.text(), row.score.block_moved.text()]);
        assert!(cells[4].as_str().unwrap().ends_with('%'), "{cells}");
    }
    let mut best = rows.clone();
    best.sort_by(|a, b| b.score.all.rate.total_cmp(&a.score.all.rate));
    let best: Vec<String> = best.iter().map(|row| row.score.all.text()).collect();
    assert_eq!(seen["sorted"], serde_json::json!(best));
    let filtered = seen["filtered"].as_array().unwrap();
    assert_eq!(filtered.len(), rows.iter().filter(|row| row.system == System::LeWm).count());
    assert!(filtered.iter().all(|name| name.as_str().unwrap().starts_with("LeWM CEM")), "{filtered:?}");
    assert_eq!((&seen["bars"], &seen["none"]), (&filtered.len().into(), &serde_json::json!([0, false])));
    assert_eq!(seen["all"], rows.len());
    assert_eq!(seen["rooms"], rows.iter().filter(|row| row.environment == "two_room").count());
    // One row for all seeds, until they are asked for; curves that can be told apart; every row by a name of its own.
    assert!(seen["groups"][0] == seen["groups"][1] && seen["groups"][0].as_u64() < seen["all"].as_u64());
    assert!(seen["legends"].as_u64().unwrap() <= 14, "{}", seen["legends"]);
    let names: BTreeSet<&str> = seen["names"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(names.len(), rows.len(), "{names:?}");
    assert_eq!(seen["broken"], false);
    for ((run, cost), said) in runs.iter().zip(list(&seen["cost"])).zip(list(&seen["provenance"])) {
        let said = said.as_str().unwrap();
        for part in [&run.row.command, &run.row.protocol_hash] {
            assert!(said.contains(part), "{said}");
        }
        let git = run.provenance.as_ref().and_then(|provenance| provenance.git.clone());
        assert!(
            said.contains(&git.map_or("no checkout".into(), |git| git.revision[..12].to_string())),
            "{said}"
        );
        let training = run.training.as_ref().map_or("-".into(), |t| format!("{} x {}", t.steps, t.batch));
        assert!(cost[3].as_str().unwrap().contains(&training), "{cost}");
    }
    assert!(seen["math"].as_u64().unwrap() > 7 && seen["curves"].as_u64().unwrap() >= 4, "{seen}");
    assert!(seen["overflow"].as_i64().unwrap() <= 0, "{}", seen["overflow"]);
}

const VIEWER: &str = "
const key = (target, key) => target.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
const cells = document.querySelector('.cells');
const ink = () => {
  const copy = document.createElement('canvas');
  copy.width = copy.height = 512;
  const pen = copy.getContext('2d', { willReadFrequently: true });
  pen.drawImage($('canvas'), 0, 0);
  const pixels = pen.getImageData(0, 0, 512, 512).data;
  let sum = 0;
  for (let i = 0; i < pixels.length; i += 4) if (pixels[i] < 200) sum += 1 + i % 1009;
  return sum;
};
seen.cells = cells.children.length;
seen.won = cells.querySelectorAll('.won').length;
cells.children[0].focus();
key(cells.children[0], 'ArrowRight');
seen.focused = document.activeElement.dataset.episode;
document.activeElement.click();
seen.inside = document.activeElement.id;
key(document.activeElement, ' ');
seen.paused = !viewer.playing;
seen.open = [$('viewer').open, $('viewer-title').textContent, location.hash];
play(false);
seek(0);
seen.first = ink();
key($('canvas'), 'ArrowRight');
key($('canvas'), 'ArrowRight');
seen.step = $('viewer-step').textContent;
seen.later = ink();
seen.state = viewer.states[2].slice(0, 2);
key($('viewer'), ']');
seen.next = $('viewer-title').textContent;
$('viewer-close').click();
seen.closed = !$('viewer').open;
$('grid-filter').value = 'lost';
$('grid-filter').dispatchEvent(new Event('change'));
seen.lost = document.querySelectorAll('.cell').length;
const before = document.documentElement.dataset.theme;
$('theme').click();
seen.theme = [before, document.documentElement.dataset.theme];
document.body.style.width = '390px'; // narrower than a headless window can be
seen.overflow = document.body.scrollWidth - 390;
document.body.style.width = '';
seen.row = data.rows[+$('grid-row').value].path;
$('grid-filter').value = 'all';
$('grid-row').value = data.rows.findIndex((row) => row.environment === 'two_room' && row.episodes && !row.reference);
$('grid-row').dispatchEvent(new Event('change'));
document.querySelector('.cell').click();
play(false);
seek(0);
const room = ink();
seek(4);
seen.room = [data.rows[+$('grid-row').value].environment, room > 1000, room !== ink()];";

#[test]
fn episodes_open_and_play_also_on_a_phone() {
    let dir = tempfile::tempdir().unwrap();
    let page = page(dir.path());
    let Some(seen) = seen(&page, "500,900", VIEWER) else { return };
    let run = ResultDir::load(Path::new(seen["row"].as_str().unwrap())).unwrap();
    let (_, outcomes) = run.episodes.unwrap();
    let won = run.row.score.all.successes;
    assert_eq!((&seen["cells"], &seen["won"]), (&outcomes.len().into(), &won.into()));
    assert_eq!(seen["lost"], outcomes.len() - won);
    assert_eq!(seen["focused"], "1");
    assert_eq!((&seen["open"][0], &seen["open"][1]), (&true.into(), &"Pair 1".into()));
    assert!(seen["open"][2].as_str().unwrap().ends_with("-1"), "{seen}");
    assert!(seen["step"].as_str().unwrap().starts_with("Step 2 of"), "{seen}");
    // What was recorded is drawn, and it moves.
    for (drawn, recorded) in [0, 1].map(|i| (seen["state"][i].as_f64().unwrap(), outcomes[1].states[2][i])) {
        assert!((drawn - recorded).abs() < 0.051, "{drawn} {recorded}");
    }
    assert!(seen["first"].as_u64().unwrap() > 1_000 && seen["first"] != seen["later"], "{seen}");
    assert_eq!((&seen["next"], &seen["closed"]), (&"Pair 2".into(), &true.into()));
    assert_eq!((&seen["inside"], &seen["paused"]), (&"canvas".into(), &true.into()));
    assert_eq!(seen["room"], serde_json::json!(["two_room", true, true]));
    assert_ne!(seen["theme"][0], seen["theme"][1]);
    assert!(seen["overflow"].as_i64().unwrap() <= 0, "{}", seen["overflow"]);
}
