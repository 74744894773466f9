//! First passwords for accounts that never had one: `passwords export` and `passwords set`.
//!
//! Owns how a password is made and hashed, and the file they are handed out in. A password somebody has is never
//! replaced, and only accounts of our ledger get one. Open WebUI's row holds the bcrypt hash, nothing of ours does; hashes
//! reach the server by COPY, because a server that logs statements logs their parameters as well.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::pin::pin;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::SinkExt as _;
use rand::Rng as _;
use tokio_postgres::types::{ToSql, Type};

use crate::error::{Result, Side};
use crate::sql;
use crate::target::{SLOW, Target, within};

/// What Open WebUI takes itself.
const COST: u32 = 12;
/// For random passwords: nobody can try 92 bits at any cost, and people are many.
const COST_OF_RANDOM: u32 = 10;
/// bcrypt looks at no more bytes than these.
pub const MAX_BYTES: usize = 72;
const MIN_CHARACTERS: usize = 8;
/// Without those that look alike.
const ALPHABET: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Four groups of four: 92 bits.
const GROUPS: usize = 4;

/// An account that has no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub webui_id: String,
    pub user_id: String,
    pub email: String,
}

/// What an export came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    pub people: usize,
}

/// Gives everybody without a password a random one, and hands them out in a new file that only its owner can read.
///
/// # Errors
/// When the file is there already, or cannot be written; then nobody has got a password.
pub async fn export(target: &Target, path: &Path) -> anyhow::Result<Exported> {
    // First: nothing is worked out for a file that cannot be made.
    let file = create(path)?;
    let mut may_count = false;
    let result = export_to(target, file, &mut may_count).await;
    if !may_count {
        // Nothing in it opens anything.
        let _ = std::fs::remove_file(path);
    }
    result
}

fn create(path: &Path) -> anyhow::Result<File> {
    // create_new follows no link and takes no file that is there.
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.with_context(|| format!("cannot make {} (passwords go to a new file only)", path.display()))
}

/// `may_count` is set before the passwords are committed: from then on nothing else may know them.
async fn export_to(target: &Target, mut file: File, may_count: &mut bool) -> anyhow::Result<Exported> {
    let accounts = without_password(target, None).await?;
    if accounts.is_empty() {
        return Ok(Exported { people: 0 });
    }
    let passwords: Vec<String> = accounts.iter().map(|_| random()).collect();
    // Slow on purpose, and done before anything is locked.
    let hashes = hash_all(passwords.clone(), COST_OF_RANDOM).await?;
    target.execute("begin to write passwords", "begin").await?;
    let written = write(target, &accounts, &hashes).await?;
    let mut text = String::from("email,password\n");
    let mut people = 0;
    for (account, password) in accounts.iter().zip(&passwords) {
        // Whoever got one in the meantime keeps it.
        if written.contains(&account.webui_id) {
            text.push_str(&format!("{},{password}\n", field(&account.email)));
            people += 1;
        }
    }
    // Durable before they count: a file of passwords that never came true does no harm, the opposite would.
    let kept = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    kept.context("cannot write the file; nobody has got a password")?;
    *may_count = people > 0;
    // The answer may be lost where the commit was not.
    target.commit("commit passwords").await.context(
        "it is not known whether the passwords count. The file is kept: try one of them; if it does not work, delete the file and \
         run this again",
    )?;
    Ok(Exported { people })
}

/// Gives one person this password.
///
/// # Errors
/// When there is no such account of ours, or it has a password.
pub async fn set(target: &Target, email: &str, password: &str) -> anyhow::Result<()> {
    check(password)?;
    let email = email.trim().to_lowercase();
    let accounts = without_password(target, Some(&email)).await?;
    let Some(account) = accounts.first() else { bail!("{}", why_not(target, &email).await?) };
    let hashes = hash_all(vec![password.to_owned()], COST).await?;
    target.execute("begin to write a password", "begin").await?;
    let written = write(target, std::slice::from_ref(account), &hashes).await?;
    if written.is_empty() {
        bail!("somebody gave {email} a password in this very moment");
    }
    target.commit("commit a password").await?;
    Ok(())
}

/// Whether Open WebUI could verify it, and nobody would guess it at once.
///
/// # Errors
/// What is wrong with it.
pub fn check(password: &str) -> anyhow::Result<()> {
    if password.chars().count() < MIN_CHARACTERS {
        bail!("a password has at least {MIN_CHARACTERS} characters");
    }
    if password.len() > MAX_BYTES {
        bail!("Open WebUI takes passwords of at most {MAX_BYTES} bytes");
    }
    if password.chars().any(char::is_control) {
        bail!("a password has no control characters");
    }
    Ok(())
}

async fn without_password(target: &Target, email: Option<&str>) -> Result<Vec<Account>> {
    let statement = target.prepare(sql::PASSWORDS_WITHOUT, &[Type::TEXT]).await?;
    let rows = target.query("look for accounts without a password", SLOW, &statement, &[&email]).await?;
    let account = |row: &tokio_postgres::Row| Account {
        webui_id: row.get("webui_id"),
        user_id: row.get("user_id"),
        email: row.get("email"),
    };
    Ok(rows.iter().map(account).collect())
}

async fn why_not(target: &Target, email: &str) -> Result<String> {
    let statement = target.prepare(sql::PASSWORDS_STATE, &[Type::TEXT]).await?;
    let rows = target.query("look at an account", SLOW, &statement, &[&email]).await?;
    let is = |name: &str| rows.iter().any(|row| row.get(name));
    let reason = if rows.is_empty() {
        "there is no account with this e-mail in Open WebUI"
    } else if !is("ours") {
        "this account is not ours: Open WebUI's administrator can set its password there"
    } else if is("has_password") {
        "this account has a password, and nobody's password is replaced: Open WebUI's administrator can do that there"
    } else if is("waiting") {
        "this account waits for Open WebUI's administrator, or its person left LiteLLM"
    } else {
        "this account is locked: its person is not active in LiteLLM"
    };
    Ok(reason.to_owned())
}

async fn write(target: &Target, accounts: &[Account], hashes: &[String]) -> Result<Vec<String>> {
    let action = "write passwords";
    let table = "create temporary table new_password (place bigint, hash text) on commit drop";
    target.execute(action, table).await?;
    let work = target.raw().copy_in("copy new_password from stdin");
    let sink = within(Side::Target, action, SLOW, work).await?;
    let mut sink = pin!(sink);
    // A bcrypt hash has nothing in it that COPY would take for something else.
    let rows: String =
        (1..).zip(hashes).map(|(place, hash): (u64, _)| format!("{place}\t{hash}\n")).collect();
    within(Side::Target, action, SLOW, sink.send(Bytes::from(rows))).await?;
    within(Side::Target, action, SLOW, sink.finish()).await?;
    let ids: Vec<&str> = accounts.iter().map(|account| account.webui_id.as_str()).collect();
    let users: Vec<&str> = accounts.iter().map(|account| account.user_id.as_str()).collect();
    let types = [Type::TIMESTAMPTZ, Type::TEXT_ARRAY, Type::TEXT_ARRAY];
    let statement = target.prepare(sql::PASSWORDS_WRITE, &types).await?;
    let now = SystemTime::now();
    let parameters: &[&(dyn ToSql + Sync)] = &[&now, &ids, &users];
    let rows = target.query(action, SLOW, &statement, parameters).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Hashes on every core.
async fn hash_all(passwords: Vec<String>, cost: u32) -> anyhow::Result<Vec<String>> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let part = passwords.len().div_ceil(cores).max(1);
    let work: Vec<_> = passwords
        .chunks(part)
        .map(|some| {
            let some = some.to_vec();
            tokio::task::spawn_blocking(move || {
                some.iter().map(|one| bcrypt::non_truncating_hash(one, cost)).collect::<Result<Vec<_>, _>>()
            })
        })
        .collect();
    let mut hashes = Vec::with_capacity(passwords.len());
    for part in work {
        hashes.extend(part.await.context("hashing ended early")?.context("cannot hash a password")?);
    }
    Ok(hashes)
}

/// A one-time password, from the operating system's randomness.
fn random() -> String {
    let mut random = rand::rng();
    let mut group = || {
        let pick =
            |_| ALPHABET.get(random.random_range(0..ALPHABET.len())).map_or('x', |byte| char::from(*byte));
        (0..4).map(pick).collect::<String>()
    };
    (0..GROUPS).map(|_| group()).collect::<Vec<_>>().join("-")
}

/// A field of a CSV file. What a spreadsheet would take for a formula, which could read the passwords beside it, gets an
/// apostrophe.
fn field(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@']) {
        return field(&format!("'{text}"));
    }
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_checked_for_what_bcrypt_can_hold() {
        assert!(check("correct horse").is_ok());
        assert!(check(&"ä".repeat(36)).is_ok());
        for bad in ["short", &"ä".repeat(37), "nul\0nul\0nul", "line\nline\nline"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn random_passwords_are_long_and_differ() {
        let many: std::collections::BTreeSet<String> = (0..1000).map(|_| random()).collect();
        assert_eq!(many.len(), 1000);
        assert!(many.iter().all(|one| one.len() == 19 && check(one).is_ok()));
        assert_eq!(field("a@x.test"), "a@x.test");
        assert_eq!(field("=now()&\"\"@x.test"), "\"'=now()&\"\"\"\"@x.test\"");
        assert_eq!(field("\"a,b\"@x.test"), "\"\"\"a,b\"\"@x.test\"");
    }
}
