//! A process that is asked one line and answers one line, within a time.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longest answer, bytes.
const LONGEST: u64 = 1 << 20;
/// How long a process may take to end after `close`, or after its output has ended.
const GRACE: Duration = Duration::from_secs(2);

/// The processes that were not waited for yet; each leads a group.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills every agent with what it has started: signals to this process do not reach their groups.
pub fn kill_all() {
    running().iter().for_each(|leader| kill_group(*leader));
}

#[cfg(unix)]
fn kill_group(leader: u32) {
    use rustix::process::{Pid, Signal, kill_process_group};
    if let Some(leader) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(leader, Signal::KILL);
    }
}

#[cfg(not(unix))]
fn kill_group(_: u32) {}

/// A running agent.
pub(super) struct Agent {
    child: Child,
    /// Lines to write; the thread behind it ends when this is dropped.
    ask: Option<Sender<Ask>>,
    answers: Receiver<Answer>,
    timeout: Duration,
    /// It broke the protocol and is not waited for.
    broken: bool,
}

enum Ask {
    Request(String),
    Close(String),
}

enum Answer {
    Line(String),
    /// A line without an end in sight.
    TooLong,
    /// Nothing more will come, and why.
    Gone(String),
}

impl Agent {
    /// Starts `command`; its standard error is ours.
    pub(super) fn start(command: &str, timeout: Duration) -> Result<Self, String> {
        let words = shlex::split(command)
            .ok_or_else(|| format!("--policy-cmd {command:?} has a quote that is not closed"))?;
        let Some((program, arguments)) = words.split_first() else {
            return Err("--policy-cmd is empty; give the command that starts the agent".into());
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        // Behind a shell the agent is a grandchild: it is ended by its group.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child =
            command.spawn().map_err(|e| format!("`{program}` cannot be started: {e}; check --policy-cmd"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("its standard input and output cannot be opened".into());
        };
        running().push(child.id());
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
            Ok(Answer::Line(answer)) => answer,
            Ok(Answer::TooLong) => {
                return Err(format!(
                    "its answer to `{kind}` is longer than {LONGEST} bytes; messages belong on standard error"
                ));
            }
            Ok(Answer::Gone(problem)) => return Err(self.ended(&kind, &problem)),
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

    /// Kills the process and what it has started.
    fn kill(&mut self) {
        // Once it has been waited for, its number may be another's.
        if matches!(self.child.try_wait(), Ok(None)) {
            kill_group(self.child.id());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let id = self.child.id();
        if let (Some(ask), false) = (self.ask.take(), self.broken) {
            let _ = ask.send(Ask::Close(json!({ "type": "close" }).to_string()));
            drop(ask);
            self.wait(GRACE);
        }
        self.kill();
        running().retain(|leader| *leader != id);
    }
}

/// Writes what is asked and reads one line for each request. It runs on a thread of its own, because both writing and
/// reading block for as long as the agent likes.
fn serve(mut stdin: ChildStdin, stdout: ChildStdout, asked: &Receiver<Ask>, answer: &Sender<Answer>) {
    let mut reader = BufReader::new(stdout);
    for ask in asked {
        let (Ask::Request(line) | Ask::Close(line)) = &ask;
        let written = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
        if matches!(ask, Ask::Close(_)) {
            return;
        }
        let read =
            written.and_then(|()| read_line(&mut reader)).unwrap_or_else(|e| Answer::Gone(e.to_string()));
        let last = !matches!(read, Answer::Line(_));
        if answer.send(read).is_err() || last {
            return;
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> std::io::Result<Answer> {
    let mut line = Vec::new();
    reader.take(LONGEST).read_until(b'\n', &mut line)?;
    Ok(match line.last() {
        Some(b'\n') => Answer::Line(String::from_utf8_lossy(&line).into_owned()),
        None => Answer::Gone("it closed its standard output".into()),
        Some(_) if line.len() as u64 == LONGEST => Answer::TooLong,
        Some(_) => Answer::Gone("its last line has no end".into()),
    })
}
