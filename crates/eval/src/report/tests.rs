use super::*;
use crate::rows::tests::row;

#[test]
fn the_page_has_every_section_in_order() {
    let page = markdown(&[], &[], &[]);
    let mut from = 0;
    for title in [
        "# Baseline\n",
        "## DINO World-Model\n",
        "## Planning with Latent Dynamics Model\n",
        "## Goal-Conditioned Behavioural Cloning\n",
        "## Inverse Q-Learning\n",
        "### IQ-Learn\n",
        "### GCIQL\n",
        "### GCIVL\n",
    ] {
        let at = page[from..].find(title).unwrap_or_else(|| panic!("{title} missing or out of order"));
        from += at;
    }
    assert_eq!(page.matches("its cell has not been run").count(), 7);
    assert!(page.contains("No row has been run yet"));
}

#[test]
fn rows_show_interval_bounds_and_checkpoint() {
    let mut pldm = row(System::Pldm, 129);
    pldm.planner = "MPPI".into();
    pldm.variant = "a|b".into();
    pldm.checkpoint = Some("runs/pldm compact".into());
    pldm.notes = vec!["trained on expert data".into()];
    let mut elsewhere = row(System::Oracle, 200);
    elsewhere.protocol_hash = "other".into();
    let training = Training { parameters: 1234, seconds: 1860.0, steps: 50, batch: 8, ..Training::default() };
    let trainings = [Some(training), None, None];
    let page =
        markdown(&[pldm.clone(), elsewhere, row(System::Random, 4)], &trainings, &["Run on 2 cores.".into()]);
    assert!(page.contains("64.5 % [57.7, 70.8], n = 200"), "{page}");
    assert!(page.contains("| 2.0 % / not run |"), "{page}");
    assert!(page.contains("| 1234 | 31 min | 50 x 8 | not recorded | not recorded |"), "{page}");
    for part in ["Run on 2 cores.", "(runs/pldm%20compact)", "a\\|b", "docs/envs/push_t.md", "expert data"] {
        assert!(page.contains(part), "{part} missing in\n{page}");
    }
    let page = markdown(&[pldm, row(System::Oracle, 198), row(System::Random, 4)], &[], &[]);
    assert!(page.contains("| 2.0 % / 99.0 % |"), "{page}");
    let strict = RowResult { protocol: "strict".into(), ..row(System::Pldm, 10) };
    let page = markdown(&[row(System::Pldm, 20), strict], &[], &[]);
    assert!(page.contains("), held-out | 10.0 %") && page.contains("), strict | 5.0 %"), "{page}");
}

/// An agent's command is shown as it was typed.
#[test]
fn text_of_others_is_no_markup() {
    let mut agent = row(System::External, 10);
    agent.variant = "python3 -c 'a*b*c' \\ <b> `x` __init__ my_agent.py".into();
    let page = markdown(&[agent], &[], &[]);
    let shown = "a\\*b\\*c' \\\\ \\<b> \\`x\\` \\_\\_init_\\_ my_agent.py";
    assert!(page.contains(shown), "{page}");
    assert_eq!(page.matches(shown).count(), page.matches("my_agent.py").count(), "{page}");
}

#[test]
fn a_page_keeps_its_authors_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page.md");
    write_markdown(&path, &[row(System::Random, 4)], &[], &[]).unwrap();
    let page = std::fs::read_to_string(&path).unwrap();
    assert!(!page.contains("docs/envs") && page.contains("| Push-T |"), "{page}");
    let (before, after) = ("Before.\n\n", "\n## What I think\n");
    std::fs::write(&path, format!("{before}{page}{after}")).unwrap();
    write_markdown(&path, &[row(System::Random, 9)], &[], &[]).unwrap();
    let again = std::fs::read_to_string(&path).unwrap();
    assert!(again.starts_with(before) && again.ends_with(after), "{again}");
    assert_eq!((again.matches(BEGIN).count(), again.matches("4.5 %").count() > 0), (1, true));
    assert_eq!(again.len(), page.len() + before.len() + after.len());

    std::fs::write(&path, "My own page.\n").unwrap();
    let error = write_markdown(&path, &[], &[], &[]).unwrap_err().to_string();
    assert!(error.contains("page.md") && error.contains(BEGIN), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "My own page.\n");
}

#[test]
fn rows_of_one_command_share_its_line() {
    let seed = |train_seed, command: &str| RowResult {
        train_seed: Some(train_seed),
        command: command.into(),
        ..row(System::Gcbc, 100)
    };
    let page = markdown(&[seed(2, "bench"), seed(0, "eval"), seed(1, "bench")], &[], &[]);
    let (_, commands) = page.split_once("## Commands\n\n").unwrap();
    let lines: Vec<&str> = commands.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 2, "{commands}");
    assert!(lines[0].ends_with("(training seed 0; evaluation seed 0): `eval`"), "{commands}");
    assert!(lines[1].ends_with("(training seeds 1, 2; evaluation seed 0): `bench`"), "{commands}");
}
