//! What the projection needs to know of models besides LiteLLM's rows.

use crate::access::person::KeyRule;
use crate::config::Config;
use crate::config::policy::{KeyPolicy, PublicModels};
use crate::error::Result;
use crate::error::{Side, on};
use crate::project::access::Rules;
use crate::project::layout::Layout;
use crate::project::prefix;
use crate::target::Target;

/// The policy's and Open WebUI's word on models, and where the `access` command finds it.
pub(super) async fn rules(target: &Target, config: &Config, layout: &Layout) -> Result<Rules> {
    let rules = Rules {
        keys: match config.policy.access.keys {
            KeyPolicy::Narrow => KeyRule::Narrow,
            KeyPolicy::Required => KeyRule::Required,
        },
        group_min: config.policy.grants.group_min,
        prefix: prefix::find(target, layout, &config.policy.models.prefix, None).await?,
        take_public: config.policy.models.public == PublicModels::Take,
    };
    let text = "update policy set model_prefix = $1, group_min = $2";
    let done = target.client().execute(text, &[&rules.prefix, &rules.group_min]).await;
    done.map_err(on(Side::Target, "write the policy"))?;
    Ok(rules)
}
