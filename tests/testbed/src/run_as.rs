//! Who the server runs as: Postgres refuses to run as root, so root takes `postgres`, or `nobody`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// The user the server runs as: ourselves, or somebody harmless when we are root.
#[derive(Debug, Clone)]
pub(crate) struct RunAs {
    other: Option<(u32, u32)>,
    pub(crate) name: String,
}

impl RunAs {
    pub(crate) fn for_server() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { other: None, name: "you".to_owned() });
        }
        let passwd = fs::read_to_string("/etc/passwd").context("could not read /etc/passwd")?;
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| user_in(&passwd, name))
            .context("Postgres does not run as root, and there is no user postgres or nobody")
    }

    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = self.other {
            command.uid(uid).gid(gid);
        }
        // Somebody's settings for psql or pg_ctl are not for us.
        for name in ["PGDATA", "PGPORT", "PGHOST", "PGOPTIONS", "PGDATABASE", "PGUSER"] {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        let Some((uid, gid)) = self.other else {
            return Ok(());
        };
        chown(path, Some(uid), Some(gid))
            .with_context(|| format!("could not give {} to {}", path.display(), self.name))
    }

    pub(crate) fn uid(&self) -> u32 {
        self.other.map_or_else(|| rustix::process::geteuid().as_raw(), |(uid, _)| uid)
    }
}

/// The uid and gid of `name` in the text of `/etc/passwd`.
fn user_in(passwd: &str, name: &str) -> Option<RunAs> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (user, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let other = Some((uid.parse().ok()?, gid.parse().ok()?));
        (user == name).then(|| RunAs { other, name: name.to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd = "postgres2:x:9:9::/:\npostgres:x:101:104:PostgreSQL:/var:/bin/bash\n";
        assert_eq!(user_in(passwd, "postgres").unwrap().other, Some((101, 104)));
        assert!(user_in(passwd, "nobody").is_none());
    }
}
