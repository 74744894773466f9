//! Reads which models LiteLLM serves out of our mirror.
//!
//! Owns how its rows are taken, which people type. Decides nothing.

use serde_json::value::RawValue;

use super::lists::{Deployment, KnownModels};
use crate::error::Result;
use crate::json;
use crate::target::{SLOW, Target};

/// The models LiteLLM serves, by its rows and by what else is known.
pub async fn known_models(target: &Target) -> Result<KnownModels> {
    let action = "read which models LiteLLM serves";
    let rows =
        target.prepare("select model_name, model_info::text, blocked from litellm_proxy_model", &[]).await?;
    let others = target.prepare("select name, tags from other_model", &[]).await?;
    let (rows, others) =
        tokio::join!(target.query(action, SLOW, &rows, &[]), target.query(action, SLOW, &others, &[]));
    let deployments: Vec<Deployment> = rows?
        .iter()
        .map(|row| deployment(row.get(0), row.get(1), row.get::<_, Option<&str>>(2) == Some("t")))
        .collect();
    let others: Vec<(String, Vec<String>)> = others?.iter().map(|row| (row.get(0), row.get(1))).collect();
    Ok(KnownModels::new(&deployments, &others))
}

fn deployment(name: Option<String>, info: Option<&str>, blocked: bool) -> Deployment {
    let info = info.and_then(json::object).unwrap_or_default();
    let text =
        |field: &str| info.get(field).and_then(|value| json::text(value)).filter(|text| !text.is_empty());
    let name = name.unwrap_or_default();
    let team = text("team_id").map(|team| {
        let public_name = text("team_public_model_name").unwrap_or_else(|| name.clone());
        (team, public_name)
    });
    let tags: Vec<Box<RawValue>> =
        info.get("access_groups").and_then(|tags| json::array(tags.get())).unwrap_or_default();
    let tags = tags.iter().filter_map(|tag| json::text(tag)).collect();
    Deployment { name, team, tags, blocked }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_people_typed_are_read_leniently() {
        let team = deployment(
            Some("model_name_t_1".into()),
            Some(r#"{"team_id":"t","team_public_model_name":"p"}"#),
            false,
        );
        assert_eq!(team.team, Some(("t".into(), "p".into())));
        let odd = deployment(Some("m".into()), Some(r#"{"access_groups":["a",7],"team_id":null}"#), true);
        assert_eq!((odd.team, odd.tags, odd.blocked), (None, vec!["a".to_owned()], true));
        assert_eq!(deployment(None, Some("nonsense"), false), Deployment::default());
    }
}
