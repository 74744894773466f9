//! Which shape this Open WebUI's tables have.
//!
//! Found by looking at columns, never at version numbers: a database that was upgraded differs
//! from a fresh one of the same version. Judging is pure; the look-up is one query.

use std::collections::{HashMap, HashSet};

use crate::config::Config;
use crate::error::{Error, Result, Side};
use crate::postgres::quote_ident;
use crate::sql;
use crate::target::{QUICK, Target, within};

/// How group membership is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupMembers {
    /// `group.user_ids`, a JSON array (before 0.6.37).
    Json,
    /// Table `group_member`.
    Table,
}

/// How personal API keys are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeys {
    /// `user.api_key` (before 0.6.43).
    Column,
    /// Table `api_key`.
    Table,
}

/// How model access is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelAccess {
    /// `model.access_control`, JSON (before 0.8.0). NULL there means public.
    Json,
    /// Table `access_grant`.
    Table,
}

/// How Open WebUI's settings are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settings {
    /// One document in `config.data` (before 0.10.0).
    Document,
    /// A row of `config` per key.
    Keys,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub group_members: GroupMembers,
    pub api_keys: ApiKeys,
    pub model_access: ModelAccess,
    pub settings: Settings,
    /// `uq_user_email_lower` (0.11.0 and newer): e-mails are unique and can be looked up.
    pub unique_email: bool,
    /// `group.parent_group_id` (0.12.0 and newer).
    pub parent_group: bool,
    /// Tables with an `access_control` column, which may name a group.
    pub access_control_tables: Vec<String>,
}

impl Layout {
    /// For status, logs and `projected_with`.
    pub fn describe(&self) -> String {
        format!(
            "members={} keys={} access={} email={}",
            match self.group_members {
                GroupMembers::Json => "group.user_ids",
                GroupMembers::Table => "group_member",
            },
            match self.api_keys {
                ApiKeys::Column => "user.api_key",
                ApiKeys::Table => "api_key",
            },
            match self.model_access {
                ModelAccess::Json => "model.access_control",
                ModelAccess::Table => "access_grant",
            },
            if self.unique_email { "unique" } else { "not_unique" },
        )
    }

    /// What else in Open WebUI may refer to the group `c.webui_id`, as a condition.
    pub fn group_references(&self) -> String {
        let mut conditions = vec![match self.group_members {
            GroupMembers::Table => {
                "exists (select from group_member m where m.group_id = c.webui_id collate \"default\")"
                    .to_owned()
            }
            GroupMembers::Json => {
                "exists (select from \"group\" g where g.id = c.webui_id collate \"default\" \
                 and json_typeof(g.user_ids) = 'array' and json_array_length(g.user_ids) > 0)"
                    .to_owned()
            }
        }];
        if self.model_access == ModelAccess::Table {
            conditions.push(
                "exists (select from access_grant a where a.principal_type = 'group' \
                 and a.principal_id = c.webui_id collate \"default\")"
                    .to_owned(),
            );
        }
        if self.parent_group {
            conditions.push(
                "exists (select from \"group\" g where g.parent_group_id = c.webui_id collate \"default\")"
                    .to_owned(),
            );
        }
        for table in &self.access_control_tables {
            conditions.push(format!(
                "exists (select from {} t where position('\"' || c.webui_id || '\"' in t.access_control::text) > 0)",
                quote_ident(table)
            ));
        }
        conditions.join(" or ")
    }
}

const ACCOUNT_COLUMNS: &[&str] =
    &["id", "name", "email", "role", "profile_image_url", "created_at", "updated_at", "last_active_at"];
const AUTH_COLUMNS: &[&str] = &["id", "email", "password", "active"];
const GROUP_COLUMNS: &[&str] =
    &["id", "user_id", "name", "description", "data", "meta", "created_at", "updated_at"];
const MODEL_COLUMNS: &[&str] =
    &["id", "user_id", "base_model_id", "name", "params", "meta", "is_active", "created_at", "updated_at"];
const GRANT_COLUMNS: &[&str] =
    &["id", "resource_type", "resource_id", "principal_type", "principal_id", "permission", "created_at"];
const MEMBER_COLUMNS: &[&str] = &["id", "group_id", "user_id", "created_at", "updated_at"];
const KEY_COLUMNS: &[&str] = &["id", "user_id", "key", "created_at", "updated_at"];

type Columns = HashMap<String, HashSet<String>>;

/// Judges what was found. `columns`: by table.
fn judge(schema: &str, columns: &Columns, unique_email: bool) -> Result<Layout> {
    let has = |table: &str, column: &str| columns.get(table).is_some_and(|c| c.contains(column));
    for table in ["user", "auth", "group"] {
        if !columns.contains_key(table) {
            let looked_for = "\"user\", auth and \"group\"";
            return Err(Error::NoOpenWebUi { schema: schema.to_owned(), looked_for });
        }
    }
    let mut missing = Vec::new();
    for (table, wanted) in [
        ("user", ACCOUNT_COLUMNS),
        ("auth", AUTH_COLUMNS),
        ("group", GROUP_COLUMNS),
        ("model", MODEL_COLUMNS),
    ] {
        for column in wanted {
            if !has(table, column) {
                missing.push(format!("no column {table}.{column}"));
            }
        }
    }
    let group_members = if MEMBER_COLUMNS.iter().all(|column| has("group_member", column)) {
        GroupMembers::Table
    } else if has("group", "user_ids") {
        GroupMembers::Json
    } else {
        missing.push("neither table group_member nor column group.user_ids".to_owned());
        GroupMembers::Table
    };
    let model_access = if GRANT_COLUMNS.iter().all(|column| has("access_grant", column)) {
        ModelAccess::Table
    } else {
        if !has("model", "access_control") {
            missing.push("neither table access_grant nor column model.access_control".to_owned());
        }
        ModelAccess::Json
    };
    let api_keys = if KEY_COLUMNS.iter().all(|column| has("api_key", column)) {
        ApiKeys::Table
    } else {
        if !has("user", "api_key") {
            missing.push("neither table api_key nor column user.api_key".to_owned());
        }
        ApiKeys::Column
    };
    if !missing.is_empty() {
        return Err(Error::UnknownLayout { missing: missing.join("; ") });
    }
    let mut access_control_tables: Vec<String> = columns
        .iter()
        .filter(|(_, columns)| columns.contains("access_control"))
        .map(|(table, _)| table.clone())
        .collect();
    access_control_tables.sort();
    Ok(Layout {
        group_members,
        api_keys,
        model_access,
        settings: if has("config", "key") && has("config", "value") {
            Settings::Keys
        } else if has("config", "data") {
            Settings::Document
        } else {
            Settings::Unknown
        },
        unique_email,
        parent_group: has("group", "parent_group_id"),
        access_control_tables,
    })
}

/// Looks the layout up.
pub async fn find(target: &Target, config: &Config) -> Result<Layout> {
    let rows = within(
        Side::Target,
        "look at Open WebUI's tables",
        QUICK,
        target.client().query(sql::LAYOUT, &[&config.webui_schema]),
    )
    .await?;
    let mut columns = Columns::new();
    let mut unique_email = false;
    for row in rows {
        let table: String = row.get("table_name");
        columns.entry(table).or_default().insert(row.get("column_name"));
        unique_email |= row.get::<_, bool>("unique_email");
    }
    judge(&config.webui_schema, &columns, unique_email)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(tables: &[(&str, &[&str])]) -> Columns {
        tables
            .iter()
            .map(|(table, columns)| ((*table).to_owned(), columns.iter().map(|c| (*c).to_owned()).collect()))
            .collect()
    }

    #[test]
    fn a_database_without_tables_is_waited_for_and_an_unknown_one_is_named() {
        let none = columns(&[]);
        assert!(matches!(judge("public", &none, false), Err(Error::NoOpenWebUi { .. })));
        let odd = columns(&[("user", ACCOUNT_COLUMNS), ("auth", AUTH_COLUMNS), ("group", GROUP_COLUMNS)]);
        let Err(Error::UnknownLayout { missing }) = judge("public", &odd, false) else { panic!("accepted") };
        assert!(missing.contains("group_member") && missing.contains("api_key"), "{missing}");
    }
}
