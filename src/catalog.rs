//! Which LiteLLM tables are mirrored, column by column, and what a change of each one touches.
//!
//! Owns the list of tables (docs/src/design.md, "Stage and mirror"); everything that needs to know a LiteLLM column
//! asks here. Knows no connection, no layout of Open WebUI, and no position in the WAL.
//!
//! Columns are found by name, never by position: LiteLLM's own migrations add columns, and a
//! database repaired by `prisma db push` has them in another order. A column this LiteLLM does
//! not have yet is NULL in the mirror; one that every LiteLLM has is never taken for NULL because it is missing.

/// What happens to a value between LiteLLM's column and ours. Secrets end here (docs/src/design.md, "Decode").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Kept as the text Postgres sent.
    Text,
    /// `text[]`, kept as sent.
    Array,
    /// `jsonb`, kept as sent.
    Json,
    /// The usable form of an e-mail address, or NULL (docs/src/design.md, "Mapping").
    Email,
    /// `members_with_roles`, reduced to `[{"user_id", "user_email"}]` with normalised e-mails.
    Roster,
    /// A `jsonb` object reduced to these top-level fields.
    Fields(&'static [&'static str]),
    /// A key's token: 64 hex digits stay, anything else (old LiteLLM kept some in the clear)
    /// becomes its SHA-256, marked as such.
    Token,
    /// A `text[]` of keys: each becomes what [`Kind::Token`] makes of it.
    Tokens,
}

impl Kind {
    /// The column's type in our mirror.
    pub fn sql_type(self) -> &'static str {
        match self {
            Self::Text | Self::Email | Self::Token => "text",
            Self::Array | Self::Tokens => "text[]",
            Self::Json | Self::Roster | Self::Fields(_) => "jsonb",
        }
    }
}

/// One mirrored column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name in our mirror.
    pub name: &'static str,
    /// The LiteLLM column it is read from.
    pub source: &'static str,
    pub kind: Kind,
    /// Every LiteLLM has it. Where it is missing all the same, something was left half done, and its absence says nothing
    /// about anybody: it is waited for. A column of newer releases is NULL before them.
    pub always: bool,
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, source: name, kind, always: true }
}

/// A column that only newer releases of LiteLLM have: those after 1.77.3, the oldest that is tested.
const fn newer(name: &'static str, kind: Kind) -> Column {
    Column { name, source: name, kind, always: false }
}

/// One mirrored table.
#[derive(Debug)]
pub struct Table {
    /// LiteLLM's name, in the schema Prisma uses (`public` unless configured).
    pub source: &'static str,
    /// Every LiteLLM has it, as [`Column::always`].
    pub always: bool,
    /// Our name, in our schema on the target. Empty: published and read, and not kept ([`Table::is_mirrored`]).
    pub mirror: &'static str,
    /// How many of the first `columns` are LiteLLM's primary key. The Relation message's key flags are
    /// not used: `REPLICA IDENTITY FULL`, which LiteLLM can switch on, flags every column.
    pub key_len: usize,
    pub columns: &'static [Column],
    /// Columns that only [`crate::budgets`] reads, out of the stream and out of LiteLLM's rows: they are never mirrored, so
    /// that a change of nothing else writes nothing. Which is which: `Book` takes them apart in this order.
    pub spending: &'static [&'static str],
    /// Who is touched when a row changes: a query over `changed`, which holds the key columns as
    /// `k_*`, every column before the change as `o_*` and after it as `n_*` (all NULL where there
    /// was or is no row), giving `(kind, id)`. The kinds are those of
    /// [`crate::project::touched::Touched`].
    pub touches: &'static str,
}

impl Table {
    /// Whether it has a table in our mirror. One that has none is only read for [`crate::budgets`]: of such rows there may be
    /// many more than people.
    pub fn is_mirrored(&self) -> bool {
        !self.mirror.is_empty()
    }

    /// The columns that every LiteLLM has; those of `spending` among them only where budgets decide over anything: without them nobody
    /// knows whose is used up.
    pub fn required(&self, budgets_decide: bool) -> impl Iterator<Item = &'static str> {
        /// Only newer releases have them: before them, there is no such limit.
        const NEWER: &[&str] = &["budget_limits", "temp_budget_increase", "temp_budget_expiry"];
        /// Some releases lack it, and it closes nothing.
        const SOFT: &str = "soft_budget";
        let mirrored = self.columns.iter().filter(|column| column.always).map(|column| column.source);
        let spending = self.spending.iter().copied().filter(move |_| budgets_decide);
        mirrored.chain(spending.filter(|column| !NEWER.contains(column) && *column != SOFT))
    }

    pub fn key(&self) -> &'static [Column] {
        self.columns.get(..self.key_len).unwrap_or_default()
    }
}

/// Index into [`TABLES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub usize);

impl TableId {
    pub fn table(self) -> &'static Table {
        #[expect(clippy::indexing_slicing, reason = "a TableId is only made from an index of TABLES")]
        &TABLES[self.0]
    }

    /// The table LiteLLM calls `name`, if it is one we mirror.
    pub fn of_source(name: &str) -> Option<Self> {
        TABLES.iter().position(|table| table.source == name).map(Self)
    }

    pub fn all() -> impl Iterator<Item = Self> {
        (0..TABLES.len()).map(Self)
    }

    /// Those that are mirrored: what a copy and a look at everything are about.
    pub fn mirrored() -> impl Iterator<Item = Self> {
        Self::all().filter(|id| id.table().is_mirrored())
    }
}

use Kind::{Array, Email, Fields, Json, Roster, Text, Token, Tokens};

/// Every published table. SpendLogs and the daily tables are deliberately absent:
/// nothing in them decides who may do what, and they are the bulk of LiteLLM's writes.
pub const TABLES: &[Table] = &[
    Table {
        source: "LiteLLM_UserTable",
        always: true,
        mirror: "litellm_user",
        key_len: 1,
        columns: &[
            column("user_id", Text),
            column("user_email", Text),
            Column { name: "email", source: "user_email", kind: Email, always: true },
            column("user_alias", Text),
            column("user_role", Text),
            column("team_id", Text),
            column("teams", Array),
            column("organization_id", Text),
            column("models", Array),
            column("metadata", Fields(&["scim_active"])),
            column("created_at", Text),
        ],
        spending: &["spend", "max_budget", "budget_reset_at", "user_email"],
        // A freed e-mail lets others in: somebody may have been waiting for it. A new name alone is nothing to anybody's
        // API key or models, which spares a batch of such changes the look at them.
        touches: "select 'user', k_user_id from changed
                  union all
                  select 'rights', k_user_id from changed
                   where o_user_id is null
                      or (o_email, o_metadata, o_models, o_organization_id, o_user_role)
                         is distinct from (n_email, n_metadata, n_models, n_organization_id, n_user_role)
                  union all
                  select 'email', o_email from changed
                   where o_email is not null
                     and (o_email, o_metadata) is distinct from (n_email, n_metadata)",
    },
    Table {
        source: "LiteLLM_TeamTable",
        always: true,
        mirror: "litellm_team",
        key_len: 1,
        columns: &[
            column("team_id", Text),
            column("team_alias", Text),
            column("organization_id", Text),
            column("members_with_roles", Roster),
            column("models", Array),
            column("blocked", Text),
            column("model_id", Text),
            newer("access_group_ids", Array),
            column("metadata", Fields(&["team_member_budget_id"])),
        ],
        spending: &["spend", "max_budget", "soft_budget", "budget_reset_at", "metadata", "budget_limits"],
        // `roster`: the roster is compared entry by entry (sql/mirror/team_roster.sql).
        // `team`: its group, of which everybody is looked at; whoever joins or leaves is found in the roster.
        // `team_people`: everybody in it, because their names or organization groups follow.
        // `team_rights`: everybody in it, because of the models.
        touches: "select 'team', k_team_id from changed
                   where (o_team_id, o_team_alias, o_organization_id)
                         is distinct from (n_team_id, n_team_alias, n_organization_id)
                  union all
                  select 'roster', k_team_id from changed
                   where o_members_with_roles is distinct from n_members_with_roles
                  union all
                  select 'team_people', k_team_id from changed
                   where (o_team_id, o_team_alias, o_organization_id)
                         is distinct from (n_team_id, n_team_alias, n_organization_id)
                  union all
                  select 'team_rights', k_team_id from changed
                   where (o_team_id, o_organization_id, o_models, o_blocked, o_model_id, o_access_group_ids)
                         is distinct from
                         (n_team_id, n_organization_id, n_models, n_blocked, n_model_id, n_access_group_ids)",
    },
    Table {
        source: "LiteLLM_OrganizationTable",
        always: true,
        mirror: "litellm_organization",
        key_len: 1,
        columns: &[
            column("organization_id", Text),
            column("organization_alias", Text),
            column("models", Array),
        ],
        spending: &["spend", "budget_id"],
        touches: "select 'organization', k_organization_id from changed
                   where (o_organization_id, o_organization_alias)
                         is distinct from (n_organization_id, n_organization_alias)
                  union all
                  select 'organization_rights', k_organization_id from changed
                   where (o_organization_id, o_models) is distinct from (n_organization_id, n_models)",
    },
    Table {
        source: "LiteLLM_OrganizationMembership",
        always: true,
        mirror: "litellm_organization_membership",
        key_len: 2,
        columns: &[column("user_id", Text), column("organization_id", Text), column("user_role", Text)],
        spending: &[],
        touches: "select 'user', k_user_id from changed",
    },
    Table {
        source: "LiteLLM_TeamMembership",
        always: true,
        mirror: "litellm_team_membership",
        key_len: 2,
        columns: &[column("user_id", Text), column("team_id", Text), column("budget_id", Text)],
        spending: &["spend", "budget_id"],
        // Not the membership (the roster is): a member's budget, for model access. A spend flush makes rows without one.
        touches: "select 'models', k_user_id from changed where o_budget_id is distinct from n_budget_id",
    },
    Table {
        source: "LiteLLM_VerificationToken",
        always: true,
        mirror: "litellm_key",
        key_len: 1,
        columns: &[
            column("token", Token),
            column("user_id", Text),
            column("team_id", Text),
            column("organization_id", Text),
            newer("project_id", Text),
            column("models", Array),
            column("aliases", Json),
            column("blocked", Text),
            column("expires", Text),
            column("allowed_routes", Array),
            newer("key_type", Text),
            newer("access_group_ids", Array),
            column("metadata", Fields(&["service_account_id"])),
            column("created_at", Text),
        ],
        spending: &["spend", "max_budget", "budget_duration", "budget_reset_at", "budget_id", "metadata", "budget_limits"],
        // Every mirrored column but two matters, and spend is none of them.
        touches: "select 'rights', o_user_id from changed where o_user_id is not null
                  union all
                  select 'rights', n_user_id from changed where n_user_id is not null",
    },
    Table {
        source: "LiteLLM_BudgetTable",
        always: true,
        mirror: "litellm_budget",
        key_len: 1,
        columns: &[column("budget_id", Text), newer("allowed_models", Array)],
        spending: &["max_budget", "soft_budget", "budget_reset_at", "temp_budget_increase", "temp_budget_expiry"],
        touches: "select 'models', m.user_id from changed join litellm_team_membership m on m.budget_id = k_budget_id
                   where o_allowed_models is distinct from n_allowed_models",
    },
    Table {
        source: "LiteLLM_ProxyModelTable",
        always: true,
        mirror: "litellm_proxy_model",
        key_len: 1,
        columns: &[
            column("model_id", Text),
            column("model_name", Text),
            column("model_info", Fields(&["access_groups", "team_id", "team_public_model_name", "mode"])),
            newer("blocked", Text),
        ],
        spending: &[],
        touches: "select 'all_rights', '' from changed",
    },
    Table {
        source: "LiteLLM_ModelTable",
        always: true,
        mirror: "litellm_model_aliases",
        key_len: 1,
        columns: &[column("id", Text), column("aliases", Json)],
        spending: &[],
        touches: "select 'team_rights', t.team_id from changed join litellm_team t on t.model_id = k_id",
    },
    Table {
        source: "LiteLLM_AccessGroupTable",
        always: false,
        mirror: "litellm_access_group",
        key_len: 1,
        columns: &[
            column("access_group_id", Text),
            column("access_group_name", Text),
            column("access_model_names", Array),
            // Without them a key goes nowhere beyond its team.
            newer("assigned_team_ids", Array),
            newer("assigned_key_ids", Tokens),
        ],
        spending: &[],
        touches: "select 'team_rights', t.team_id from changed
                    join litellm_team t on k_access_group_id = any (t.access_group_ids)
                  union all
                  select 'models', k.user_id from changed
                    join litellm_key k on k_access_group_id = any (k.access_group_ids) where k.user_id is not null",
    },
    Table {
        source: "LiteLLM_ProjectTable",
        always: false,
        mirror: "litellm_project",
        key_len: 1,
        columns: &[
            column("project_id", Text),
            column("team_id", Text),
            column("models", Array),
            column("blocked", Text),
        ],
        spending: &[],
        touches: "select 'models', k.user_id from changed join litellm_key k on k.project_id = k_project_id
                   where k.user_id is not null",
    },
    Table {
        source: "LiteLLM_EndUserTable",
        always: false,
        mirror: "",
        key_len: 1,
        columns: &[column("user_id", Text)],
        spending: &["spend", "budget_id", "blocked"],
        touches: "",
    },
    Table {
        // What was spent in each window of `budget_limits`, since LiteLLM 1.109.
        source: "LiteLLM_BudgetWindowSpend",
        always: false,
        mirror: "",
        key_len: 3,
        columns: &[column("entity_type", Text), column("entity_id", Text), column("window_duration", Text)],
        spending: &["window_start", "spend"],
        touches: "",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_a_key_and_no_column_that_holds_a_secret() {
        for table in TABLES {
            assert!(!table.key().is_empty(), "{} has no key", table.source);
            for column in table.columns {
                assert!(
                    !["password", "litellm_params"].contains(&column.source),
                    "{} would mirror {}",
                    table.source,
                    column.source
                );
            }
        }
    }
}
