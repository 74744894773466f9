//! First passwords: only for accounts of ours that never had one, handed out once, in a file of their own.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use testbed::Schema;

use crate::support::compare::{Foreign, assert_in_step_with};
use crate::support::daemon::{answer, command};
use crate::support::{Daemon, Pair, PairOptions, gone, people, person, rows};

struct Scratch(PathBuf);

impl Scratch {
    fn new(pair: &Pair) -> Self {
        let path = std::env::temp_dir().join(format!("it-{}-{}-passwords", std::process::id(), pair.slot));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("policy.toml"), "passwords = \"invite\"\n").unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn export(pair: &Pair, scratch: &Scratch, file: &Path) -> (i32, String, String) {
    let policy = scratch.file("policy.toml");
    answer(
        command(pair).args(["passwords", "export"]).arg(file).arg("--config").arg(policy).output().unwrap(),
    )
}

fn set(pair: &Pair, email: &str, password: &str) -> (i32, String, String) {
    let mut child = command(pair)
        .args(["passwords", "set", email])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
    answer(child.wait_with_output().unwrap())
}

/// A field of a CSV file.
fn unquoted(field: &str) -> String {
    let inner = field.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.map_or_else(|| field.to_owned(), |inner| inner.replace("\"\"", "\""))
}

async fn hashes(pair: &Pair) -> BTreeMap<String, String> {
    rows(&pair.target, "select email, coalesce(password, '') from auth")
        .await
        .into_iter()
        .map(|mut row| (row[0].take().unwrap(), row[1].take().unwrap()))
        .collect()
}

#[tokio::test]
async fn each_new_account_gets_one_password_once_and_nobody_elses_is_touched() {
    let pair = Pair::with(PairOptions { webui: Schema::OpenWebUi0_6_30, ..PairOptions::default() }).await;
    pair.webui(
        "insert into \"user\" (id, name, email, role, profile_image_url, created_at, updated_at, last_active_at) values
            ('x1', 'X', 'a1@x.test', 'user', 'p', 1, 1, 1), ('x2', 'Foreign', 'foreign@x.test', 'user', 'p', 1, 1, 1);
         insert into auth (id, email, password, active) values ('x1', 'a1@x.test', '$2b$12$theirs', true), ('x2', 'foreign@x.test', '', true)",
    )
    .await;
    pair.litellm(&[people("a", 4), person("odd", "\"a,b\"@x.test")].concat()).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm(&gone("a4")).await;
    pair.settle().await;
    let before = hashes(&pair).await;
    let scratch = Scratch::new(&pair);
    let file = scratch.file("first.csv");
    // Only where the policy says so.
    let (code, _, error) = answer(command(&pair).args(["passwords", "export"]).arg(&file).output().unwrap());
    assert!(code == 1 && error.contains("passwords = \"invite\"") && !file.exists(), "{error}");
    let (code, out, error) = export(&pair, &scratch, &file);
    assert_eq!(code, 0, "{error}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    let given: BTreeMap<String, String> = text
        .lines()
        .skip(1)
        .map(|line| line.rsplit_once(',').unwrap())
        .map(|(email, password)| (unquoted(email), password.to_owned()))
        .collect();
    let people: Vec<&str> = given.keys().map(String::as_str).collect();
    assert_eq!(people, ["\"a,b\"@x.test", "a2@x.test", "a3@x.test"]);
    let after = hashes(&pair).await;
    for (email, hash) in &after {
        match given.get(email) {
            Some(password) => {
                assert!(
                    hash.starts_with("$2b$10$") && bcrypt::verify(password, hash).unwrap(),
                    "{email} {hash}"
                );
                assert!(!out.contains(password.as_str()));
                assert!(!bcrypt::verify(email, hash).unwrap());
            }
            // An adopted account, a foreign one, the administrator's, and that of somebody who left.
            None => assert_eq!(hash, &before[email], "{email}"),
        }
    }
    let audit = pair.ask("select string_agg(record_id || ' ' || new_data::text, ' ' order by record_id) from litellm_webui_sync.sync_audit where operation = 'SET_PASSWORD'").await;
    assert!(audit.contains("usr_a2") && audit.contains("usr_a3") && !audit.contains("$2b$"), "{audit}");
    // Once. And never over a file that is there, nor through a link.
    let again = scratch.file("again.csv");
    let (code, out, _) = export(&pair, &scratch, &again);
    assert!(code == 0 && out.contains("everybody has a password") && !again.exists(), "{out}");
    pair.litellm(&person("new", "new@x.test")).await;
    pair.settle().await;
    let link = scratch.file("link.csv");
    std::os::unix::fs::symlink(scratch.file("elsewhere.csv"), &link).unwrap();
    for there in [&file, &link] {
        let (code, _, error) = export(&pair, &scratch, there);
        assert!(code == 1 && error.contains("to a new file only"), "{error}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    assert_eq!(hashes(&pair).await["new@x.test"], "");
    // Who leaves and comes back keeps it.
    let hash = hashes(&pair).await["a2@x.test"].clone();
    pair.litellm(&gone("a2")).await;
    pair.settle().await;
    pair.litellm(&person("a2", "a2@x.test")).await;
    pair.settle().await;
    assert_eq!(hashes(&pair).await["a2@x.test"], hash);
}

#[tokio::test]
async fn one_person_is_given_a_password_from_standard_input_and_bad_ones_are_refused() {
    let pair = Pair::new().await;
    pair.webui(
        "insert into \"user\" (id, name, email, role, profile_image_url, created_at, updated_at, last_active_at)
         values ('x2', 'Foreign', 'foreign@x.test', 'user', 'p', 1, 1, 1);
         insert into auth (id, email, password, active) values ('x2', 'foreign@x.test', '', true)",
    )
    .await;
    pair.litellm(&people("a", 3)).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm(&gone("a3")).await;
    pair.settle().await;
    for (email, password, why) in [
        ("a1@x.test", "short\n", "at least 8"),
        ("a1@x.test", "", "at least 8"),
        ("a1@x.test", &"x".repeat(73), "at most 72"),
        ("nobody@x.test", "long enough", "no account"),
        ("foreign@x.test", "long enough", "not ours"),
        ("a3@x.test", "long enough", "left LiteLLM"),
    ] {
        let (code, _, error) = set(&pair, email, password);
        assert!(code == 1 && error.contains(why), "{email}: {error}");
    }
    assert_eq!(set(&pair, " A1@x.test", "päss wörd\r\n").0, 0);
    let hash = hashes(&pair).await["a1@x.test"].clone();
    assert!(hash.starts_with("$2b$12$") && bcrypt::verify("päss wörd", &hash).unwrap(), "{hash}");
    let (code, _, error) = set(&pair, "a1@x.test", "another one\n");
    assert!(code == 1 && error.contains("nobody's password is replaced"), "{error}");
    assert!(bcrypt::verify("päss wörd", &hashes(&pair).await["a1@x.test"]).unwrap());
    // Not from the command line.
    assert_eq!(
        answer(command(&pair).args(["passwords", "set", "a2@x.test", "secret12"]).output().unwrap()).0,
        2
    );
    let foreign = Foreign { accounts: ["x2".to_owned()].into(), ..Foreign::default() };
    assert_in_step_with(&pair, &foreign).await;
}
