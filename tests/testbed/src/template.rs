//! Directories below the temporary directory, and the data directory every cluster is a copy of.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Stdio, id};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};

use crate::binaries::Binaries;
use crate::run_as::RunAs;

/// A data directory fresh from `initdb`, made once per server version and user and shared by
/// every process of that user.
pub(crate) fn template(binaries: &Binaries, user: &RunAs) -> Result<PathBuf> {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut hasher = DefaultHasher::new();
    (binaries.dir(), binaries.version(), env!("CARGO_PKG_VERSION")).hash(&mut hasher);
    let path = temporary_dir().join(format!(
        "testbed-template-{}-{}-{:08x}",
        binaries.version(),
        user.uid(),
        hasher.finish() >> 32
    ));
    if let Ok(metadata) = fs::metadata(&path) {
        ensure!(metadata.uid() == user.uid(), "{} belongs to somebody else: remove it", path.display());
        if path.join("PG_VERSION").is_file() {
            return Ok(path);
        }
        // The system's cleaner of temporary files has been here.
        fs::remove_dir_all(&path).with_context(|| format!("could not remove {}", path.display()))?;
    }
    let work = new_directory(user, "initdb-")?;
    let made = initdb(binaries, user, &work.join("data")).and_then(|()| {
        // Another process may have been quicker; its template is as good.
        match fs::rename(work.join("data"), &path) {
            Err(error) if !path.join("PG_VERSION").is_file() => {
                Err(error).with_context(|| format!("could not make {}", path.display()))
            }
            _ => Ok(()),
        }
    });
    // A directory left over in the temporary directory harms nobody.
    drop(fs::remove_dir_all(&work));
    made.map(|()| path)
}

pub(crate) fn initdb(binaries: &Binaries, user: &RunAs, data: &Path) -> Result<()> {
    let locale = if cfg!(target_os = "linux") { "C.UTF-8" } else { "C" };
    let program = binaries.program("initdb");
    let output = user
        .command(&program)
        .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"])
        .arg(format!("--locale={locale}"))
        .arg("-D")
        .arg(data)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            anyhow!(
                "{} cannot be run as {}: {error}; make its directory readable for that user",
                program.display(),
                user.name
            )
        })?;
    ensure!(
        output.status.success(),
        "initdb failed ({}) as {}: {}{}",
        output.status,
        user.name,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}

/// An empty directory below the temporary directory, owned by the server's user.
pub(crate) fn new_directory(user: &RunAs, kind: &str) -> Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = temporary_dir().join(format!("testbed-{kind}{}-{number}", id()));
        match fs::create_dir(&path) {
            Ok(()) => {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
                user.own(&path)?;
                return Ok(path);
            }
            // Left by an earlier process of the same id.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("could not make {}", path.display()));
            }
        }
    }
}

/// A Unix socket's path holds about 100 bytes, and some systems' temporary directory is longer.
fn temporary_dir() -> PathBuf {
    let dir = std::env::temp_dir();
    let dir = if dir.as_os_str().len() > 60 { PathBuf::from("/tmp") } else { dir };
    fs::canonicalize(&dir).unwrap_or(dir)
}
