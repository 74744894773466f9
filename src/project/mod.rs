//! Makes Open WebUI's rows what the mirror, the ledger and the policy say they should be.
//!
//! Owns the order of the projection and the search for an entity that cannot be written. The rules
//! themselves are SQL: `sql/desired/` says what should be, `sql/project/` and `sql/layout/` apply
//! the difference to what is. Never begins or commits, never sees a LiteLLM row or a position other
//! than the one it stamps on audit rows.
//!
//! Everything is one difference, restricted to the touched keys: a batch, the first projection,
//! a changed policy and the periodic reconcile all run the same statements.

pub mod active;
mod api_keys;
pub mod models;
mod outcome;
mod plain;
pub mod prefix;
pub mod rules;
mod run;
pub mod touched;

use std::time::SystemTime;

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::config::policy::ApiKeys;
use crate::error::{Error, Result, Side, describe_row_error, on};
use crate::position::Lsn;
use crate::sql::{self, TouchedFrom, with_keys};
use crate::target::dead_letter::Kind;
use crate::target::layout::Layout;
use crate::target::{QUICK, SLOW, Target};
pub use outcome::Outcome;
use run::{KeyKinds, Moves, Run, Texts};
use touched::Touched;

/// When and for which batch: stamped on what is written.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// The projection's "now": a parameter, so that it is a function of its inputs.
    pub now: SystemTime,
    /// The end of the batch.
    pub lsn: Lsn,
    /// One audit row per entity, or a summary (copies and reconciles).
    pub audit_each: bool,
    /// How many entities may begin to fail within an hour.
    pub failures: u32,
}

/// The keys to project, and where they are.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    These(&'a Touched),
    /// The temporary table `touched`.
    Touched,
    /// The same, where nothing but models may have changed ([`Touched::is_only_models`]).
    Models,
    Everything,
}

impl Scope<'_> {
    fn keys(self) -> TouchedFrom {
        match self {
            Self::These(_) => TouchedFrom::Arrays,
            Self::Touched | Self::Models => TouchedFrom::Table,
            Self::Everything => TouchedFrom::Everything,
        }
    }
}

/// The statements of one layout, by where the keys come from.
#[derive(Debug)]
pub struct Projection {
    layout: Layout,
    access: models::Access,
    plain: plain::Texts,
    arrays: Texts,
    touched: Texts,
    everything: Texts,
}

/// More touched entities than this are planned for, and waited for, like everything there is. One changed row can
/// touch many: a team's name is part of its members' names.
pub const MANY: usize = 5_000;

impl Projection {
    pub fn new(layout: Layout, api_keys: ApiKeys, models: models::Rules) -> Self {
        let texts = |keys| Texts::new(&layout, api_keys, keys);
        Self {
            access: models::Access::new(&layout, models),
            plain: plain::Texts::new(),
            arrays: texts(TouchedFrom::Arrays),
            touched: texts(TouchedFrom::Table),
            everything: texts(TouchedFrom::Everything),
            layout,
        }
    }

    /// Which models there are is read anew: for whoever is not told that they changed.
    pub fn forget_models(&self) {
        self.access.forget_models();
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Applies the difference for `scope`, in the open transaction. An entity that cannot be written becomes
    /// a dead letter; everything else is written.
    pub async fn apply(&self, target: &Target, scope: Scope<'_>, stamp: Stamp) -> Result<Outcome> {
        if let Scope::These(touched) = scope
            && touched.is_empty()
            && !touched.has_rights()
        {
            return Ok(Outcome::default());
        }
        let mut outcome = self.apply_once(target, scope, stamp).await?;
        // E-mails that changed hands may have left one free that somebody else is waiting for.
        let moved = match scope {
            // Somebody may have got at last what they had waited for, and left what they had.
            Scope::These(touched) => !touched.emails.is_empty() || outcome.accounts_updated > 0,
            Scope::Models => false,
            Scope::Touched | Scope::Everything => true,
        };
        if moved {
            self.let_claimants_in(target, stamp, &mut outcome).await?;
        }
        if outcome.failed > 0 {
            // A short way may have written somebody whose group could not be written after it.
            self.merge_audit(target, stamp).await?;
            within_hourly_budget(target, stamp).await?;
        }
        Ok(outcome)
    }

    /// Looks again at people who waited for an e-mail that is free by now, until nobody is left. Each is looked at
    /// once: whoever still cannot have it has a dead letter that says why.
    async fn let_claimants_in(&self, target: &Target, stamp: Stamp, outcome: &mut Outcome) -> Result<()> {
        let mut seen = Vec::new();
        loop {
            let statement = target.prepare(sql::CLAIMANTS, &[]).await?;
            let rows = target.query("find who waits", SLOW, &statement, &[&seen]).await?;
            if rows.is_empty() {
                break;
            }
            let mut again = Touched::default();
            for row in rows {
                let user: String = row.get(0);
                seen.push(user.clone());
                again.users.insert(user);
            }
            let done = self.apply_once(target, Scope::These(&again), stamp).await?;
            // They were counted as conflicts already.
            outcome.add(Outcome { conflicts: 0, ..done });
        }
        if seen.is_empty() { Ok(()) } else { self.merge_audit(target, stamp).await }
    }

    async fn merge_audit(&self, target: &Target, stamp: Stamp) -> Result<()> {
        let statement = target.prepare(sql::MERGE_AUDIT, &[Type::TIMESTAMPTZ, Type::PG_LSN]).await?;
        target.query("merge audit rows", SLOW, &statement, &[&stamp.now, &stamp.lsn]).await?;
        Ok(())
    }

    async fn apply_once(&self, target: &Target, scope: Scope<'_>, stamp: Stamp) -> Result<Outcome> {
        let only_models = match scope {
            Scope::These(touched) => {
                let keys = self.texts(scope).keys.is_some() && touched.key_people().next().is_some();
                touched.is_empty() && !keys
            }
            Scope::Models => true,
            Scope::Touched | Scope::Everything => false,
        };
        if only_models {
            let mut outcome = Outcome::default();
            self.give_models(target, scope, stamp, &mut outcome).await?;
            return Ok(outcome);
        }
        let widened = self.members_with_accounts(target, scope).await?;
        let scope = widened.as_ref().map_or(scope, Scope::These);
        let created = self.create_new(target, scope, stamp).await?;
        // Sent together; a batch whose attempt succeeds is committed without releasing the savepoint.
        let savepoint = target.execute("set a savepoint", "savepoint project");
        let (savepoint, attempt) = tokio::join!(savepoint, self.attempt(target, scope, stamp, true));
        savepoint?;
        let error = match attempt {
            Ok(mut outcome) => {
                outcome.accounts_created += created;
                return Ok(outcome);
            }
            Err(error) => error,
        };
        if !error.is_about_a_row() {
            return Err(error);
        }
        target
            .execute("go back to a savepoint", "rollback to savepoint project; release savepoint project")
            .await?;
        let touched = match scope {
            Scope::These(touched) => touched.clone().with_accounts(),
            Scope::Touched | Scope::Models | Scope::Everything => self.keys_of(target, scope).await?,
        };
        let mut outcome = Outcome { accounts_created: created, ..Outcome::default() };
        self.bisect(target, touched, stamp, &mut outcome).await?;
        if let (Some(texts), Some(few)) = (&self.texts(scope).keys, &self.arrays.keys) {
            let listed;
            let people: Vec<&str> = match scope {
                Scope::These(touched) => touched.key_people().map(String::as_str).collect(),
                Scope::Touched | Scope::Models | Scope::Everything => {
                    listed = texts.people(target).await?;
                    listed.iter().map(String::as_str).collect()
                }
            };
            few.apply_each(target, &people, stamp, &mut outcome).await?;
        }
        self.give_models(target, scope, stamp, &mut outcome).await?;
        Ok(outcome)
    }

    /// Has the accounts of some members looked at too: in the temporary table, or in what is given where there is one.
    async fn members_with_accounts(&self, target: &Target, scope: Scope<'_>) -> Result<Option<Touched>> {
        const ACTION: &str = "look for accounts that are not there";
        let text = &self.texts(scope).members_with_accounts;
        match scope {
            Scope::These(touched) if !touched.members.is_empty() => {
                let members: Vec<&String> = touched.members.iter().collect();
                let statement = target.prepare(text, &[]).await?;
                let patience = if members.len() > MANY { SLOW } else { QUICK };
                let rows = target.query(ACTION, patience, &statement, &[&members]).await?;
                Ok((!rows.is_empty()).then(|| {
                    let mut widened = touched.clone();
                    widened.users.extend(rows.iter().map(|row| row.get::<_, String>(0)));
                    widened
                }))
            }
            Scope::Touched => {
                let statement = target.prepare(text, &[]).await?;
                target.query(ACTION, SLOW, &statement, &[]).await?;
                Ok(None)
            }
            Scope::These(_) | Scope::Models | Scope::Everything => Ok(None),
        }
    }

    /// What people may use, once their accounts are there.
    async fn give_models(
        &self,
        target: &Target,
        scope: Scope<'_>,
        stamp: Stamp,
        outcome: &mut Outcome,
    ) -> Result<()> {
        // In a box: what it holds while it waits would make every caller's future large.
        Box::pin(self.access.apply(target, scope, stamp, outcome)).await
    }

    /// Where the keys are many, inserts the accounts of people who are simply new, and leaves the others in the temporary
    /// table `remaining`. Should one of them not be writable, nobody counts as new and the general way finds out who it is.
    async fn create_new(&self, target: &Target, scope: Scope<'_>, stamp: Stamp) -> Result<i64> {
        if matches!(scope, Scope::These(_)) {
            return Ok(0);
        }
        let text =
            "create temporary table if not exists remaining (id text collate \"C\") on commit delete rows;
                    savepoint fresh";
        target.execute("prepare for new people", text).await?;
        let texts = self.texts(scope);
        let types = [Type::TIMESTAMPTZ, Type::PG_LSN, Type::BOOL];
        let statement = target.prepare(&texts.new, &types).await?;
        let parameters: &[&(dyn ToSql + Sync)] = &[&stamp.now, &stamp.lsn, &stamp.audit_each];
        let created = match target.query("insert new people", SLOW, &statement, parameters).await {
            Ok(rows) => only(rows)?.get("created"),
            Err(error) if error.is_about_a_row() => {
                target.execute("go back to a savepoint", "rollback to savepoint fresh").await?;
                target.execute("list touched people", &texts.all_remain).await?;
                0
            }
            Err(error) => return Err(error),
        };
        target.execute("analyze the remaining people", "release savepoint fresh; analyze remaining").await?;
        Ok(created)
    }

    /// Accounts, groups and members, without anybody's key or models: halves `touched` until what fails is one entity, which
    /// becomes a dead letter.
    async fn bisect(
        &self,
        target: &Target,
        touched: Touched,
        stamp: Stamp,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let mut queue = vec![touched];
        while let Some(next) = queue.pop() {
            if next.is_empty() {
                continue;
            }
            target.execute("set a savepoint", "savepoint project").await?;
            let error = match self.attempt(target, Scope::These(&next), stamp, false).await {
                Ok(done) => {
                    target.execute("release a savepoint", "release savepoint project").await?;
                    outcome.add(done);
                    continue;
                }
                Err(error) if error.is_about_a_row() => error,
                Err(error) => return Err(error),
            };
            let back = "rollback to savepoint project; release savepoint project";
            target.execute("go back to a savepoint", back).await?;
            if let Some((left, right)) = next.split() {
                queue.extend([right, left]);
                continue;
            }
            if let Some((kind, key)) = next.single() {
                bury(target, kind, key, &error, stamp).await?;
                outcome.failed += 1;
            }
            within_budget(outcome, &error, stamp)?;
        }
        Ok(())
    }

    fn texts(&self, scope: Scope<'_>) -> &Texts {
        match scope {
            Scope::These(_) => &self.arrays,
            Scope::Touched | Scope::Models => &self.touched,
            Scope::Everything => &self.everything,
        }
    }

    /// One go at the difference: accounts inserted, groups, members, and if it is the `whole` of it keys and models;
    /// updates of people last, so that locks on their rows are short.
    async fn attempt(&self, target: &Target, scope: Scope<'_>, stamp: Stamp, whole: bool) -> Result<Outcome> {
        let texts = self.texts(scope);
        let run = Run { texts, keys: texts.keys.as_ref().filter(|_| whole), whole, scope, stamp };
        let (users, members, groups) = match scope {
            Scope::These(touched) => (!touched.users.is_empty(), !touched.is_empty(), touched.has_groups()),
            Scope::Touched | Scope::Models | Scope::Everything => (true, true, true),
        };
        // Before anything is sent together: a statement that still had to be prepared would be overtaken
        // by the ones after it, and members would be written before their accounts.
        for text in [&run.texts.create, &run.texts.groups, &run.texts.members, &run.texts.remove_groups] {
            run.prepare(target, text).await?;
        }
        if let Some(keys) = run.keys {
            keys.prepare(target).await?;
        }
        let mut outcome = Outcome::default();
        if !users {
            let groups = async {
                if members {
                    self.groups_and_members(target, &run, groups, &mut outcome).await
                } else {
                    Ok(())
                }
            };
            let (done, keys) = tokio::join!(groups, run.write_keys(target));
            done?;
            outcome.count_keys(keys?);
            if whole {
                self.give_models(target, scope, stamp, &mut outcome).await?;
            }
            return Ok(outcome);
        }
        // Sent together: nearly always nothing has to be done in between.
        let first = Moves::default();
        let (counts, rest, keys) = tokio::join!(
            run.create_accounts(target, &first),
            self.groups_and_members(target, &run, groups, &mut outcome),
            run.write_keys(target),
        );
        let counts = counts?;
        rest?;
        let keys = keys?;
        if counts.waiting > 0 || counts.links > 0 {
            // Members were written before all accounts were there. Once more, in order: doing the
            // rest on top would give one group two audit rows.
            target.execute("begin again", "rollback to savepoint project").await?;
            return self.attempt_in_order(target, &run, groups).await;
        }
        outcome.count_accounts(&counts);
        outcome.count_keys(keys);
        if whole {
            self.give_models(target, scope, stamp, &mut outcome).await?;
        }
        if counts.updates > 0 {
            outcome.accounts_updated = run.update_accounts(target, &first, &[], &mut outcome).await?;
        }
        Ok(outcome)
    }

    /// The same where e-mails have to be freed or accounts linked first.
    async fn attempt_in_order(&self, target: &Target, run: &Run<'_>, groups: bool) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut moves = Moves::default();
        let counts = loop {
            let counts = run.create_accounts(target, &moves).await?;
            if counts.waiting == 0 {
                break counts;
            }
            run.vacate_emails(target, &moves).await?;
            moves.settled = true;
            let mut settled = run.create_accounts(target, &moves).await?;
            let news = settled.stranded.iter().any(|user| !moves.pinned.contains(user));
            if !news {
                settled.created += counts.created;
                settled.departing = counts.departing;
                break settled;
            }
            // Somebody gave up an e-mail and could not get the other: they stay where they are, and so does
            // whoever waits for them.
            target.execute("begin again", "rollback to savepoint project").await?;
            moves.pinned.append(&mut settled.stranded);
            moves.settled = false;
        };
        moves.settled = true;
        outcome.count_accounts(&counts);
        let linked = if counts.links > 0 { run.link_accounts(target, &moves).await? } else { Vec::new() };
        outcome.accounts_linked = i64::try_from(linked.len()).unwrap_or(i64::MAX);
        self.groups_and_members(target, run, groups, &mut outcome).await?;
        outcome.count_keys(run.write_keys(target).await?);
        if run.whole {
            self.give_models(target, run.scope, run.stamp, &mut outcome).await?;
        }
        outcome.accounts_updated = run.update_accounts(target, &moves, &linked, &mut outcome).await?;
        Ok(outcome)
    }

    async fn groups_and_members(
        &self,
        target: &Target,
        run: &Run<'_>,
        groups: bool,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let members = run.one(target, &run.texts.members, "write group members", KeyKinds::All);
        let members = if groups {
            let groups = run.one(target, &run.texts.groups, "write groups", KeyKinds::Groups);
            let (groups, members) = tokio::join!(groups, members);
            outcome.groups_written += groups?.get::<_, i64>(0);
            members?
        } else {
            members.await?
        };
        outcome.members_added += members.get::<_, i64>(0);
        outcome.members_removed += members.get::<_, i64>(1);
        outcome.stripped.extend(members.get::<_, Vec<i64>>(2));
        if groups {
            let action = "remove groups";
            let row = run.one(target, &run.texts.remove_groups, action, KeyKinds::RemovedGroups).await?;
            outcome.groups_removed += row.get::<_, i64>(0);
        }
        Ok(())
    }

    /// The keys of a scope that is not in memory, for the search of an entity that fails.
    async fn keys_of(&self, target: &Target, scope: Scope<'_>) -> Result<Touched> {
        let text = "select 'user', id from :group_people u union all select 'team', id from :teams t
                    union all select 'organization', id from :organizations o";
        let text = with_keys(text, scope.keys(), 1);
        let rows = target.client().query(&text, &[]).await.map_err(on(Side::Target, "list touched keys"))?;
        let mut touched = Touched::default();
        for row in rows {
            touched.add(0, row.get(0), row.get(1))?;
        }
        Ok(touched)
    }
}

/// Whether anybody may be written yet: the first account to sign up becomes Open WebUI's admin only if it is alone in the
/// table. `before`: somebody was written before; then only a table without anybody, which was made anew, is waited for.
pub async fn may_begin(target: &Target, before: bool) -> Result<bool> {
    let row = target.client().query_one(sql::HAS_ADMIN, &[&before]).await;
    Ok(row.map_err(on(Side::Target, "look for an admin"))?.get(0))
}

/// Ends the search where failures are not about single rows any more.
fn within_budget(outcome: &Outcome, error: &Error, stamp: Stamp) -> Result<()> {
    if outcome.failed <= i64::from(stamp.failures) {
        return Ok(());
    }
    let sqlstate = error.sqlstate().unwrap_or("unknown").to_owned();
    Err(Error::Systemic { failed: outcome.failed, sqlstate })
}

/// The same over batches: what fails a few at a time is no less systemic. Counted in the target, so that a restart does not
/// begin anew.
async fn within_hourly_budget(target: &Target, stamp: Stamp) -> Result<()> {
    let statement = target.prepare(sql::FAILED_LATELY, &[Type::TIMESTAMPTZ]).await?;
    let row = only(target.query("count failures", QUICK, &statement, &[&stamp.now]).await?)?;
    let failed: i64 = row.get("failed");
    if failed <= i64::from(stamp.failures) {
        return Ok(());
    }
    Err(Error::Systemic { failed, sqlstate: row.get("sqlstate") })
}

/// Keeps an entity that could not be written, with its error.
async fn bury(target: &Target, kind: Kind, key: &str, error: &Error, stamp: Stamp) -> Result<()> {
    let (kind, operation) = (kind.name(), kind.operation());
    let reason = describe_row_error(error);
    tracing::warn!(kind, operation, reason, "an entity could not be written and is kept as a dead letter");
    let types = [Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::TIMESTAMPTZ, Type::PG_LSN];
    let statement = target.prepare(sql::DEAD_LETTER, &types).await?;
    let sqlstate = error.sqlstate();
    target
        .query(
            "record a dead letter",
            QUICK,
            &statement,
            &[&kind, &key, &operation, &sqlstate, &reason, &stamp.now, &stamp.lsn],
        )
        .await?;
    Ok(())
}

fn only(rows: Vec<Row>) -> Result<Row> {
    rows.into_iter()
        .next()
        .ok_or_else(|| Error::Usage("a statement that always returns a row returned none".to_owned()))
}
