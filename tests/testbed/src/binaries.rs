//! Finds the Postgres server programs of this machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Where a test run is told which Postgres to use.
const BIN_DIR_VARIABLE: &str = "TESTBED_PG_BIN";
/// The same for Open WebUI's server, where it is to be another one than LiteLLM's.
const TARGET_BIN_DIR_VARIABLE: &str = "TESTBED_PG_TARGET_BIN";

const REMEDY: &str = "install the PostgreSQL server (Debian, Ubuntu: apt-get install postgresql; \
     Fedora: dnf install postgresql-server; macOS: brew install postgresql), \
     or set TESTBED_PG_BIN to the directory that holds initdb and postgres";

/// One installed Postgres: the directory of `initdb` and `postgres`, and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    dir: PathBuf,
    version: String,
    major: u32,
}

impl Binaries {
    /// Takes the first of: `TESTBED_PG_BIN`, `pg_config --bindir`, the newest packaged server,
    /// Homebrew's, `PATH`; with the feature `fetch`, a downloaded one.
    ///
    /// `TESTBED_PG_BIN` is an order, not a hint: a wrong value is an error.
    pub fn find() -> Result<Self> {
        if let Some(dir) = env::var_os(BIN_DIR_VARIABLE) {
            return Self::at(Path::new(&dir)).with_context(|| format!("{BIN_DIR_VARIABLE} is set"));
        }
        let mut broken = Vec::new();
        for dir in candidates().iter().filter(|dir| holds_a_server(dir)) {
            match Self::at(dir) {
                Ok(binaries) => return Ok(binaries),
                Err(error) => broken.push(format!("{error:#}")),
            }
        }
        #[cfg(feature = "fetch")]
        return crate::fetch::server().with_context(|| {
            format!("no PostgreSQL server on this machine, and none could be downloaded; {REMEDY}")
        });
        #[cfg(not(feature = "fetch"))]
        {
            let broken = broken.iter().map(|text| format!("\n  {text}")).collect::<String>();
            bail!("no PostgreSQL server found: {REMEDY}{broken}")
        }
    }

    /// Which Postgres Open WebUI is to be on, where a test run was told another one than LiteLLM's.
    pub fn of_the_target() -> Result<Option<Self>> {
        let Some(dir) = env::var_os(TARGET_BIN_DIR_VARIABLE) else { return Ok(None) };
        Self::at(Path::new(&dir)).with_context(|| format!("{TARGET_BIN_DIR_VARIABLE} is set")).map(Some)
    }

    /// Whether [`Binaries::find`] has nothing on this machine to take, and may have to wait for a
    /// download.
    #[cfg(feature = "fetch")]
    pub fn is_fetch_needed() -> bool {
        env::var_os(BIN_DIR_VARIABLE).is_none()
            && !candidates().iter().any(|dir| holds_a_server(dir) && Self::at(dir).is_ok())
            && !crate::fetch::is_cached()
    }

    /// The server in `dir`, which must hold `initdb` and a `postgres` that runs.
    pub fn at(dir: &Path) -> Result<Self> {
        ensure!(holds_a_server(dir), "no initdb and postgres in {}: {REMEDY}", dir.display());
        let postgres = dir.join("postgres");
        let output = Command::new(&postgres)
            .arg("--version")
            .output()
            .with_context(|| format!("could not run {}", postgres.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            bail!("{} --version: {}", postgres.display(), text.trim());
        }
        let (version, major) =
            parse_version(&text).with_context(|| format!("{} says \"{text}\"", postgres.display()))?;
        Ok(Self { dir: dir.to_path_buf(), version, major })
    }

    /// The directory of the programs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The full path of one program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The version as the server says it, `15.18`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The major version, `15`.
    pub fn major(&self) -> u32 {
        self.major
    }
}

/// Every directory worth a look, best first. `psql` is looked up in the same places.
pub(crate) fn candidates() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    if let Some(dir) = env::var_os(BIN_DIR_VARIABLE) {
        dirs.push(PathBuf::from(dir));
    }
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output()
        && output.status.success()
    {
        dirs.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    dirs.extend(newest_first(Path::new("/usr/lib/postgresql"), ""));
    dirs.extend(newest_first(Path::new("/usr"), "pgsql-"));
    for prefix in ["/opt/homebrew/opt", "/usr/local/opt"] {
        dirs.extend(newest_first(Path::new(prefix), "postgresql@"));
        dirs.push(Path::new(prefix).join("postgresql/bin"));
    }
    dirs.push(PathBuf::from("/usr/local/pgsql/bin"));
    if let Some(path) = env::var_os("PATH") {
        dirs.extend(env::split_paths(&path));
    }
    dirs
}

/// `parent/<prefix><number>/bin`, highest number first.
fn newest_first(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut versions: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let major = name.strip_prefix(prefix)?.parse().ok()?;
            Some((major, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    versions.into_iter().map(|(_, dir)| dir).collect()
}

fn holds_a_server(dir: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|name| dir.join(name).is_file())
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, and `18beta1` before a release.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let version = text.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    Some((version.to_owned(), version.get(..end)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_the_server_prints() {
        let version = |text| parse_version(text).unwrap();
        assert_eq!(version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), ("15.18".to_owned(), 15));
        assert_eq!(version("postgres (PostgreSQL) 18beta1"), ("18beta1".to_owned(), 18));
        assert_eq!(parse_version("mysqld 8"), None);
    }

    #[test]
    fn a_directory_without_a_server_is_refused_with_the_remedy() {
        let error = Binaries::at(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("TESTBED_PG_BIN"), "{error}");
    }
}
