//! Printing: one place that writes to standard output, so that a closed pipe is an error and never a panic.

use std::{
    fmt::Display,
    io::{ErrorKind, Write},
};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// How a verb ended when nothing kept it from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Done,
    /// A check did not pass.
    Miss,
}

/// Writes `text` and a line end to standard output.
pub fn print(text: impl Display) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("cannot write to standard output")
}

/// Writes `value` as one line of JSON.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(serde_json::to_string(value).context("the result has no JSON form")?)
}

/// Reports an error and all its causes on standard error.
pub fn complain(error: &anyhow::Error) {
    // There is nobody left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "error: {}", describe(error));
}

/// An error with its causes, each said once: many messages quote their cause already.
pub fn describe(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |shown, cause| match shown.contains(&cause) {
        _ if shown.is_empty() => cause,
        true => shown,
        false => format!("{shown}: {cause}"),
    })
}

/// Whether the reader of our output has gone away.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |e: &std::io::Error| e.kind() == ErrorKind::BrokenPipe;
    error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(broken)
}

/// Rows as left-aligned columns under a header.
pub fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = header.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, w)| format!("{cell:<w$}")).collect();
        padded.join("  ").trim_end().to_string()
    };
    let rule = "-".repeat(widths.iter().sum::<usize>() + 2 * (N - 1));
    let mut lines = vec![line(header), rule];
    lines.extend(rows.iter().map(|row| line(std::array::from_fn(|i| row[i].as_str()))));
    lines.join("\n")
}

/// A progress bar on standard error; hidden when that is no terminal.
pub fn bar(total: usize, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(total as u64).with_message(what.to_string());
    let template = "{msg} [{bar:32}] {pos}/{len}, {elapsed} of about {duration}";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

/// The words of the command as typed, without the binary.
pub fn command_words() -> Vec<String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The command as typed, without the path of the binary.
pub fn command_line() -> String {
    quoted(command_words())
}

/// `worldbench` with these words, quoted where a shell needs it.
pub fn quoted(words: Vec<String>) -> String {
    let quote =
        |word: String| match word.contains([' ', '*', '"', '\'', '$', ';', '&', '|']) || word.is_empty() {
            true => format!("'{}'", word.replace('\'', "'\\''")),
            false => word,
        };
    let words = words.into_iter().map(quote);
    std::iter::once("worldbench".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}

/// Makes the directory that `path` will lie in.
pub fn make_parent(path: &std::path::Path) -> Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make the directory {}; give another path", parent.display())),
        None => Ok(()),
    }
}
