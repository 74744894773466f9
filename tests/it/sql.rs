//! Our own schema: made once, by anybody, and as the catalog says.

use std::collections::BTreeSet;

use litellm_webui_sync::catalog::TABLES;
use litellm_webui_sync::target::Target;
use litellm_webui_sync::target::schema;

use crate::support::{Pair, rows};

#[tokio::test]
async fn ten_starters_at_once_and_one_later_make_one_schema() {
    let pair = Pair::new().await;
    let mut starters = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let config = pair.config();
        starters.spawn(async move {
            let target = Target::open(&config).await.unwrap();
            schema::ensure(&target, &config).await
        });
    }
    while let Some(ended) = starters.join_next().await {
        ended.unwrap().unwrap();
    }
    let objects = "select string_agg(relname || relkind::text, ' ' order by relname) from pg_class
                    where relnamespace = 'litellm_webui_sync'::regnamespace";
    let before = pair.ask(objects).await;
    let config = pair.config();
    schema::ensure(&Target::open(&config).await.unwrap(), &config).await.unwrap();
    assert_eq!(pair.ask(objects).await, before);
    assert_eq!(pair.ask("select count(*) = max(version) from litellm_webui_sync.schema_version").await, "t");
    pair.webui("insert into litellm_webui_sync.schema_version (version) values (999)").await;
    let error = schema::ensure(&Target::open(&config).await.unwrap(), &config).await.unwrap_err();
    assert!(error.to_string().contains("999"), "{error}");
}

#[tokio::test]
async fn the_mirror_has_the_columns_of_the_catalog() {
    let pair = Pair::new().await;
    let config = pair.config();
    schema::ensure(&Target::open(&config).await.unwrap(), &config).await.unwrap();
    for table in TABLES.iter().filter(|table| table.is_mirrored()) {
        let sql = format!(
            "select attname, format_type(atttypid, null), coalesce(array_position(i.indkey::int2[], a.attnum), -1) >= 0
               from pg_attribute a left join pg_index i on i.indrelid = a.attrelid and i.indisprimary
              where attrelid = 'litellm_webui_sync.{}'::regclass and attnum > 0 order by attnum",
            table.mirror
        );
        let found: Vec<(String, String, bool)> = rows(&pair.target, &sql)
            .await
            .into_iter()
            .map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap(), row[2].as_deref() == Some("t")))
            .collect();
        let wanted: Vec<(String, String, bool)> = table
            .columns
            .iter()
            .enumerate()
            .map(|(place, column)| {
                (column.name.to_owned(), column.kind.sql_type().to_owned(), place < table.key_len)
            })
            .collect();
        assert_eq!(found, wanted, "{}", table.mirror);
    }
}

/// A function that is called row by row costs more than everything else about the row.
#[tokio::test]
async fn what_is_asked_of_every_row_is_inlined() {
    let pair = Pair::new().await;
    let config = pair.config();
    schema::ensure(&Target::open(&config).await.unwrap(), &config).await.unwrap();
    for call in
        ["webui_user_id(token)", "webui_group_id('team', token)", "key_is_usable(blocked, expires, now())"]
    {
        let explain = format!(
            "set search_path = litellm_webui_sync; explain (verbose, costs off) select {call} from litellm_key"
        );
        let plan: Vec<String> =
            rows(&pair.target, &explain).await.into_iter().filter_map(|row| row[0].clone()).collect();
        let name = call.split('(').next().unwrap();
        assert!(plan.iter().any(|line| line.contains("litellm_key")), "{plan:?}");
        assert!(!plan.iter().any(|line| line.contains(name)), "{plan:?}");
    }
}

#[test]
fn every_file_of_sql_is_named_in_sql_rs() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let mut on_disk = BTreeSet::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "sql") {
                on_disk.insert(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let named: BTreeSet<String> =
        litellm_webui_sync::sql::ALL.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(on_disk, named);
    for (path, text) in litellm_webui_sync::sql::ALL {
        assert!(text.starts_with("-- "), "{path} does not say what it is for");
    }
}
