//! What the views read besides the mirror: the policy, and the models no table of LiteLLM's names.
//!
//! Owns the tables `policy` and `other_model`. Knows what each setting is called there, and not what it means: that is
//! in `sql/desired/` and [`crate::access`].

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::types::Type;

use crate::config::Config;
use crate::config::policy::{AccountIds, Adopt, Demote, NameFormat, Relink};
use crate::error::{Result, Side, on};
use crate::sql;
use crate::target::{SLOW, Target};

/// Writes the policy where the views read it.
pub async fn write(target: &Target, config: &Config) -> Result<()> {
    let action = "write the policy";
    let accounts = &config.policy.accounts;
    target
        .client()
        .execute(
            sql::WRITE_POLICY,
            &[
                &(accounts.adopt == Adopt::Adopt),
                &accounts.adopt_admins,
                &(accounts.relink == Relink::Link),
                &(accounts.demote == Demote::Always),
                &(accounts.name == NameFormat::TeamUser),
                &(accounts.id == AccountIds::Plain),
            ],
        )
        .await
        .map_err(on(Side::Target, action))?;
    let extra = &config.policy.models.extra;
    target.client().execute(sql::STORE_EXTRA, &[extra]).await.map_err(on(Side::Target, action))?;
    if config.models_api.is_none() {
        // Nobody asks any more, so nobody will say what has gone since.
        target.execute(action, "delete from other_model where origin = 'polled'").await?;
    }
    Ok(())
}

/// Writes what was found out about models where the `access` command reads it: Open WebUI's prefix, and how many people
/// with the same models make a group.
pub async fn write_models(target: &Target, prefix: &str, group_min: i32) -> Result<()> {
    let text = "update policy set model_prefix = $1, group_min = $2";
    let done = target.client().execute(text, &[&prefix, &group_min]).await;
    done.map_err(on(Side::Target, "write the policy"))?;
    Ok(())
}

/// Prepares [`store_polled`], so that its transaction is short.
pub async fn prepare_polled(target: &Target) -> Result<()> {
    target.prepare(sql::STORE_POLLED, POLLED).await.map(|_| ())
}

const POLLED: &[Type] = &[Type::TEXT_ARRAY, Type::TEXT_ARRAY];

/// Keeps what LiteLLM last said it serves, and in which access groups that is, in the open transaction. Gives how many names came, went
/// or changed.
pub async fn store_polled(target: &Target, models: &BTreeMap<String, BTreeSet<String>>) -> Result<i64> {
    let statement = target.prepare(sql::STORE_POLLED, POLLED).await?;
    let names: Vec<&str> = models.keys().map(String::as_str).collect();
    let tags: Vec<String> =
        models.values().map(|tags| serde_json::Value::from_iter(tags.iter().cloned()).to_string()).collect();
    let rows = target.query("keep the models LiteLLM named", SLOW, &statement, &[&names, &tags]).await?;
    Ok(rows.first().map_or(0, |row| row.get("changed")))
}
