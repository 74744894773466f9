//! What Open WebUI puts before the names of LiteLLM's models.
//!
//! A connection with a `prefix_id` lists `gpt-4` as `<prefix_id>.gpt-4`, and a grant on `gpt-4` then means nothing.
//! Reads Open WebUI's settings and nothing else; judging is pure.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::error::{Error, Result, Side};
use crate::target::layout::Layout;
use crate::target::{QUICK, Target, within};

/// The prefix with its dot, or nothing. `asked` is `models.prefix` of the policy; `litellm_url` tells LiteLLM's
/// connection from others.
pub async fn find(
    target: &Target,
    layout: &Layout,
    asked: &str,
    litellm_url: Option<&str>,
) -> Result<String> {
    if asked != "auto" {
        return Ok(dotted(asked));
    }
    let Some(settings) = layout.settings else { return last_known(target).await };
    let work = target.raw().query_one(settings.connections, &[]);
    let read = within(Side::Target, "read Open WebUI's connections", QUICK, work);
    let row = match read.await {
        Ok(row) => row,
        // Its settings hold secrets, so a careful DBA may not have let us read them.
        Err(Error::Postgres { source, .. }) if source.code().is_some_and(|code| code.code() == "42501") => {
            tracing::warn!(
                "cannot read Open WebUI's connections: set models.prefix if LiteLLM's has a prefix_id"
            );
            return last_known(target).await;
        }
        Err(error) => return Err(error),
    };
    let json = |place: usize| {
        row.get::<_, Option<&str>>(place)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or(Value::Null)
    };
    if let Some(prefix) = judge(&json(0), &json(1), litellm_url) {
        return Ok(prefix);
    }
    tracing::warn!(
        "Open WebUI's connections have different prefixes: set models.prefix to that of LiteLLM's"
    );
    last_known(target).await
}

/// Where it cannot be told (any more): the models people have must not become those of another connection.
async fn last_known(target: &Target) -> Result<String> {
    let row = target.raw().query_one("select model_prefix from policy", &[]);
    Ok(within(Side::Target, "read the last prefix", QUICK, row).await?.get(0))
}

/// `None`: the connections disagree, and none can be told to be LiteLLM's.
fn judge(urls: &Value, configs: &Value, litellm_url: Option<&str>) -> Option<String> {
    let mut all = BTreeSet::new();
    let mut of_litellm = BTreeSet::new();
    for (place, url) in urls.as_array().into_iter().flatten().enumerate() {
        let url = url.as_str().unwrap_or_default();
        let config = configs.get(place.to_string()).or_else(|| configs.get(url)).unwrap_or(&Value::Null);
        if config.get("enable") == Some(&Value::Bool(false)) {
            continue;
        }
        let prefix = dotted(config.get("prefix_id").and_then(Value::as_str).unwrap_or_default());
        if litellm_url.is_some_and(|litellm| authority(litellm) == authority(url)) {
            of_litellm.insert(prefix.clone());
        }
        all.insert(prefix);
    }
    let mut prefixes = if of_litellm.is_empty() { all } else { of_litellm };
    match prefixes.len() {
        0 => Some(String::new()),
        1 => prefixes.pop_first(),
        _ => None,
    }
}

/// Host and port of a URL, in lower case.
fn authority(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default().to_lowercase()
}

fn dotted(prefix: &str) -> String {
    if prefix.is_empty() { String::new() } else { format!("{prefix}.") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_prefix_is_that_of_the_connection_to_litellm() {
        let urls = json!(["http://litellm:4000/v1", "https://api.openai.com/v1"]);
        let none = json!({"0": {}, "1": {"enable": true}});
        assert_eq!(judge(&urls, &none, None), Some(String::new()));
        assert_eq!(judge(&Value::Null, &Value::Null, None), Some(String::new()));
        let both = json!({"0": {"prefix_id": "llm"}, "1": {"prefix_id": "llm"}});
        assert_eq!(judge(&urls, &both, None), Some("llm.".to_owned()));
        let one = json!({"0": {"prefix_id": "llm"}});
        assert_eq!(judge(&urls, &one, None), None);
        assert_eq!(judge(&urls, &one, Some("http://LiteLLM:4000")), Some("llm.".to_owned()));
        let other_off = json!({"0": {"prefix_id": "llm"}, "1": {"enable": false}});
        assert_eq!(judge(&urls, &other_off, None), Some("llm.".to_owned()));
        let by_url = json!({"http://litellm:4000/v1": {"prefix_id": "old"}, "https://api.openai.com/v1": {"prefix_id": "old"}});
        assert_eq!(judge(&urls, &by_url, None), Some("old.".to_owned()));
    }
}
