//! Which shapes this Open WebUI's tables have.
//!
//! Found by looking at columns, never at version numbers: a database that was upgraded differs
//! from a fresh one of the same version. Judging is pure; the look-up is one query. What a shape is made of stands in
//! `shapes`, and whoever needs a statement or a table of one asks the [`Layout`]: nobody else tells shapes apart.

mod shapes;

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::config::Config;
use crate::error::{Error, Result, Side};
use crate::postgres::quote_ident;
use crate::sql::{self, fill};
use crate::target::{QUICK, Target, within};

use shapes::{AccountEmail, ApiKeys, GroupMembers, ModelAccess, Settings, Shape};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub group_members: &'static GroupMembers,
    pub api_keys: &'static ApiKeys,
    pub model_access: &'static ModelAccess,
    /// `None`: in a way we do not know.
    pub settings: Option<&'static Settings>,
    pub email: &'static AccountEmail,
    /// `group.parent_group_id` (0.12.0 and newer).
    parent_group: bool,
    /// Tables with an `access_control` column, which may name a group.
    pub access_control_tables: Vec<String>,
}

impl Layout {
    /// For status, logs and `projected_with`.
    pub fn describe(&self) -> String {
        format!(
            "members={} keys={} access={} email={}",
            self.group_members.shape.name,
            self.api_keys.shape.name,
            self.model_access.shape.name,
            self.email.name,
        )
    }

    /// What is kept how, for people.
    pub fn found(&self) -> [(&'static str, &'static str); 5] {
        [
            ("group members", self.group_members.shape.description),
            ("API keys", self.api_keys.shape.description),
            ("model access", self.model_access.shape.description),
            ("settings", self.settings.map_or("not found", |settings| settings.shape.description)),
            ("e-mails", self.email.description),
        ]
    }

    /// The tables that only some layouts have, of those we write.
    pub fn added_tables(&self) -> impl Iterator<Item = &'static str> {
        self.written().into_iter().filter(|shape| shape.adds_table).map(|shape| shape.table)
    }

    /// The tables we write.
    pub fn tables(&self) -> Vec<&'static str> {
        ALWAYS_THERE.iter().map(|(table, _)| *table).chain(self.added_tables()).collect()
    }

    /// See `Shape::unread`: table, column, what stands for it.
    pub fn unread(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        self.written()
            .into_iter()
            .flat_map(|shape| shape.unread.iter().map(|(column, value)| (shape.table, *column, *value)))
    }

    fn written(&self) -> [&'static Shape; 3] {
        [&self.model_access.shape, &self.group_members.shape, &self.api_keys.shape]
    }

    /// The groups whose grants account $1 has, as a query.
    pub fn groups_of(&self) -> String {
        let direct = self.group_members.groups_of;
        if self.parent_group { fill(sql::INHERITED_GROUPS, ":direct", direct) } else { direct.to_owned() }
    }

    /// Whether a group may stand under another, whose grants it has then.
    pub fn has_parents(&self) -> bool {
        self.parent_group
    }

    /// What else in Open WebUI may refer to the group `c.webui_id`, as a condition.
    pub fn group_references(&self) -> String {
        let mut conditions = vec![self.group_members.refers.to_owned()];
        conditions.extend(self.model_access.refers.map(str::to_owned));
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

/// The tables we write in every layout, and the privileges it takes.
const ALWAYS_THERE: &[(&str, &[&str])] = &[
    ("user", &["select", "insert", "update"]),
    ("auth", &["select", "insert", "update"]),
    ("group", &["select", "insert", "update", "delete"]),
    ("model", &["select", "insert", "update"]),
];

/// The privileges that a table of [`Layout::added_tables`] takes.
pub const ADDED_PRIVILEGES: &[&str] = &["select", "insert", "delete"];

/// Everything in the registers.
fn all_shapes() -> impl Iterator<Item = &'static Shape> {
    let members = shapes::GROUP_MEMBERS.iter().map(|kind| &kind.shape);
    members
        .chain(shapes::API_KEYS.iter().map(|kind| &kind.shape))
        .chain(shapes::MODEL_ACCESS.iter().map(|kind| &kind.shape))
        .chain(shapes::SETTINGS.iter().map(|kind| &kind.shape))
}

/// Every table that some layout makes us write: for whoever asks before the layout is known. Not all of them exist.
pub fn all_tables() -> Vec<&'static str> {
    let added = all_shapes().filter(|shape| shape.adds_table).map(|shape| shape.table);
    ALWAYS_THERE.iter().map(|(table, _)| *table).chain(added).collect()
}

/// The privileges on [`all_tables`], each with its table, as two columns.
pub fn all_privileges() -> (Vec<&'static str>, Vec<&'static str>) {
    let added = all_shapes().filter(|shape| shape.adds_table).map(|shape| (shape.table, ADDED_PRIVILEGES));
    ALWAYS_THERE
        .iter()
        .copied()
        .chain(added)
        .flat_map(|(table, privileges)| privileges.iter().map(move |privilege| (table, *privilege)))
        .unzip()
}

const ACCOUNT_COLUMNS: &[&str] =
    &["id", "name", "email", "role", "profile_image_url", "created_at", "updated_at", "last_active_at"];
const AUTH_COLUMNS: &[&str] = &["id", "email", "password", "active"];
const GROUP_COLUMNS: &[&str] =
    &["id", "user_id", "name", "description", "data", "meta", "created_at", "updated_at"];
const MODEL_COLUMNS: &[&str] =
    &["id", "user_id", "base_model_id", "name", "params", "meta", "is_active", "created_at", "updated_at"];

type Columns = HashMap<String, HashSet<String>>;

/// The newest shape whose columns are all there.
fn newest<'a, K>(register: &'a [K], shape: fn(&K) -> &Shape, columns: &Columns) -> Option<&'a K> {
    register.iter().find(|kind| {
        let shape = shape(kind);
        columns
            .get(shape.table)
            .is_some_and(|found| shape.columns.iter().all(|column| found.contains(*column)))
    })
}

/// The same, where there has to be one; says in `missing` what was looked for.
fn needed<'a, K>(
    register: &'a [K],
    shape: fn(&K) -> &Shape,
    columns: &Columns,
    missing: &mut Vec<String>,
) -> Option<&'a K> {
    let found = newest(register, shape, columns);
    if found.is_none() {
        let looked_for: Vec<String> = register
            .iter()
            .map(|kind| {
                let Shape { name, adds_table, .. } = shape(kind);
                format!("{} {name}", if *adds_table { "table" } else { "column" })
            })
            .collect();
        missing.push(format!("neither {}", looked_for.join(" nor ")));
    }
    found
}

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
    let group_members = needed(shapes::GROUP_MEMBERS, |kind| &kind.shape, columns, &mut missing);
    let model_access = needed(shapes::MODEL_ACCESS, |kind| &kind.shape, columns, &mut missing);
    let api_keys = needed(shapes::API_KEYS, |kind| &kind.shape, columns, &mut missing);
    let (true, Some(group_members), Some(model_access), Some(api_keys)) =
        (missing.is_empty(), group_members, model_access, api_keys)
    else {
        return Err(Error::UnknownLayout { missing: missing.join("; ") });
    };
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
        settings: newest(shapes::SETTINGS, |kind| &kind.shape, columns),
        email: if unique_email { shapes::UNIQUE_EMAIL } else { shapes::EMAIL },
        parent_group: has("group", "parent_group_id"),
        access_control_tables,
    })
}

/// Looks the layout up.
pub async fn find(target: &Target, config: &Config) -> Result<Layout> {
    let tables: Vec<&str> =
        ALWAYS_THERE.iter().map(|(table, _)| *table).chain(all_shapes().map(|shape| shape.table)).collect();
    let rows = within(
        Side::Target,
        "look at Open WebUI's tables",
        QUICK,
        target.raw().query(sql::LAYOUT, &[&config.webui_schema, &tables]),
    )
    .await?;
    let mut columns = Columns::new();
    let mut keys: HashMap<String, Vec<String>> = HashMap::new();
    let mut hidden = BTreeSet::new();
    let mut unique_email = false;
    let mut encoding = String::new();
    for row in rows {
        let table: String = row.get("table_name");
        if row.get("hides") {
            hidden.insert(table.clone());
        }
        keys.entry(table.clone()).or_insert_with(|| row.get("unique_keys"));
        columns.entry(table).or_default().insert(row.get("column_name"));
        unique_email |= row.get::<_, bool>("unique_email");
        encoding = row.get("encoding");
    }
    let layout = judge(&config.webui_schema, &columns, unique_email)?;
    fits(config, &layout, &keys, &hidden, &encoding)?;
    Ok(layout)
}

/// Refuses tables that could be read or written only in part, or not exactly.
fn fits(
    config: &Config,
    layout: &Layout,
    keys: &HashMap<String, Vec<String>>,
    hidden: &BTreeSet<String>,
    encoding: &str,
) -> Result<()> {
    if encoding != "UTF8" {
        return Err(Error::Encoding { found: encoding.to_owned() });
    }
    let named = |table: &str| format!("{}.{}", quote_ident(&config.webui_schema), quote_ident(table));
    // A hidden row would count as gone: whoever leaves would keep their account, unseen.
    if !hidden.is_empty() {
        let tables: Vec<String> = hidden.iter().map(|table| named(table)).collect();
        let sql: Vec<String> =
            tables.iter().map(|table| format!("alter table {table} disable row level security")).collect();
        return Err(Error::HiddenRows { tables: tables.join(", "), sql: sql.join("; ") });
    }
    let needed = ALWAYS_THERE.iter().map(|(table, _)| (*table, ["id"].as_slice()));
    let of_shapes = layout.written().into_iter().map(|shape| (shape.table, shape.unique));
    let lacking: Vec<(&str, &[&str])> = needed
        .chain(of_shapes)
        .filter(|(table, columns)| {
            let wanted = columns.join(",");
            !columns.is_empty() && !keys.get(*table).is_some_and(|there| there.contains(&wanted))
        })
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let what: Vec<String> =
        lacking.iter().map(|(table, columns)| format!("{table} ({})", columns.join(", "))).collect();
    let sql: Vec<String> = lacking
        .iter()
        .map(|(table, columns)| {
            let kind = if *columns == ["id"] { "primary key" } else { "unique" };
            format!("alter table {} add {kind} ({})", named(table), columns.join(", "))
        })
        .collect();
    Err(Error::NoUniqueKey { what: what.join(", "), sql: sql.join("; ") })
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

    /// What every layout has.
    const COMMON: &[(&str, &[&str])] = &[
        ("user", ACCOUNT_COLUMNS),
        ("auth", AUTH_COLUMNS),
        ("group", GROUP_COLUMNS),
        ("model", MODEL_COLUMNS),
    ];

    #[test]
    fn a_database_without_tables_is_waited_for_and_an_unknown_one_is_named() {
        let none = columns(&[]);
        assert!(matches!(judge("public", &none, false), Err(Error::NoOpenWebUi { .. })));
        let Err(Error::UnknownLayout { missing }) = judge("public", &columns(COMMON), false) else {
            panic!("accepted")
        };
        assert_eq!(
            missing,
            "neither table group_member nor column group.user_ids; \
             neither table access_grant nor column model.access_control; \
             neither table api_key nor column user.api_key"
        );
        let no_model = columns(&[COMMON[0], COMMON[1], COMMON[2]]);
        let Err(Error::UnknownLayout { missing }) = judge("public", &no_model, false) else {
            panic!("accepted")
        };
        assert!(missing.starts_with("no column model.id; "), "{missing}");
    }

    /// A table that stayed behind, or is not all there yet, does not hide the shape that is in use.
    #[test]
    fn the_newest_shape_that_is_all_there_is_taken() {
        let mut found = columns(COMMON);
        for (table, column) in [("group", "user_ids"), ("model", "access_control"), ("user", "api_key")] {
            found.get_mut(table).unwrap().insert(column.to_owned());
        }
        found.insert("api_key".to_owned(), HashSet::from(["id".to_owned(), "key".to_owned()]));
        let old = judge("public", &found, false).unwrap();
        assert_eq!(
            old.describe(),
            "members=group.user_ids keys=user.api_key access=model.access_control email=not_unique"
        );
        assert_eq!((old.settings, old.added_tables().count()), (None, 0));
        for shape in all_shapes().filter(|shape| shape.adds_table) {
            let columns = shape.columns.iter().map(|column| (*column).to_owned()).collect();
            found.insert(shape.table.to_owned(), columns);
        }
        let new = judge("public", &found, true).unwrap();
        assert_eq!(new.describe(), "members=group_member keys=api_key access=access_grant email=unique");
        assert_eq!(
            new.tables(),
            ["user", "auth", "group", "model", "access_grant", "group_member", "api_key"]
        );
    }

    #[test]
    fn a_shape_that_nobody_has_yet_is_recognised_by_its_entry_alone() {
        let next = GroupMembers {
            shape: Shape {
                name: "membership",
                table: "membership",
                columns: &["who", "where"],
                ..shapes::GROUP_MEMBERS[0].shape.clone()
            },
            ..shapes::GROUP_MEMBERS[0].clone()
        };
        let register = [&[next], shapes::GROUP_MEMBERS].concat();
        let mut missing = Vec::new();
        assert_eq!(needed(&register, |kind| &kind.shape, &columns(COMMON), &mut missing), None);
        assert_eq!(missing, ["neither table membership nor table group_member nor column group.user_ids"]);
        let today = ("group_member", shapes::GROUP_MEMBERS[0].shape.columns);
        let name = |found: &Columns| {
            newest(&register, |kind: &GroupMembers| &kind.shape, found).map(|kind| kind.shape.name)
        };
        assert_eq!(name(&columns(&[today])), Some("group_member"));
        assert_eq!(name(&columns(&[today, ("membership", &["who"])])), Some("group_member"));
        assert_eq!(name(&columns(&[today, ("membership", &["where", "who"])])), Some("membership"));
    }
}
