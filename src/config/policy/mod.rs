//! The policy file: decisions about people that are the operator's, in TOML.
//!
//! Owns the file's keys, their defaults and their limits. Must not hold anything that names a
//! database or a secret: the file is meant to be shown around and kept in version control.
//!
//! Every key with its default is in `policy.toml`, which `docs/src/configuration.md` shows. `read` reads a file.

mod read;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::limits::{
    Choice, batch_bytes, batch_changes, budgets_shown, failures_per_hour, group_min, healing_per_hour,
    interval_hours, jitter_percent, model_names, model_prefix, one_of, people, percent, poll_seconds,
    retained_wal, retention_days, word,
};

/// The whole policy; a file may leave anything out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    #[serde(deserialize_with = "one_of", serialize_with = "word")]
    pub api_keys: ApiKeys,
    #[serde(deserialize_with = "one_of", serialize_with = "word")]
    pub passwords: Passwords,
    pub accounts: Accounts,
    pub access: Access,
    pub models: Models,
    pub grants: Grants,
    pub brake: Brake,
    pub source: Source,
    pub failures: Failures,
    pub verify: Verify,
    pub audit: Audit,
    pub budgets: Budgets,
    pub http: Http,
    pub batch: Batch,
}

/// `[accounts]`: how people become accounts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Accounts {
    #[serde(deserialize_with = "one_of", serialize_with = "word")]
    pub adopt: Adopt,
    /// Adopting lends LiteLLM's word to whoever holds the e-mail, so an admin's account is
    /// left alone unless this says otherwise.
    pub adopt_admins: bool,
    #[serde(deserialize_with = "one_of", serialize_with = "word")]
    pub relink: Relink,
    #[serde(deserialize_with = "one_of", serialize_with = "word")]
    pub demote: Demote,
    #[serde(deserialize_with = "one_of", serialize_with = "word")]
    pub name: NameFormat,
    #[serde(deserialize_with = "one_of", serialize_with = "word")]
    pub id: AccountIds,
}

/// What new accounts are called by. Those that are there keep what they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccountIds {
    /// `usr_` and LiteLLM's `user_id`.
    #[default]
    Prefixed,
    /// LiteLLM's `user_id`, so that LiteLLM knows whose chats it answers by the header `X-OpenWebUI-User-Id`.
    Plain,
}

/// What happens to an Open WebUI account that already has a new person's e-mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Adopt {
    /// It becomes the person's account; password, settings and chats stay.
    #[default]
    Adopt,
    /// It is left alone, and the person has no account until it is gone.
    Skip,
}

/// What happens when a departed account's e-mail comes back under another `user_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Relink {
    /// The same account is used again: same e-mail, same person.
    #[default]
    Link,
    /// The person is parked.
    Skip,
}

/// Which admin roles are taken back when LiteLLM says `user`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Demote {
    /// Those we gave.
    #[default]
    Ours,
    /// Those given inside Open WebUI too.
    Always,
}

/// Whether people with a usable LiteLLM key get a personal API key in Open WebUI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ApiKeys {
    /// They have one of ours, unless they made one themselves.
    #[default]
    Mint,
    /// No key is made or removed, not even one that was minted before.
    Off,
}

/// Whether new accounts may be given a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Passwords {
    /// People sign in by other means.
    #[default]
    None,
    /// `passwords export` hands out one-time passwords.
    Invite,
}

/// How a display name is put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameFormat {
    /// `{team_alias}-{user_alias}`.
    #[default]
    TeamUser,
    /// `{user_alias}`.
    User,
}

/// `[access]`: how keys decide over models.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    #[serde(deserialize_with = "one_of", serialize_with = "word")]
    pub keys: KeyPolicy,
    #[serde(deserialize_with = "one_of", serialize_with = "word")]
    pub budgets: BudgetPolicy,
}

/// Whether a used-up budget takes models away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BudgetPolicy {
    /// It is shown, and nothing else.
    #[default]
    Ignore,
    /// It closes what it is for until it is reset or raised.
    Enforce,
}

/// Whether a person needs a key to see models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyPolicy {
    /// Who has keys sees what the usable ones allow; who has none is not narrowed.
    #[default]
    Narrow,
    /// Nothing without a usable key.
    Required,
}

/// `[models]`: which models there are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Models {
    #[serde(deserialize_with = "model_names")]
    pub extra: Vec<String>,
    /// As in `prefix_id`, without the dot; `auto` finds it.
    #[serde(deserialize_with = "model_prefix")]
    pub prefix: String,
    #[serde(deserialize_with = "one_of", serialize_with = "word")]
    pub public: PublicModels,
    #[serde(deserialize_with = "poll_seconds")]
    pub poll_seconds: u64,
}

/// What happens to a model that everybody sees in Open WebUI although LiteLLM limits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PublicModels {
    /// It is named by `status` and a metric.
    #[default]
    Report,
    /// It is not public any more.
    Take,
}

/// `[grants]`: how access is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    #[serde(deserialize_with = "group_min")]
    pub group_min: i32,
}

/// `[brake]`: how many people one batch, merge or repair may deactivate or strip of access.
/// The larger of the two numbers counts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Brake {
    #[serde(deserialize_with = "people")]
    pub people: u32,
    /// Of the active people.
    #[serde(deserialize_with = "percent")]
    pub percent: u8,
}

/// `[source]`: what LiteLLM's server may have to bear.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// Bytes of WAL the slot may keep on LiteLLM's server while this program runs and cannot apply it. 0 is no limit.
    #[serde(deserialize_with = "retained_wal")]
    pub max_retained_wal: u64,
    /// How often everything may be copied again within an hour because the stream cannot go on. 0 is never.
    #[serde(deserialize_with = "healing_per_hour")]
    pub healing_per_hour: u32,
}

/// `[failures]`: when failures are not about single rows any more.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Failures {
    /// Entities that may begin to fail within an hour.
    #[serde(deserialize_with = "failures_per_hour")]
    pub per_hour: u32,
}

/// `[verify]`: everything compared with LiteLLM's own rows, by the running daemon.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Verify {
    /// 0: never.
    #[serde(deserialize_with = "interval_hours")]
    pub interval_hours: i32,
    #[serde(deserialize_with = "jitter_percent")]
    pub jitter_percent: i32,
    pub repair: bool,
}

/// `[audit]`: how long `sync_audit` keeps its rows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    #[serde(deserialize_with = "retention_days")]
    pub retention_days: u32,
}

/// `[budgets]`: whose budgets the metrics name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budgets {
    /// The fullest of each kind.
    #[serde(deserialize_with = "budgets_shown")]
    pub top: usize,
    /// More of each kind that reached their soft budget.
    #[serde(deserialize_with = "budgets_shown")]
    pub soft: usize,
    /// Ids and aliases that look like an e-mail are shown as they are.
    pub emails: bool,
    #[serde(deserialize_with = "one_of", serialize_with = "word")]
    pub chats: Chats,
}

/// Under whom LiteLLM books what people spend in Open WebUI, which asks it with one key for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Chats {
    /// Under nobody that we know: it counts for no person.
    #[default]
    None,
    /// Under a customer called like the person's e-mail (header `X-OpenWebUI-User-Email`): it counts for the user.
    Customer,
    /// Under the user whose id is the account's (header `X-OpenWebUI-User-Id`): it counts by itself.
    User,
}

/// `[http]`: what the status page shows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    #[serde(deserialize_with = "one_of", serialize_with = "word")]
    pub names: Names,
}

/// Whether people can be told apart on the status page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// `a…@c…`: whoever knows the person recognises them.
    #[default]
    Mask,
    /// Names and e-mails as they are.
    Show,
}

/// `[batch]`: what one target transaction holds at most. A source transaction that is larger
/// still stays whole.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    #[serde(deserialize_with = "batch_changes")]
    pub changes: usize,
    #[serde(deserialize_with = "batch_bytes")]
    pub bytes: usize,
}

impl Choice for Adopt {
    const WORDS: &'static [(&'static str, Self)] = &[("adopt", Self::Adopt), ("skip", Self::Skip)];
}

impl Choice for Relink {
    const WORDS: &'static [(&'static str, Self)] = &[("link", Self::Link), ("skip", Self::Skip)];
}

impl Choice for Demote {
    const WORDS: &'static [(&'static str, Self)] = &[("ours", Self::Ours), ("always", Self::Always)];
}

impl Choice for ApiKeys {
    const WORDS: &'static [(&'static str, Self)] = &[("mint", Self::Mint), ("off", Self::Off)];
}

impl Choice for Passwords {
    const WORDS: &'static [(&'static str, Self)] = &[("none", Self::None), ("invite", Self::Invite)];
}

impl Choice for NameFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("team-user", Self::TeamUser), ("user", Self::User)];
}

impl Choice for KeyPolicy {
    const WORDS: &'static [(&'static str, Self)] = &[("narrow", Self::Narrow), ("required", Self::Required)];
}

impl Choice for BudgetPolicy {
    const WORDS: &'static [(&'static str, Self)] = &[("ignore", Self::Ignore), ("enforce", Self::Enforce)];
}

impl Choice for Chats {
    const WORDS: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("customer", Self::Customer), ("user", Self::User)];
}

impl Choice for AccountIds {
    const WORDS: &'static [(&'static str, Self)] = &[("prefixed", Self::Prefixed), ("plain", Self::Plain)];
}

impl Choice for PublicModels {
    const WORDS: &'static [(&'static str, Self)] = &[("report", Self::Report), ("take", Self::Take)];
}

impl Choice for Names {
    const WORDS: &'static [(&'static str, Self)] = &[("mask", Self::Mask), ("show", Self::Show)];
}

impl Default for Models {
    fn default() -> Self {
        Self {
            extra: Vec::new(),
            prefix: "auto".to_owned(),
            public: PublicModels::default(),
            poll_seconds: 60,
        }
    }
}

impl Default for Grants {
    fn default() -> Self {
        Self { group_min: 5 }
    }
}

impl Default for Brake {
    fn default() -> Self {
        Self { people: 20, percent: 10 }
    }
}

impl Default for Source {
    fn default() -> Self {
        Self { max_retained_wal: 16 * 1024 * 1024 * 1024, healing_per_hour: 3 }
    }
}

impl Default for Failures {
    fn default() -> Self {
        Self { per_hour: 200 }
    }
}

impl Default for Verify {
    fn default() -> Self {
        Self { interval_hours: 24, jitter_percent: 10, repair: true }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self { retention_days: 90 }
    }
}

impl Default for Budgets {
    fn default() -> Self {
        Self { top: 10, soft: 100, emails: false, chats: Chats::default() }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self { changes: 2000, bytes: 4 * 1024 * 1024 }
    }
}

impl Policy {
    /// What is read of budgets decides over people or is kept, and is not only shown.
    pub fn budgets_decide(&self) -> bool {
        self.access.budgets == BudgetPolicy::Enforce || self.budgets.chats == Chats::Customer
    }

    /// What differs from the defaults, as the file has it: `brake.people` and its value.
    pub fn differences(&self) -> Vec<(String, toml::Value)> {
        let keys = |policy: &Self| {
            let table = toml::Table::try_from(policy).unwrap_or_default();
            let flat = table.into_iter().flat_map(|(name, value)| match value {
                toml::Value::Table(section) => {
                    section.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)).collect()
                }
                value => vec![(name, value)],
            });
            flat.collect::<Vec<_>>()
        };
        let defaults = keys(&Self::default());
        keys(self).into_iter().filter(|one| !defaults.contains(one)).collect()
    }

    /// A short hash of what changes the projection. A policy with another fingerprint needs one
    /// full difference before the stream goes on, so limits and retention are not in it.
    pub fn fingerprint(&self) -> String {
        // Taken apart by name: a new key does not compile until somebody decides about it here.
        // Other ids are for new accounts only.
        let Accounts { adopt, adopt_admins, relink, demote, name, id: _ } = &self.accounts;
        // Whatever budgets close or open from now on is touched by that.
        let Access { keys, budgets: _ } = &self.access;
        // The prefix counts as it is found, not as it is asked for.
        let Models { extra, prefix: _, public, poll_seconds: _ } = &self.models;
        let Grants { group_min } = &self.grants;
        let text = format!(
            "api_keys={} accounts adopt={} adopt_admins={adopt_admins} relink={} demote={} name={}; \
             access keys={}; models extra={extra:?} public={}; grants group_min={group_min}",
            self.api_keys.word(),
            adopt.word(),
            relink.word(),
            demote.word(),
            name.word(),
            keys.word(),
            public.word(),
        );
        Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_the_defaults_is_listed_as_the_file_has_it() {
        assert_eq!(Policy::default().differences(), []);
        let text = "api_keys = \"off\"\n[models]\nextra = [\"a\"]\n[brake]\npeople = 20\npercent = 11";
        let differences = Policy::parse(text).unwrap().differences();
        let listed: Vec<String> = differences.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        assert_eq!(listed, ["api_keys = \"off\"", "brake.percent = 11", "models.extra = [\"a\"]"]);
    }

    #[test]
    fn the_fingerprint_changes_with_the_projection_and_with_nothing_else() {
        let default = Policy::default();
        // Pinned: a new value here makes every installation run one full difference.
        assert_eq!(default.fingerprint(), "206b731be75d7e1f");
        for (text, same) in [
            ("[accounts]\nadopt = \"skip\"", false),
            ("[accounts]\nadopt_admins = true", false),
            ("[accounts]\nrelink = \"skip\"", false),
            ("[accounts]\ndemote = \"always\"", false),
            ("[accounts]\nname = \"user\"", false),
            ("[access]\nkeys = \"required\"", false),
            ("[models]\nextra = [\"a\"]", false),
            ("[models]\npublic = \"take\"", false),
            ("[models]\nprefix = \"p\"\npoll_seconds = 9", true),
            ("[grants]\ngroup_min = 2", false),
            ("api_keys = \"off\"", false),
            ("[brake]\npeople = 1\npercent = 1", true),
            ("[source]\nmax_retained_wal = 0\nhealing_per_hour = 0\n[failures]\nper_hour = 1", true),
            (
                "passwords = \"invite\"\n[verify]\ninterval_hours = 1\njitter_percent = 0\nrepair = false",
                true,
            ),
            ("[audit]\nretention_days = 1", true),
            ("[budgets]\ntop = 1\nemails = true\nchats = \"customer\"", true),
            ("[access]\nbudgets = \"enforce\"\n[accounts]\nid = \"plain\"", true),
            ("[http]\nnames = \"show\"", true),
            ("[batch]\nchanges = 1\nbytes = 65536", true),
        ] {
            let fingerprint = Policy::parse(text).unwrap().fingerprint();
            assert_eq!(fingerprint == default.fingerprint(), same, "{text}");
        }
    }
}
