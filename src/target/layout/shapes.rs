//! The registers of shapes: every way in which a release of Open WebUI keeps what we write.
//!
//! Owns the facts about a shape: what it is recognised by, what it is called, its statements. Asks no database and judges
//! nothing. A new layout is an entry here, before the older ones of its kind, and a folder of `sql/layout/`.

use crate::sql;

/// What every shape that is recognised by its columns has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Part of what [`super::Layout::describe`] says, and with that of what the target remembers: never changed.
    pub name: &'static str,
    /// For people.
    pub description: &'static str,
    /// Where it is kept, and the columns there without which it is not this shape.
    pub table: &'static str,
    pub columns: &'static [&'static str],
    /// The table came with this shape: a role needs rights to it, and a plan copies it.
    pub adds_table: bool,
    /// The columns of a unique index that our statements count on, sorted; none where they count on none of this shape's own.
    pub unique: &'static [&'static str],
    /// Columns of the table that a plan does not read, and what stands for them: secrets, and what nothing of ours looks at.
    pub unread: &'static [(&'static str, &'static str)],
}

/// How group membership is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMembers {
    pub shape: Shape,
    /// What a new row of `group` needs besides.
    pub group_columns: &'static str,
    pub group_values: &'static str,
    /// Whether the group `c.webui_id` has members.
    pub refers: &'static str,
    pub members: &'static str,
    pub access_members: &'static str,
    /// What both of them share, in the place of `:changes`. Empty where they share nothing.
    pub changes: &'static str,
    pub groups_of: &'static str,
    pub leave_access_groups: &'static str,
    pub plan: &'static str,
    pub purge: &'static str,
    /// What a purge says before and after the number of rows.
    pub purged: (&'static str, &'static str),
}

/// How personal API keys are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeys {
    pub shape: Shape,
    pub held: &'static str,
    pub delete: &'static str,
    pub mint: &'static str,
    pub plan: &'static str,
    pub purge: &'static str,
}

/// How model access is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelAccess {
    pub shape: Shape,
    /// What a new row of `model` needs besides.
    pub model_columns: &'static str,
    pub model_values: &'static str,
    /// Whether a grant names the group `c.webui_id`. `None`: in a column `access_control`, which is looked at wherever it is.
    pub refers: Option<&'static str>,
    /// Whether `m`, a row of `model`, is public.
    pub is_public: &'static str,
    pub grants: &'static str,
    pub take: &'static str,
    pub public: &'static str,
    pub sees: &'static str,
    pub plan: &'static str,
    pub purge: &'static str,
}

/// How Open WebUI's settings are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub shape: Shape,
    pub connections: &'static str,
}

/// What may be relied on about the e-mails of accounts. Recognised by an index and not by columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountEmail {
    /// See [`Shape::name`].
    pub name: &'static str,
    /// For people.
    pub description: &'static str,
    /// No two accounts share one, and it can be looked up.
    pub unique: bool,
    pub holder: &'static str,
}

/// Newest first.
pub(super) const GROUP_MEMBERS: &[GroupMembers] = &[
    GroupMembers {
        shape: Shape {
            name: "group_member",
            description: "group_member",
            table: "group_member",
            columns: &["id", "group_id", "user_id", "created_at", "updated_at"],
            adds_table: true,
            unique: &["group_id", "user_id"],
            unread: &[],
        },
        group_columns: "",
        group_values: "",
        refers: "exists (select from group_member m where m.group_id = c.webui_id collate \"default\")",
        members: sql::GROUP_MEMBER_MEMBERS,
        access_members: sql::GROUP_MEMBER_ACCESS_MEMBERS,
        changes: "",
        groups_of: sql::GROUP_MEMBER_GROUPS_OF,
        leave_access_groups: sql::GROUP_MEMBER_LEAVE_ACCESS_GROUPS,
        plan: sql::GROUP_MEMBER_PLAN,
        purge: sql::GROUP_MEMBER_PURGE,
        purged: ("removed", "group members"),
    },
    // A JSON array in the group's own row.
    GroupMembers {
        shape: Shape {
            name: "group.user_ids",
            description: "group.user_ids (before 0.6.37)",
            table: "group",
            columns: &["user_ids"],
            adds_table: false,
            unique: &[],
            unread: &[],
        },
        group_columns: ", user_ids",
        group_values: ", '[]'::json",
        refers: "exists (select from \"group\" g where g.id = c.webui_id collate \"default\" \
                 and case json_typeof(g.user_ids) when 'array' then json_array_length(g.user_ids) > 0 else false end)",
        members: sql::GROUP_USER_IDS_MEMBERS,
        access_members: sql::GROUP_USER_IDS_ACCESS_MEMBERS,
        changes: sql::GROUP_USER_IDS_CHANGES,
        groups_of: sql::GROUP_USER_IDS_GROUPS_OF,
        leave_access_groups: sql::GROUP_USER_IDS_LEAVE_ACCESS_GROUPS,
        plan: sql::GROUP_USER_IDS_PLAN,
        purge: sql::GROUP_USER_IDS_PURGE,
        purged: ("removed our members from", "groups"),
    },
];

/// Newest first.
pub(super) const API_KEYS: &[ApiKeys] = &[
    ApiKeys {
        shape: Shape {
            name: "api_key",
            description: "api_key",
            table: "api_key",
            columns: &["id", "user_id", "key", "created_at", "updated_at"],
            adds_table: true,
            unique: &[],
            unread: &[("data", "null")],
        },
        held: sql::API_KEY_HELD,
        delete: sql::API_KEY_DELETE,
        mint: sql::API_KEY_MINT,
        plan: sql::API_KEY_PLAN,
        purge: sql::API_KEY_PURGE,
    },
    ApiKeys {
        shape: Shape {
            name: "user.api_key",
            description: "user.api_key (before 0.6.43)",
            table: "user",
            columns: &["api_key"],
            adds_table: false,
            unique: &[],
            unread: &[],
        },
        held: sql::USER_API_KEY_HELD,
        delete: sql::USER_API_KEY_DELETE,
        mint: sql::USER_API_KEY_MINT,
        plan: sql::USER_API_KEY_PLAN,
        purge: sql::USER_API_KEY_PURGE,
    },
];

/// Newest first.
pub(super) const MODEL_ACCESS: &[ModelAccess] = &[
    ModelAccess {
        shape: Shape {
            name: "access_grant",
            description: "access_grant",
            table: "access_grant",
            columns: &[
                "id",
                "resource_type",
                "resource_id",
                "principal_type",
                "principal_id",
                "permission",
                "created_at",
            ],
            adds_table: true,
            unique: &["permission", "principal_id", "principal_type", "resource_id", "resource_type"],
            unread: &[],
        },
        model_columns: "",
        model_values: "",
        refers: Some(
            "exists (select from access_grant a where a.principal_type = 'group' \
             and a.principal_id = c.webui_id collate \"default\")",
        ),
        is_public: "exists (select from access_grant a where a.resource_type = 'model' and a.resource_id = m.id \
                    and a.principal_type = 'user' and a.principal_id = '*')",
        grants: sql::ACCESS_GRANT_GRANTS,
        take: sql::ACCESS_GRANT_TAKE,
        public: sql::ACCESS_GRANT_PUBLIC,
        sees: sql::ACCESS_GRANT_SEES,
        plan: sql::ACCESS_GRANT_PLAN,
        purge: sql::ACCESS_GRANT_PURGE,
    },
    // JSON in the model's own row. NULL there means public, so a new row says at once that it is not.
    ModelAccess {
        shape: Shape {
            name: "model.access_control",
            description: "model.access_control (before 0.8.0)",
            table: "model",
            columns: &["access_control"],
            adds_table: false,
            unique: &[],
            unread: &[],
        },
        model_columns: ", access_control",
        model_values: ", webui_access_control('{}', '{}', '{}', '{}', '{}')",
        refers: None,
        is_public: "json_typeof(coalesce(m.access_control, 'null')) = 'null'",
        grants: sql::MODEL_ACCESS_CONTROL_GRANTS,
        take: sql::MODEL_ACCESS_CONTROL_TAKE,
        public: sql::MODEL_ACCESS_CONTROL_PUBLIC,
        sees: sql::MODEL_ACCESS_CONTROL_SEES,
        plan: sql::MODEL_ACCESS_CONTROL_PLAN,
        purge: sql::MODEL_ACCESS_CONTROL_PURGE,
    },
];

/// Newest first. `config` is read only where there is a right to it, so neither shape adds it.
pub(super) const SETTINGS: &[Settings] = &[
    Settings {
        shape: Shape {
            name: "config.key",
            description: "config, a row per key",
            table: "config",
            columns: &["key", "value"],
            adds_table: false,
            unique: &[],
            unread: &[],
        },
        connections: sql::CONFIG_KEYS_CONNECTIONS,
    },
    Settings {
        shape: Shape {
            name: "config.data",
            description: "config.data (before 0.10.0)",
            table: "config",
            columns: &["data"],
            adds_table: false,
            unique: &[],
            unread: &[],
        },
        connections: sql::CONFIG_DOCUMENT_CONNECTIONS,
    },
];

/// `uq_user_email_lower`, 0.11.0 and newer.
pub(super) const UNIQUE_EMAIL: &AccountEmail =
    &AccountEmail { name: "unique", description: "unique", unique: true, holder: sql::EMAIL_UNIQUE_HOLDER };

pub(super) const EMAIL: &AccountEmail = &AccountEmail {
    name: "not_unique",
    description: "not unique (before 0.11.0)",
    unique: false,
    holder: sql::EMAIL_NOT_UNIQUE_HOLDER,
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The folder of `sql/layout/` that the statements of one entry come from. Each is named as the field it fills.
    fn folder(name: &str, statements: &[(&str, &str)]) -> String {
        let mut folders = BTreeSet::new();
        let mut files = BTreeSet::new();
        for (field, text) in statements {
            let path = sql::ALL.iter().find(|(_, known)| known == text).map(|(path, _)| *path);
            let path = path.unwrap_or_else(|| panic!("{name}: {field} is no file of sql/"));
            let inside = path.strip_prefix("layout/").unwrap();
            let (folder, file) = inside.split_once('/').unwrap();
            assert_eq!(file, format!("{field}.sql"), "{name}");
            folders.insert(folder.to_owned());
            files.insert(path);
        }
        assert_eq!(folders.len(), 1, "{name}: {folders:?}");
        let folder = folders.pop_first().unwrap();
        let there = sql::ALL.iter().map(|(path, _)| *path);
        let there: BTreeSet<&str> =
            there.filter(|path| path.starts_with(&format!("layout/{folder}/"))).collect();
        assert_eq!(files, there, "{name}: a file of its folder is not in its entry");
        folder
    }

    /// The patterns name every field, so that a new one cannot be forgotten here.
    #[test]
    fn every_entry_is_complete_and_every_folder_has_one() {
        let mut folders = Vec::new();
        let mut checked = |shape: &Shape, statements: &[(&str, &str)]| {
            assert!(!shape.columns.is_empty() && !shape.name.is_empty() && !shape.description.is_empty());
            assert_eq!(shape.adds_table, shape.name == shape.table, "{}", shape.name);
            folders.push(folder(shape.name, statements));
        };
        for kind in GROUP_MEMBERS {
            let GroupMembers {
                shape,
                group_columns,
                group_values,
                refers,
                members,
                access_members,
                changes,
                groups_of,
                leave_access_groups,
                plan,
                purge,
                purged,
            } = kind;
            assert_eq!(group_columns.matches(',').count(), group_values.matches(',').count());
            assert!(!refers.is_empty() && !purged.0.is_empty() && !purged.1.is_empty());
            let mut statements = vec![
                ("members", *members),
                ("access_members", access_members),
                ("groups_of", groups_of),
                ("leave_access_groups", leave_access_groups),
                ("plan", plan),
                ("purge", purge),
            ];
            if !changes.is_empty() {
                statements.push(("changes", changes));
            }
            checked(shape, &statements);
        }
        for ApiKeys { shape, held, delete, mint, plan, purge } in API_KEYS {
            let statements =
                [("held", *held), ("delete", delete), ("mint", mint), ("plan", plan), ("purge", purge)];
            checked(shape, &statements);
        }
        for kind in MODEL_ACCESS {
            let ModelAccess {
                shape,
                model_columns,
                model_values,
                refers,
                is_public,
                grants,
                take,
                public,
                sees,
                plan,
                purge,
            } = kind;
            assert_eq!(model_columns.is_empty(), model_values.is_empty());
            assert!(!is_public.is_empty() && *refers != Some(""));
            let statements = [
                ("grants", *grants),
                ("take", take),
                ("public", public),
                ("sees", sees),
                ("plan", plan),
                ("purge", purge),
            ];
            checked(shape, &statements);
        }
        for Settings { shape, connections } in SETTINGS {
            assert!(!shape.adds_table);
            checked(shape, &[("connections", connections)]);
        }
        for AccountEmail { name, description, unique, holder } in [UNIQUE_EMAIL, EMAIL] {
            assert_eq!(*unique, *name == "unique");
            assert!(!description.is_empty());
            folders.push(folder(name, &[("holder", holder)]));
        }
        folders.sort();
        let mut there: Vec<&str> = sql::ALL
            .iter()
            .filter_map(|(path, _)| Some(path.strip_prefix("layout/")?.split_once('/')?.0))
            .collect();
        there.sort_unstable();
        there.dedup();
        assert_eq!(folders, there, "a folder of sql/layout/ without an entry, or with two");
    }
}
