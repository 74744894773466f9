//! The statements of one go at the difference: their texts for a layout, their parameters, their answers.
//!
//! Knows no order: [`super::Projection`] says what is sent when. Decides nothing.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Statement};

use super::api_keys::{self, KeyTexts};
use super::{MANY, Outcome, Scope, Stamp, only};
use crate::config::policy::ApiKeys;
use crate::error::Result;
use crate::sql::{self, TouchedFrom, fill, with_keys};
use crate::target::layout::Layout;
use crate::target::{QUICK, SLOW, Target};

#[derive(Debug)]
pub(super) struct Texts {
    pub(super) members_with_accounts: String,
    pub(super) new: String,
    pub(super) all_remain: String,
    pub(super) create: String,
    pub(super) vacate: String,
    pub(super) link: String,
    pub(super) update: String,
    pub(super) groups: String,
    pub(super) members: String,
    pub(super) remove_groups: String,
    /// `None` where the policy leaves keys alone.
    pub(super) keys: Option<KeyTexts>,
}

impl Texts {
    pub(super) fn new(layout: &Layout, api_keys: ApiKeys, keys: TouchedFrom) -> Self {
        let with_accounts = with_keys(sql::MEMBERS_WITH_ACCOUNTS, keys, 1);
        let difference = fill(sql::ACCOUNT_DIFFERENCE, ":email_holder", layout.email.holder);
        // Where there are many, people who are simply new are dealt with before.
        let rest = if keys == TouchedFrom::Arrays { keys } else { TouchedFrom::Remaining };
        let account =
            |text: &str, first| with_keys(&fill(text, ":account_difference", &difference), rest, first);
        let create = fill(sql::CREATE_ACCOUNTS, ":new_user", sql::NEW_USER);
        let new = fill(sql::NEW_ACCOUNTS, ":new_user", sql::NEW_USER);
        let desired = match keys {
            TouchedFrom::Arrays => sql::DESIRED_MEMBERS_OF_KEYS,
            TouchedFrom::Table | TouchedFrom::Remaining => sql::DESIRED_MEMBERS_OF_MANY,
            TouchedFrom::Everything => sql::DESIRED_MEMBERS_OF_ALL,
        };
        let difference = fill(sql::MEMBER_DIFFERENCE, ":desired_members", desired);
        let kept = layout.group_members;
        let members = fill(kept.members, ":member_difference", &difference);
        let members = fill(&members, ":member_audit", sql::MEMBER_AUDIT);
        let members = fill(&members, ":changes", kept.changes);
        let groups = fill(sql::GROUPS, ":extra_columns", kept.group_columns);
        let groups = fill(&groups, ":extra_values", kept.group_values);
        let remove = fill(sql::REMOVE_GROUPS, ":references", &layout.group_references());
        Self {
            // Noted where the others are, and nothing is read where there are none.
            members_with_accounts: if keys == TouchedFrom::Table {
                format!(
                    "insert into touched (kind, id) select 'user', id from ({with_accounts}) whole
                      where exists (select from touched where kind = 'member')"
                )
            } else {
                with_accounts
            },
            new: with_keys(&new, keys, 4),
            all_remain: with_keys("insert into remaining select id from :users as given(id)", keys, 1),
            create: account(&create, 6),
            vacate: with_keys(sql::VACATE_EMAILS, rest, 2),
            link: account(sql::LINK_ACCOUNTS, 6),
            update: account(sql::UPDATE_ACCOUNTS, 7),
            groups: with_keys(&groups, keys, 4),
            members: with_keys(&members, keys, 4),
            remove_groups: with_keys(&remove, keys, 3),
            keys: (api_keys == ApiKeys::Mint).then(|| KeyTexts::new(layout, keys)),
        }
    }
}

/// Which arrays of keys a statement takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyKinds {
    Groups,
    All,
    RemovedGroups,
}

pub(super) struct AccountCounts {
    pub(super) created: i64,
    pub(super) waiting: i64,
    pub(super) updates: i64,
    pub(super) links: i64,
    pub(super) departing: i64,
    pub(super) conflicts: i64,
    pub(super) stranded: Vec<String>,
}

/// What is known of the e-mails that change hands in this difference.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// People who cannot get the e-mail they want: nobody waits for theirs.
    pub(super) pinned: Vec<String>,
    /// Every e-mail that will be freed is free by now.
    pub(super) settled: bool,
}

pub(super) struct Run<'a> {
    pub(super) texts: &'a Texts,
    pub(super) keys: Option<&'a KeyTexts>,
    /// With models too.
    pub(super) whole: bool,
    pub(super) scope: Scope<'a>,
    pub(super) stamp: Stamp,
}

impl Run<'_> {
    pub(super) fn patience(&self) -> std::time::Duration {
        match self.scope {
            Scope::These(touched) if touched.reach() <= MANY => QUICK,
            Scope::These(_) | Scope::Touched | Scope::Models | Scope::Everything => SLOW,
        }
    }

    pub(super) async fn prepare(&self, target: &Target, text: &str) -> Result<Statement> {
        // now, lsn and the audit switch come first in nearly every statement; their types cannot
        // always be inferred.
        target.prepare(text, &[Type::TIMESTAMPTZ, Type::PG_LSN]).await
    }

    /// Keys of whoever may have won or lost the last usable one; nothing is sent where nobody did.
    pub(super) async fn write_keys(&self, target: &Target) -> Result<api_keys::Counts> {
        let Some(texts) = self.keys else { return Ok(api_keys::Counts::default()) };
        let people: Vec<&str> = match self.scope {
            Scope::These(touched) => touched.key_people().map(String::as_str).collect(),
            Scope::Touched | Scope::Models | Scope::Everything => Vec::new(),
        };
        if people.is_empty() && matches!(self.scope, Scope::These(_)) {
            return Ok(api_keys::Counts::default());
        }
        texts.apply(target, &people, self.stamp, self.patience()).await
    }

    pub(super) fn users(&self) -> Option<Vec<&str>> {
        match self.scope {
            Scope::These(touched) => Some(touched.users.iter().map(String::as_str).collect()),
            Scope::Touched | Scope::Models | Scope::Everything => None,
        }
    }

    pub(super) async fn create_accounts(&self, target: &Target, moves: &Moves) -> Result<AccountCounts> {
        let rows = self.accounts(target, &self.texts.create, "create accounts", moves, None).await?;
        let row = only(rows)?;
        Ok(AccountCounts {
            created: row.get("created"),
            waiting: row.get("waiting"),
            updates: row.get("updates"),
            links: row.get("links"),
            departing: row.get("departing"),
            conflicts: row.get("conflicts"),
            stranded: row.get("stranded"),
        })
    }

    pub(super) async fn link_accounts(&self, target: &Target, moves: &Moves) -> Result<Vec<String>> {
        let rows = self.accounts(target, &self.texts.link, "link accounts", moves, None).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    pub(super) async fn update_accounts(
        &self,
        target: &Target,
        moves: &Moves,
        linked: &[String],
        outcome: &mut Outcome,
    ) -> Result<i64> {
        let rows = self.accounts(target, &self.texts.update, "update accounts", moves, Some(linked)).await?;
        let row = only(rows)?;
        outcome.kept_admins = row.get("kept_admins");
        Ok(row.get("updated"))
    }

    /// One of the statements over `account_difference.sql`.
    pub(super) async fn accounts(
        &self,
        target: &Target,
        text: &str,
        action: &'static str,
        moves: &Moves,
        linked: Option<&[String]>,
    ) -> Result<Vec<Row>> {
        let statement = self.prepare(target, text).await?;
        let Stamp { now, lsn, audit_each, .. } = self.stamp;
        let users = self.users();
        let mut parameters: Vec<&(dyn ToSql + Sync)> =
            vec![&now, &lsn, &audit_each, &moves.pinned, &moves.settled];
        if let Some(linked) = &linked {
            parameters.push(linked);
        }
        if let Some(users) = &users {
            parameters.push(users);
        }
        target.query(action, self.patience(), &statement, &parameters).await
    }

    pub(super) async fn vacate_emails(&self, target: &Target, moves: &Moves) -> Result<()> {
        let statement = target.prepare(&self.texts.vacate, &[Type::TEXT_ARRAY]).await?;
        let users = self.users();
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&moves.pinned];
        if let Some(users) = &users {
            parameters.push(users);
        }
        target.query("free e-mails for others", self.patience(), &statement, &parameters).await?;
        Ok(())
    }

    pub(super) async fn one(
        &self,
        target: &Target,
        text: &str,
        action: &'static str,
        kinds: KeyKinds,
    ) -> Result<Row> {
        let statement = self.prepare(target, text).await?;
        let Stamp { now, lsn, audit_each, .. } = self.stamp;
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&now, &lsn];
        if kinds != KeyKinds::RemovedGroups {
            parameters.push(&audit_each);
        }
        let (users, teams, organizations);
        if let Scope::These(touched) = self.scope {
            users = touched.group_people().collect::<Vec<_>>();
            teams = touched.teams.iter().collect::<Vec<_>>();
            organizations = touched.organizations.iter().collect::<Vec<_>>();
            if kinds == KeyKinds::All {
                parameters.push(&users);
            }
            parameters.push(&teams);
            parameters.push(&organizations);
        }
        only(target.query(action, self.patience(), &statement, &parameters).await?)
    }
}
