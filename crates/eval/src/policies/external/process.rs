//! A process that is asked one line and answers one line, within a time.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longest answer, bytes.
const LONGEST: u64 = 1 << 20;
/// How long a process may take to end after `close`, or after its output has ended.
const GRACE: Duration = Duration::from_secs(2);

/// A running agent.
pub(super) struct Agent {
    child: Child,
    /// Lines to write; the thread behind it ends when this is dropped.
    ask: Option<Sender<Ask>>,
    answers: Receiver<Result<String, String>>,
    timeout: Duration,
    /// It broke the protocol and is not waited for.
    broken: bool,
}

enum Ask {
    Request(String),
    Close(String),
}

impl Agent {
    /// Starts `command`; its standard error is ours.
    pub(super) fn start(command: &str, timeout: Duration) -> Result<Self, String> {
        let words = shlex::split(command)
            .ok_or_else(|| format!("--policy-cmd {command:?} has a quote that is not closed"))?;
        let Some((program, arguments)) = words.split_first() else {
            return Err("--policy-cmd is empty; give the command that starts the agent".into());
        };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|e| format!("`{program}` cannot be started: {e}; check --policy-cmd"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("its standard input and output cannot be opened".into());
        };
        let (ask, asked) = channel();
        let (answer, answers) = channel();
        std::thread::spawn(move || serve(stdin, stdout, &asked, &answer));
        Ok(Self { child, ask: Some(ask), answers, timeout, broken: false })
    }

    /// Sends `message` and waits for the answer.
    pub(super) fn ask(&mut self, message: &Value) -> Result<String, String> {
        let kind = message.get("type").and_then(Value::as_str).unwrap_or_default().to_string();
        self.broken = true;
        // A thread that has ended shows below, as a closed channel.
        if let Some(ask) = &self.ask {
            let _ = ask.send(Ask::Request(message.to_string()));
        }
        let answer = match self.answers.recv_timeout(self.timeout) {
            Ok(Ok(answer)) => answer,
            Ok(Err(problem)) => return Err(self.ended(&kind, &problem)),
            Err(RecvTimeoutError::Disconnected) => return Err(self.ended(&kind, "it closed the connection")),
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!(
                    "it gave no answer to `{kind}` within {:?}; raise --policy-timeout, or see that the agent flushes \
                     standard output after every line",
                    self.timeout
                ));
            }
        };
        self.broken = false;
        Ok(answer)
    }

    /// What to say about a process whose output has ended.
    fn ended(&mut self, kind: &str, problem: &str) -> String {
        match self.wait(GRACE) {
            Some(status) => {
                format!("it ended ({status}) before it answered `{kind}`; its own messages stand above")
            }
            None => format!("it did not answer `{kind}`: {problem}"),
        }
    }

    /// The exit status, if it comes in time.
    fn wait(&mut self, grace: Duration) -> Option<std::process::ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if begun.elapsed() > grace {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let (Some(ask), false) = (self.ask.take(), self.broken) {
            let _ = ask.send(Ask::Close(json!({ "type": "close" }).to_string()));
            drop(ask);
            if self.wait(GRACE).is_some() {
                return;
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes what is asked and reads one line for each request. It runs on a thread of its own, because both writing and
/// reading block for as long as the agent likes.
fn serve(
    mut stdin: ChildStdin,
    stdout: ChildStdout,
    asked: &Receiver<Ask>,
    answer: &Sender<Result<String, String>>,
) {
    let mut reader = BufReader::new(stdout);
    for ask in asked {
        let (Ask::Request(line) | Ask::Close(line)) = &ask;
        let written = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
        if matches!(ask, Ask::Close(_)) {
            return;
        }
        let result = written.map_err(|e| e.to_string()).and_then(|()| read_line(&mut reader));
        let failed = result.is_err();
        if answer.send(result).is_err() || failed {
            return;
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> Result<String, String> {
    let mut line = Vec::new();
    reader.take(LONGEST).read_until(b'\n', &mut line).map_err(|e| e.to_string())?;
    match line.last() {
        Some(b'\n') => Ok(String::from_utf8_lossy(&line).into_owned()),
        None => Err("it closed its standard output".into()),
        Some(_) if line.len() as u64 == LONGEST => Err(format!("its answer is longer than {LONGEST} bytes")),
        Some(_) => Err("its last line has no end".into()),
    }
}
