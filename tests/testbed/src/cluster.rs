//! One throwaway Postgres server: its files, its process and its end.
//!
//! A cluster lives in a directory of its own below the temporary directory. Beside each server
//! runs a small shell that waits on a pipe from this process. When this process ends, however it
//! ends, the pipe closes and the shell stops the server and removes the directory. A parent-death
//! signal would not do: Linux sends it when the *thread* that started the server ends, and a test
//! runner ends one with every test.
//!
//! With `TESTBED_KEEP` set to anything, the directories stay, with the servers' logs.
//!
//! Every local user may connect as superuser without a password: made-up data only.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio, id};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::binaries::Binaries;
use crate::database::execute;
use crate::run_as::RunAs;
use crate::template::{initdb, new_directory, template};
use crate::tls::{self, TlsFiles};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// What the server says once it has begun to read its configuration again.
const RELOADING: &str = "received SIGHUP, reloading configuration files";

/// `$1` is the directory of the cluster; standard input is the pipe from its owner.
const GUARD_SCRIPT: &str = r#"
trap '' HUP INT TERM
read -r _
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && { [ ! -d /proc/self ] || [ "$(readlink "/proc/$pid/cwd")" = "$1/data" ]; }; then
    kill -QUIT "$pid"
    tries=0
    while [ -e "$1/data/postmaster.pid" ] && [ $tries -lt 100 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
fi
[ -z "$TESTBED_KEEP" ] || exit
# A cp or a server that the owner had just begun may still be writing there.
tries=0
while ! rm -rf "$1" 2>/dev/null && [ $tries -lt 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
"#;

/// What a cluster is made of. `ClusterOptions::default()` is right for a test.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// Which Postgres; `None` takes [`Binaries::find`].
    pub binaries: Option<Binaries>,
    /// Lines of `postgresql.conf`; they win over the testbed's own.
    pub settings: Vec<(String, String)>,
    /// Start with [`Cluster::enable_tls`].
    pub tls: bool,
    /// Initialise the data directory anew. Otherwise it is a copy, and all servers have the same system identifier.
    pub own_identity: bool,
    /// Keep `fsync` and `full_page_writes` on. A benchmark must; a test that kills only
    /// processes, never the machine, need not.
    pub durable: bool,
}

/// How to stop a server, as `pg_ctl stop --mode` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Waits until the last client has left.
    Smart,
    /// Ends the sessions, writes a checkpoint; walsenders first deliver what they have.
    Fast,
    /// Ends at once, as a crash does; the next start replays WAL.
    Immediate,
}

/// A running (or stopped) server. Dropping it stops the server and removes its files.
#[derive(Debug)]
pub struct Cluster {
    binaries: Binaries,
    user: RunAs,
    root: PathBuf,
    port: u16,
    server: Mutex<Option<Child>>,
    tls: Mutex<Option<TlsFiles>>,
    guard: Option<Guard>,
}

impl Cluster {
    /// Makes a data directory and starts a server on it; ready for connections on return.
    pub fn start(options: ClusterOptions) -> Result<Self> {
        let binaries = match options.binaries {
            Some(binaries) => binaries,
            None => Binaries::find()?,
        };
        let user = RunAs::for_server()?;
        let mut cluster = Self::without_files(binaries, user)?;
        if options.own_identity {
            initdb(&cluster.binaries, &cluster.user, &cluster.data_dir())?;
        } else {
            let template = template(&cluster.binaries, &cluster.user)?;
            cluster.copy_files(&template, &cluster.data_dir())?;
        }
        cluster.write_settings(options.durable, &options.settings)?;
        cluster.launch_on_a_free_port()?;
        if options.tls {
            cluster.enable_tls()?;
        }
        Ok(cluster)
    }

    /// A streaming standby made from the files of this server, which is stopped and stays so. `slots`: with its
    /// replication slots, as a snapshot of the disk has them; `pg_basebackup` leaves them out.
    ///
    /// `select pg_promote()` promotes it. It is up without its primary too.
    pub fn cold_standby(&self, slots: bool) -> Result<Self> {
        ensure!(self.server().is_none(), "the server is running");
        let mut standby = Self::copy_of(&self.data_dir(), self.binaries.clone(), self.user.clone())?;
        if !slots {
            for slot in fs::read_dir(standby.data_dir().join("pg_replslot"))? {
                fs::remove_dir_all(slot?.path())?;
            }
        }
        let signal = standby.data_dir().join("standby.signal");
        fs::write(&signal, "")?;
        standby.user.own(&signal)?;
        let primary = format!("host=127.0.0.1 port={} user=postgres", self.port);
        let socket_dir = standby.socket_dir().to_string_lossy().into_owned();
        standby.append_settings(
            [
                ("primary_conninfo", primary.as_str()),
                ("unix_socket_directories", socket_dir.as_str()),
                ("wal_retrieve_retry_interval", "100ms"),
            ]
            .into_iter(),
        )?;
        standby.launch_on_a_free_port()?;
        Ok(standby)
    }

    /// Copies the files of the stopped server aside, for [`Self::restore`].
    pub fn back_up(&self) -> Result<()> {
        ensure!(self.server().is_none(), "the server is running");
        self.copy_files(&self.data_dir(), &self.root.join("backup"))
    }

    /// Puts the files back as [`Self::back_up`] found them. The server is stopped, and stays so.
    pub fn restore(&self) -> Result<()> {
        ensure!(self.server().is_none(), "the server is running");
        fs::remove_dir_all(self.data_dir()).context("could not remove the data directory")?;
        self.copy_files(&self.root.join("backup"), &self.data_dir())
    }

    /// Makes the stopped server one that stands by, for nobody, from its next start on: until `pg_promote`.
    pub fn stand_by(&self) -> Result<()> {
        ensure!(self.server().is_none(), "the server is running");
        let signal = self.data_dir().join("standby.signal");
        fs::write(&signal, "").context("could not write standby.signal")?;
        self.user.own(&signal)
    }

    fn without_files(binaries: Binaries, user: RunAs) -> Result<Self> {
        let root = new_directory(&user, "")?;
        let guard = Guard::start(&user, &root)?;
        let cluster = Self {
            port: 0,
            server: Mutex::new(None),
            tls: Mutex::new(None),
            guard: Some(guard),
            binaries,
            user,
            root,
        };
        fs::create_dir(cluster.socket_dir())?;
        cluster.user.own(&cluster.socket_dir())?;
        Ok(cluster)
    }

    /// A hot standby, streaming from this server through the physical slot `slot`, which is made here. It has the settings
    /// of this server, and `more`. This server is stopped for the copy of its files, and runs again on return.
    pub async fn standby(&self, slot: &str, more: &[(&str, &str)]) -> Result<Self> {
        let sql = format!("select pg_create_physical_replication_slot('{slot}', true)");
        execute(&self.url("postgres"), &sql).await.context("could not make the standby's slot")?;
        self.stop(Mode::Fast, START_TIMEOUT)?;
        let mut standby = Self::copy_of(&self.data_dir(), self.binaries.clone(), self.user.clone())?;
        self.start_again()?;
        // A base backup has no slots either.
        for entry in fs::read_dir(standby.data_dir().join("pg_replslot"))? {
            fs::remove_dir_all(entry?.path())?;
        }
        let signal = standby.data_dir().join("standby.signal");
        fs::write(&signal, "").context("could not write standby.signal")?;
        standby.user.own(&signal)?;
        let socket_dir = standby.socket_dir().to_string_lossy().into_owned();
        let primary = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port);
        let settings = [
            ("unix_socket_directories", socket_dir.as_str()),
            ("primary_conninfo", &primary),
            ("primary_slot_name", slot),
            ("hot_standby_feedback", "on"),
            ("wal_retrieve_retry_interval", "200ms"),
        ];
        standby.append_settings(settings.into_iter().chain(more.iter().copied()))?;
        standby.launch_on_a_free_port()?;
        Ok(standby)
    }

    /// The address of a database over TCP.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{}", self.port, percent_encoded(database))
    }

    /// The address of a database over the Unix socket.
    pub fn socket_url(&self, database: &str) -> String {
        format!(
            "postgresql://postgres@/{}?host={}&port={}",
            percent_encoded(database),
            percent_encoded(&self.socket_dir().to_string_lossy()),
            self.port
        )
    }

    /// The TCP port on 127.0.0.1. It stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the Unix socket.
    pub fn socket_dir(&self) -> PathBuf {
        self.root.join("s")
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The programs this server was started from.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The major version of the server.
    pub fn major(&self) -> u32 {
        self.binaries.major()
    }

    /// The process id of the postmaster, unless stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server().as_ref().map(Child::id)
    }

    /// The whole server log.
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// The last 40 lines of the server log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
    }

    /// Stops the server and says how long that took. After a timeout it is still running.
    /// A stopped server is no error.
    pub fn stop(&self, mode: Mode, timeout: Duration) -> Result<Duration> {
        let signal = match mode {
            Mode::Smart => Signal::TERM,
            Mode::Fast => Signal::INT,
            Mode::Immediate => Signal::QUIT,
        };
        let start = Instant::now();
        let mut server = self.server();
        let Some(child) = server.as_mut() else {
            return Ok(Duration::ZERO);
        };
        send(child, signal)?;
        while child.try_wait().context("could not wait for the server")?.is_none() {
            ensure!(
                start.elapsed() < timeout,
                "the server did not stop ({mode:?}) in {timeout:?}; its log ends:\n{}",
                self.log_tail()
            );
            sleep(POLL);
        }
        *server = None;
        Ok(start.elapsed())
    }

    /// Starts a stopped server on its port; ready for connections on return.
    pub fn start_again(&self) -> Result<()> {
        ensure!(self.server().is_none(), "the server is running");
        self.launch()
    }

    /// Stops in the given mode, then starts.
    pub fn restart(&self, mode: Mode) -> Result<()> {
        self.stop(mode, START_TIMEOUT)?;
        self.start_again()
    }

    /// Adds lines to `postgresql.conf` and has the server read it. Settings that need a restart
    /// wait for one; sessions take the others up before their next statement.
    pub fn configure(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.append_settings(settings.iter().copied())?;
        self.reload()
    }

    /// Puts lines in front of `pg_hba.conf` (its first match counts) and has the server read it.
    /// Connections made after this meet the new rules; those open stay.
    pub fn add_hba(&self, lines: &[&str]) -> Result<()> {
        let path = self.data_dir().join("pg_hba.conf");
        let old = fs::read_to_string(&path).context("could not read pg_hba.conf")?;
        fs::write(&path, format!("{}\n{old}", lines.join("\n"))).context("could not write pg_hba.conf")?;
        self.reload()
    }

    /// Makes certificates and switches TLS on, without asking anyone to use it: for that add
    /// a line such as `hostssl all postgres 127.0.0.1/32 cert` with [`Self::add_hba`], and one
    /// that rejects plain `hostnossl` connections.
    pub fn enable_tls(&self) -> Result<TlsFiles> {
        if let Some(files) = self.tls() {
            return Ok(files);
        }
        let dir = self.root.join("tls");
        let files = tls::write(&dir)?;
        for path in [&dir, &files.server_key, &files.server_certificate, &files.ca] {
            self.user.own(path)?;
        }
        let quoted = |path: &Path| path.to_string_lossy().into_owned();
        self.configure(&[
            ("ssl", "on"),
            ("ssl_ca_file", &quoted(&files.ca)),
            ("ssl_cert_file", &quoted(&files.server_certificate)),
            ("ssl_key_file", &quoted(&files.server_key)),
        ])?;
        ensure!(
            self.answers_tls().context("could not ask the server for TLS")?,
            "the server did not switch TLS on; its log ends:\n{}",
            self.log_tail()
        );
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = Some(files.clone());
        Ok(files)
    }

    /// The certificates, once TLS is on.
    pub fn tls(&self) -> Option<TlsFiles> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn server(&self) -> MutexGuard<'_, Option<Child>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_path(&self) -> PathBuf {
        self.root.join("log")
    }

    /// A cluster of its own, not started, with a copy of a stopped server's files.
    fn copy_of(data: &Path, binaries: Binaries, user: RunAs) -> Result<Self> {
        let cluster = Self::without_files(binaries, user)?;
        cluster.copy_files(data, &cluster.data_dir())?;
        Ok(cluster)
    }

    fn copy_files(&self, from: &Path, to: &Path) -> Result<()> {
        let copy = |options: &[&str]| {
            let mut cp = self.user.command("cp");
            cp.args(options).arg(from).arg(to).stderr(Stdio::null());
            cp.status().is_ok_and(|status| status.success())
        };
        ensure!(
            copy(&["-a", "--reflink=auto"]) || copy(&["-a"]),
            "could not copy {} to {}",
            from.display(),
            to.display()
        );
        Ok(())
    }

    fn write_settings(&self, durable: bool, more: &[(String, String)]) -> Result<()> {
        let socket_dir = self.socket_dir().to_string_lossy().into_owned();
        let mut settings = vec![
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", socket_dir.as_str()),
            ("wal_level", "logical"),
            ("max_replication_slots", "50"),
            ("max_wal_senders", "50"),
            ("max_connections", "200"),
            ("shared_buffers", "32MB"),
            ("logging_collector", "off"),
            ("log_line_prefix", "%m [%p] %q%a "),
            ("lc_messages", "C"),
        ];
        if !durable {
            settings.extend([("fsync", "off"), ("full_page_writes", "off")]);
        }
        settings.extend(more.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        self.append_settings(settings.into_iter())
    }

    fn append_settings<'a>(&self, settings: impl Iterator<Item = (&'a str, &'a str)>) -> Result<()> {
        let mut text = String::from("\n");
        for (name, value) in settings {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        OpenOptions::new()
            .append(true)
            .open(self.data_dir().join("postgresql.conf"))
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .context("could not write postgresql.conf")
    }

    fn launch_on_a_free_port(&mut self) -> Result<()> {
        let mut tries = 0;
        loop {
            self.port = free_port()?;
            match self.launch() {
                // Someone else took the port in between.
                Err(_) if tries < 10 && self.log().contains("could not bind") => {
                    tries += 1;
                    fs::write(self.log_path(), "").context("could not empty the log")?;
                }
                result => return result,
            }
        }
    }

    fn launch(&self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let mut child = self
            .user
            .command(self.binaries.program("postgres"))
            .arg("-D")
            .arg(self.data_dir())
            .args(["-p", &self.port.to_string()])
            .current_dir(&self.root)
            // A Ctrl-C in the terminal is for the daemon under test alone.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("could not start postgres")?;
        let start = Instant::now();
        while !self.is_ready(child.id()) {
            if let Some(status) = child.try_wait()? {
                bail!("postgres did not start ({status}); its log ends:\n{}", self.log_tail());
            }
            if start.elapsed() > START_TIMEOUT {
                send(&child, Signal::QUIT)?;
                child.wait()?;
                bail!("postgres was not ready in {START_TIMEOUT:?}; its log ends:\n{}", self.log_tail());
            }
            sleep(POLL);
        }
        *self.server() = Some(child);
        Ok(())
    }

    /// Whether the lock file is that of process `pid` and its last line says so.
    fn is_ready(&self, pid: u32) -> bool {
        let Ok(text) = fs::read_to_string(self.data_dir().join("postmaster.pid")) else {
            return false;
        };
        let mut lines = text.lines();
        lines.next().and_then(|line| line.trim().parse().ok()) == Some(pid)
            && lines.nth(6).is_some_and(|status| status.trim() == "ready")
    }

    /// The server handles the signal and new connections one after the other, so whoever connects
    /// after its log line meets the new configuration.
    fn reload(&self) -> Result<()> {
        let before = self.log().matches(RELOADING).count();
        {
            let server = self.server();
            let child = server.as_ref().context("the server is stopped")?;
            send(child, Signal::HUP)?;
        }
        let start = Instant::now();
        while self.log().matches(RELOADING).count() == before {
            ensure!(start.elapsed() < START_TIMEOUT, "the server did not reload");
            sleep(POLL);
        }
        Ok(())
    }

    /// Sends the protocol's `SSLRequest` and reads the one-byte answer.
    fn answers_tls(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        Ok(answer == *b"S")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.stop(Mode::Immediate, Duration::from_secs(10)).is_err()
            && let Some(child) = self.server().as_mut()
        {
            // Nobody is left to tell about a failure here.
            drop(child.kill());
            drop(child.wait());
        }
        if let Some(guard) = self.guard.take() {
            guard.finish();
        }
    }
}

/// The shell that outlives this process long enough to clean up after it.
#[derive(Debug)]
struct Guard {
    shell: Child,
    pipe: ChildStdin,
}

impl Guard {
    fn start(user: &RunAs, root: &Path) -> Result<Self> {
        let mut shell = user
            .command("sh")
            .args(["-c", GUARD_SCRIPT, "testbed-guard"])
            .arg(root)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            // A test runner waits for whoever holds its output.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("could not start sh")?;
        let pipe = shell.stdin.take().context("sh has no standard input")?;
        Ok(Self { shell, pipe })
    }

    fn finish(mut self) {
        drop(self.pipe);
        drop(self.shell.wait());
    }
}

/// A port nobody listens on, below the range that outgoing connections take: a stopped server
/// must find its port free again.
fn free_port() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = now.subsec_nanos() ^ id().rotate_left(16);
    for _ in 0..2000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(7919);
        let port = u16::try_from(15_000 + seed.wrapping_add(step) % 15_000)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1 between 15000 and 30000")
}

fn send(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.context("no process id")?, signal).context("could not signal the server")
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_directory_is_encoded_for_a_url() {
        assert_eq!(percent_encoded("/tmp/a b"), "%2Ftmp%2Fa%20b");
    }
}
