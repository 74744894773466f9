//! Gives each person exactly the models they may use: model rows, access groups, members and grants.
//!
//! Owns the order of that part of the projection. What people may use is decided in [`crate::access`]; the difference
//! is SQL (`sql/project/`, `sql/layout/`), restricted to whoever is touched. Never begins or commits.
//!
//! People with the same set of models form an access group, and the grants hang on that; a set fewer than
//! [`Rules::group_min`] people share is granted to them directly.

mod ahead;
mod decide;
mod people;
mod store;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};

use ahead::Ahead;
use decide::{Decided, Judge};
use people::{Look, People, is_everybody, next_touched, people};
pub(super) use store::Stripped;
use store::{Asked, Follows, store};

use super::touched::Touched;
use super::{Outcome, Scope, Stamp, bury, only, prefix, within_budget};
use crate::access::lists::KnownModels;
use crate::access::person::KeyRule;
use crate::access::read;
use crate::config::Config;
use crate::config::policy::{KeyPolicy, PublicModels};
use crate::error::Result;
use crate::postgres::error_chain;
use crate::sql::{self, fill};
use crate::target::dead_letter::Kind;
use crate::target::layout::Layout;
use crate::target::{QUICK, SLOW, Target};

/// What the policy and Open WebUI's connections say about models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    pub keys: KeyRule,
    /// How many people with the same models make a group.
    pub group_min: i32,
    /// What Open WebUI puts before LiteLLM's names.
    pub prefix: String,
    /// Take away what is public in Open WebUI.
    pub take_public: bool,
}

impl Rules {
    /// The policy's and Open WebUI's word on models.
    pub async fn find(target: &Target, config: &Config, layout: &Layout) -> Result<Self> {
        let url = config.models_api.as_ref().map(|api| api.url.to_string());
        Ok(Self {
            keys: match config.policy.access.keys {
                KeyPolicy::Narrow => KeyRule::Narrow,
                KeyPolicy::Required => KeyRule::Required,
            },
            group_min: config.policy.grants.group_min,
            prefix: prefix::find(target, layout, &config.policy.models.prefix, url.as_deref()).await?,
            take_public: config.policy.models.public == PublicModels::Take,
        })
    }
}

/// What one projection did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Changes {
    /// People whose models changed.
    pub people: i64,
    pub models: i64,
    pub groups: i64,
    pub members_added: i64,
    pub members_removed: i64,
    pub grants_added: i64,
    pub grants_removed: i64,
}

impl Changes {
    pub(super) fn add(&mut self, other: Self) {
        self.people += other.people;
        self.models += other.models;
        self.groups += other.groups;
        self.members_added += other.members_added;
        self.members_removed += other.members_removed;
        self.grants_added += other.grants_added;
        self.grants_removed += other.grants_removed;
    }
}

/// More people than this are planned for like everybody.
const MANY: usize = 300;

#[derive(Debug)]
pub(super) struct Access {
    rules: Rules,
    texts: Texts,
    /// The models LiteLLM serves, until one changes.
    known_models: Mutex<Option<Known>>,
    /// What everybody is to have, where somebody is at it already: for the next that is applied.
    ahead: Mutex<Option<Ahead>>,
}

/// The models LiteLLM serves. `unused`: there are none, and nobody was ever given one, so there is nothing to do for
/// anybody: an installation without models must not pay for them.
#[derive(Debug, Clone)]
struct Known {
    known_models: Arc<KnownModels>,
    unused: bool,
}

/// Accounts: of an array, and all there are.
const GIVEN: &str = "unnest($2::text[])";
const MEMBERS: &str = "(select webui_id from effective_access union select user_id from access_member)";
const GRANTED: &str = "(select webui_id from effective_access union select principal_id from model_grant where principal_type = 'user')";

#[derive(Debug)]
struct Texts {
    models: String,
    take: &'static str,
    groups: String,
    of_some: PeopleTexts,
    of_all: PeopleTexts,
}

/// By whom they are about: those of an array, or everybody.
#[derive(Debug)]
struct PeopleTexts {
    members: String,
    grants: String,
}

impl PeopleTexts {
    fn new(layout: &Layout, members: &str, grants: &str, one_by_one: &str) -> Self {
        let (kept, access) = (layout.group_members, layout.model_access);
        let difference = fill(sql::ACCESS_MEMBER_DIFFERENCE, ":people", members);
        let text = fill(kept.access_members, ":access_member_difference", &difference);
        let text = fill(&text, ":one_by_one", one_by_one);
        let difference = fill(sql::GRANT_DIFFERENCE, ":people", grants);
        Self {
            members: fill(&text, ":changes", kept.changes),
            grants: fill(access.grants, ":grant_difference", &difference),
        }
    }
}

impl Texts {
    fn new(layout: &Layout) -> Self {
        let (members, access) = (layout.group_members, layout.model_access);
        let extra = |text: &str, columns, values| {
            fill(&fill(text, ":extra_columns", columns), ":extra_values", values)
        };
        Self {
            models: extra(sql::MODEL_ROWS, access.model_columns, access.model_values),
            take: access.take,
            groups: extra(sql::ACCESS_GROUPS, members.group_columns, members.group_values),
            of_some: PeopleTexts::new(layout, GIVEN, GIVEN, "offset 0"),
            of_all: PeopleTexts::new(layout, MEMBERS, GRANTED, ""),
        }
    }
}

impl Access {
    pub(super) fn new(layout: &Layout, rules: Rules) -> Self {
        Self { rules, texts: Texts::new(layout), known_models: Mutex::default(), ahead: Mutex::default() }
    }

    fn judge(&self, known_models: &Arc<KnownModels>) -> Judge {
        Judge::new(self.rules.clone(), Arc::clone(known_models))
    }

    /// Applies the difference for whoever is touched, after the accounts.
    pub(super) async fn apply(
        &self,
        target: &Target,
        scope: Scope<'_>,
        stamp: Stamp,
        outcome: &mut Outcome,
    ) -> Result<()> {
        // Of this very transaction, or of none.
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take();
        let models_may_differ = match scope {
            Scope::These(touched) if !touched.has_rights() => return Ok(()),
            Scope::These(touched) => touched.all_rights || touched.shared,
            Scope::Models => false,
            Scope::Everything | Scope::Touched => true,
        };
        if models_may_differ {
            self.forget_models();
        }
        let Known { known_models, unused } = self.known_models(target).await?;
        if unused {
            return Ok(());
        }
        let everybody = is_everybody(target, scope).await?;
        let shared = matches!(scope, Scope::These(Touched { shared: true, .. }));
        let mut people = if everybody || shared {
            target.plan_large().await?;
            self.model_rows(target, &known_models, stamp, outcome).await?;
            let judge = self.judge(&known_models);
            return self.give_everybody(target, &judge, everybody, ahead, stamp, outcome).await;
        } else {
            people(target, scope).await?
        };
        if people.ids.is_empty() {
            return Ok(());
        }
        let many = people.ids.len() > MANY;
        if many {
            target.plan_large().await?;
        }
        let judge = self.judge(&known_models);
        self.decide_and_write(target, &judge, &people, stamp, outcome).await?;
        // Listed part by part: a transaction of any size has to fit in little memory.
        while matches!(scope, Scope::Touched | Scope::Models)
            && let Some(last) = people.ids.last()
        {
            people.ids = next_touched(target, last).await?;
            self.decide_and_write(target, &judge, &people, stamp, outcome).await?;
        }
        if many && matches!(scope, Scope::These(touched) if touched.reach() <= super::MANY) {
            // What is still to come in this batch concerns few.
            target.plan_small().await?;
        }
        Ok(())
    }

    async fn decide_and_write(
        &self,
        target: &Target,
        judge: &Judge,
        people: &People,
        stamp: Stamp,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let decided = judge.decide(target, people, stamp.now).await?;
        if decided.is_empty() {
            return Ok(());
        }
        // Sent together; released with the transaction.
        let savepoint = target.execute("set a savepoint", "savepoint access");
        let (savepoint, attempt) = tokio::join!(savepoint, self.write(target, &decided, stamp));
        savepoint?;
        match attempt {
            Ok(done) => outcome.count_access(done),
            Err(error) if error.is_about_a_row() => {
                go_back(target).await?;
                self.bisect(target, decided, stamp, outcome).await?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// All that people share, and where it is about `everybody` what each of them may use, from whoever is at it already (`ahead`): stored
    /// part by part, since a company of any size has to fit in little memory, and written at once.
    async fn give_everybody(
        &self,
        target: &Target,
        judge: &Judge,
        everybody: bool,
        ahead: Option<Ahead>,
        stamp: Stamp,
        outcome: &mut Outcome,
    ) -> Result<()> {
        // Released with the transaction.
        target.execute("set a savepoint", "savepoint access").await?;
        match self.attempt_everybody(target, judge, everybody, ahead, stamp).await {
            Ok(done) => outcome.count_access(done),
            Err(error) if error.is_about_a_row() => {
                go_back(target).await?;
                let mut last = String::new();
                while let Some(decided) =
                    judge.next_of_all(target, Look::Closely, &mut last, stamp.now).await?
                {
                    self.bisect(target, decided, stamp, outcome).await?;
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn attempt_everybody(
        &self,
        target: &Target,
        judge: &Judge,
        everybody: bool,
        mut ahead: Option<Ahead>,
        stamp: Stamp,
    ) -> Result<(Changes, Stripped)> {
        let (mut people, mut stripped) = (0, Stripped::default());
        let mut last = everybody.then(String::new);
        while let Some(after) = &mut last {
            let part = match &mut ahead {
                Some(parts) => match parts.next().await {
                    Ok(part) => part,
                    Err(error) => {
                        // From the first one on, on this session: what was stored already is no difference.
                        tracing::debug!(error = error_chain(&error), "nobody reads ahead any more");
                        (ahead, people) = (None, 0);
                        continue;
                    }
                },
                None => judge.next_of_all(target, Look::Closely, after, stamp.now).await?,
            };
            let Some(decided) = part else { break };
            people += decided.len();
            let some = store(target, &decided, self.rules.group_min, Asked::Stripped, stamp).await?.stripped;
            stripped.people.extend(some.people);
            stripped.by_budget.extend(some.by_budget);
        }
        let follows = store(target, &[], self.rules.group_min, Asked::Sets, stamp).await?;
        let people = i64::try_from(people).unwrap_or(i64::MAX);
        let changes = Changes { people, ..self.write_rows(target, &follows, true, SLOW, stamp).await? };
        Ok((changes, stripped))
    }

    /// Read anew when next needed.
    pub(super) fn forget_models(&self) {
        *self.known_models.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// There are no models, and nobody was ever given one.
    pub(super) async fn is_unused(&self, target: &Target) -> Result<bool> {
        Ok(self.known_models(target).await?.unused)
    }

    async fn known_models(&self, target: &Target) -> Result<Known> {
        let known = self.known_models.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let known_models = Arc::new(read::known_models(target).await?);
        let unused = known_models.names().is_empty() && {
            let statement = target.prepare(sql::ACCESS_IS_UNUSED, &[]).await?;
            only(target.query("look for models", QUICK, &statement, &[]).await?)?.get(0)
        };
        let read = Known { known_models, unused };
        *self.known_models.lock().unwrap_or_else(PoisonError::into_inner) = Some(read.clone());
        Ok(read)
    }

    /// The rows of the models. One that cannot be written becomes a dead letter, and the others are written.
    async fn model_rows(
        &self,
        target: &Target,
        known_models: &KnownModels,
        stamp: Stamp,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let ids: Vec<String> =
            known_models.names().iter().map(|name| format!("{}{name}", self.rules.prefix)).collect();
        let types = [Type::TIMESTAMPTZ, Type::PG_LSN, Type::BOOL, Type::TEXT_ARRAY, Type::TEXT_ARRAY];
        let statement = target.prepare(&self.texts.models, &types).await?;
        let Stamp { now, lsn, audit_each, .. } = stamp;
        let mut queue: Vec<&[String]> = vec![&ids];
        while let Some(some) = queue.pop() {
            target.execute("set a savepoint", "savepoint access").await?;
            let parameters: &[&(dyn ToSql + Sync)] = &[&now, &lsn, &audit_each, &ids, &some];
            match target.query("write model rows", SLOW, &statement, parameters).await {
                Ok(rows) => {
                    target.execute("release a savepoint", "release savepoint access").await?;
                    let row = only(rows)?;
                    outcome.access.models += row.get::<_, i64>(0) + row.get::<_, i64>(1);
                }
                Err(error) if error.is_about_a_row() => {
                    go_back(target).await?;
                    if let [id] = some {
                        bury(target, Kind::Model, id, &error, stamp).await?;
                        outcome.failed += 1;
                        within_budget(outcome, &error, stamp)?;
                    } else if some.is_empty() {
                        return Err(error);
                    } else {
                        let (left, right) = some.split_at(some.len() / 2);
                        queue.extend([right, left]);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if self.rules.take_public {
            let statement = target.prepare(self.texts.take, &[Type::TEXT_ARRAY]).await?;
            let rows = target.query("take public models back", SLOW, &statement, &[&ids]).await?;
            outcome.access.grants_removed += only(rows)?.get::<_, i64>(0);
        }
        Ok(())
    }

    /// Halves until what fails is one person.
    async fn bisect(
        &self,
        target: &Target,
        decided: Vec<Decided>,
        stamp: Stamp,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let mut queue: Vec<&[Decided]> = if decided.len() > 1 {
            let (left, right) = decided.split_at(decided.len() / 2);
            vec![right, left]
        } else {
            vec![&decided]
        };
        while let Some(some) = queue.pop() {
            target.execute("set a savepoint", "savepoint access").await?;
            match self.write(target, some, stamp).await {
                Ok(done) => {
                    target.execute("release a savepoint", "release savepoint access").await?;
                    outcome.count_access(done);
                }
                Err(error) if error.is_about_a_row() => {
                    go_back(target).await?;
                    if let [(id, _)] = some {
                        bury(target, Kind::Access, id, &error, stamp).await?;
                        outcome.failed += 1;
                        within_budget(outcome, &error, stamp)?;
                    } else {
                        let (left, right) = some.split_at(some.len() / 2);
                        queue.extend([right, left]);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Stores what people are to have, and brings Open WebUI in line with it. Gives what it changed, and who lost their last
    /// model.
    async fn write(&self, target: &Target, decided: &[Decided], stamp: Stamp) -> Result<(Changes, Stripped)> {
        let mut follows = store(target, decided, self.rules.group_min, Asked::Changed, stamp).await?;
        let stripped = std::mem::take(&mut follows.stripped);
        let mut changes = Changes::default();
        if !follows.people.is_empty() {
            let patience = if decided.len() > MANY { SLOW } else { QUICK };
            changes = self.write_rows(target, &follows, false, patience, stamp).await?;
        }
        changes.people = i64::try_from(decided.len()).unwrap_or(i64::MAX);
        Ok((changes, stripped))
    }

    /// Groups, their members and the grants: of those who follow, or of `everybody`.
    async fn write_rows(
        &self,
        target: &Target,
        follows: &Follows,
        everybody: bool,
        patience: Duration,
        stamp: Stamp,
    ) -> Result<Changes> {
        let Stamp { now, lsn, audit_each, .. } = stamp;
        let group_ids =
            |sets: &[String]| sets.iter().map(|set| format!("grp_models_{set}")).collect::<Vec<_>>();
        // Groups looked at as a whole: all of them, or those that go.
        let whole = group_ids(if everybody { &follows.grouped } else { &follows.former_groups });
        let mut granted = group_ids(if everybody { &follows.grouped } else { &follows.new_groups });
        granted.extend(group_ids(&follows.former_groups));
        let has_groups = everybody || !follows.new_groups.is_empty() || !follows.former_groups.is_empty();
        let made = if everybody { &follows.grouped } else { &follows.new_groups };

        let stamped = [Type::TIMESTAMPTZ, Type::PG_LSN, Type::BOOL, Type::TEXT_ARRAY, Type::TEXT_ARRAY];
        let listed = [Type::TIMESTAMPTZ, Type::TEXT_ARRAY, Type::TEXT_ARRAY];
        let texts = if everybody { &self.texts.of_all } else { &self.texts.of_some };
        let groups = target.prepare(&self.texts.groups, &stamped).await?;
        let members = target.prepare(&texts.members, &listed).await?;
        let grants = target.prepare(&texts.grants, &listed).await?;
        let removal = [Type::TIMESTAMPTZ, Type::PG_LSN, Type::TEXT_ARRAY];
        let removal = target.prepare(sql::REMOVE_ACCESS_GROUPS, &removal).await?;
        let mut changes = Changes::default();
        if has_groups {
            let parameters: &[&(dyn ToSql + Sync)] = &[&now, &lsn, &audit_each, made, &follows.former_groups];
            let rows = target.query("write access groups", patience, &groups, parameters).await?;
            changes.groups += only(rows)?.get::<_, i64>(0);
        }
        let for_members: [&(dyn ToSql + Sync); 3] = [&now, &follows.people, &whole];
        let for_grants: [&(dyn ToSql + Sync); 3] = [&now, &follows.people, &granted];
        let for_removal: [&(dyn ToSql + Sync); 3] = [&now, &lsn, &follows.ungrouped];
        let (members, grants, removed) = tokio::join!(
            target.query("write members of access groups", patience, &members, &for_members),
            target.query("write grants", patience, &grants, &for_grants),
            async {
                if follows.ungrouped.is_empty() {
                    return Ok(Vec::new());
                }
                target.query("remove access groups", patience, &removal, &for_removal).await
            },
        );
        let (members, grants) = (only(members?)?, only(grants?)?);
        removed?;
        changes.members_added = members.get(0);
        changes.members_removed = members.get(1);
        changes.grants_added = grants.get(0);
        changes.grants_removed = grants.get(1);
        Ok(changes)
    }
}

async fn go_back(target: &Target) -> Result<()> {
    let back = "rollback to savepoint access; release savepoint access";
    target.execute("go back to a savepoint", back).await
}
