//! The daemon as a child process: started, looked at, and killed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use super::{DEADLINE, Pair, next_number};

const PROGRAM: &str = env!("CARGO_BIN_EXE_litellm-webui-sync");

/// How a daemon is started.
#[derive(Debug, Clone, Default)]
pub(crate) struct DaemonOptions {
    /// TOML.
    pub(crate) policy: Option<String>,
    pub(crate) failpoints: Option<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
}

/// A running daemon. Dropping it kills it; a test that fails prints its log.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    http: SocketAddr,
    log: PathBuf,
}

impl Daemon {
    pub(crate) fn start(pair: &Pair) -> Self {
        Self::with(pair, &DaemonOptions::default())
    }

    pub(crate) fn with(pair: &Pair, options: &DaemonOptions) -> Self {
        Self::listening(pair, Ipv4Addr::LOCALHOST, options)
    }

    /// Its pages on another address; they are asked for on this machine all the same.
    pub(crate) fn listening(pair: &Pair, address: Ipv4Addr, options: &DaemonOptions) -> Self {
        let number = next_number();
        let scratch =
            |kind: &str| std::env::temp_dir().join(format!("it-{}-{number}.{kind}", std::process::id()));
        let log = scratch("log");
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = command(pair);
        command.args(["run", "--http", &SocketAddr::from((address, http.port())).to_string()]);
        if let Some(policy) = &options.policy {
            let file = scratch("toml");
            std::fs::write(&file, policy).unwrap();
            command.arg("--config").arg(file);
        }
        if let Some(failpoints) = &options.failpoints {
            command.env("FAILPOINTS", failpoints);
        }
        for (name, value) in &options.environment {
            command.env(name, value);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, http, log }
    }

    /// SIGKILL.
    pub(crate) fn kill9(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// SIGTERM; returns how long it took to end, and how it ended.
    pub(crate) fn terminate(&mut self) -> (Duration, ExitStatus) {
        let start = Instant::now();
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        (start.elapsed(), self.end())
    }

    /// Waits for the process to end by itself.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < DEADLINE, "the daemon did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Status code and body; 0 when nobody answers.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path).unwrap_or_default()
    }

    fn try_get(&self, path: &str) -> std::io::Result<(u16, String)> {
        let answer = fetch(self.http, "GET", path, &[("Host", "localhost")])?;
        Ok((answer.code, answer.body))
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// The value of a metric without labels; NaN when it is not shown.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let name = format!("litellm_webui_sync_{name} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.trim().parse().ok()).unwrap_or(f64::NAN)
    }

    pub(crate) async fn ready(&self) {
        super::eventually(&format!("readiness: {:?}", self.get("/readyz")), || async {
            self.get("/readyz").0 == 200
        })
        .await;
    }

    /// The largest resident memory so far, in MiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- the daemon's log ends:\n{}", tail.join("\n"));
        }
        drop(std::fs::remove_file(&self.log));
    }
}

/// The program with this pair's settings.
/// What a server answered.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// A header's value; "" if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let is_it = |line: &&str| line.split(':').next().is_some_and(|own| own.eq_ignore_ascii_case(name));
        self.head.lines().find(is_it).and_then(|line| line.split_once(": ")).map_or("", |(_, value)| value)
    }
}

/// One request, by hand: with exactly these headers.
pub(crate) fn fetch(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let code = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    Ok(Answer { code, head: head.to_owned(), body: body.to_owned() })
}

pub(crate) fn command(pair: &Pair) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("LITELLM_DATABASE_URL", &pair.daemon_source)
        .env("WEBUI_DATABASE_URL", &pair.daemon_target)
        .env("LITELLM_WEBUI_SYNC_SLOT", &pair.slot);
    if let Some(level) = std::env::var_os("RUST_LOG") {
        command.env("RUST_LOG", level);
    }
    command
}

/// Runs a command of the program to its end: exit code, standard output, standard error.
pub(crate) fn run(pair: &Pair, arguments: &[&str]) -> (i32, String, String) {
    answer(command(pair).args(arguments).output().unwrap())
}

pub(crate) fn answer(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
