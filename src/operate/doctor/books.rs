//! What our own tables say: what could not be written, what is held, and what is not as LiteLLM has it.
//!
//! Reads them; writes nothing. Asked only where a daemon has run.

use super::{Check, Verdict, finding, fine};
use crate::config::Config;
use crate::error::{Result, Side, on};
use crate::observe::status::{self, ModelsReport};
use crate::sql;
use crate::target::Target;
use crate::target::layout;

pub(super) async fn examine(target: &Target, config: &Config, checks: &mut Vec<Check>) -> Result<()> {
    let row = target.slow().query_one(sql::DOCTOR_BOOKS, &[]).await;
    let row = row.map_err(on(Side::Target, "read our books"))?;
    let count = |name: &str| row.get::<_, i64>(name);
    let models = models(target, config).await;
    checks.extend(models.as_ref().and_then(public_models));
    checks.extend(models.as_ref().and_then(inheriting));
    checks.extend(critical(count("critical")));
    checks.extend(last_admins(count("last_admins")));
    checks.extend(email_conflicts(count("email_conflicts")));
    checks.extend(brakes(count("brakes")));
    checks.extend(pause(row.get("paused"), row.get("pause_reason")));
    checks.push(others(count("dead_letters") - count("email_conflicts") - count("last_admins")));
    Ok(())
}

/// Books of an older release have no models yet.
async fn models(target: &Target, config: &Config) -> Option<ModelsReport> {
    let layout = layout::find(target, config).await.ok()?;
    status::models(target, &layout).await.ok()
}

fn inheriting(models: &ModelsReport) -> Option<Check> {
    (!models.inheriting.is_empty()).then(|| {
        finding(
            Verdict::Problem,
            "groups under access groups",
            models.inheriting.join(", "),
            "a group has the models of the one it stands under, so its members have more than LiteLLM gives them",
            "in Open WebUI: Admin Panel, Users, Groups: take these groups out from under the ones called \"Models: …\"",
        )
        .naming()
    })
}

fn public_models(models: &ModelsReport) -> Option<Check> {
    (!models.public.is_empty()).then(|| {
        finding(
            Verdict::Warning,
            "public models",
            models.public.join(", "),
            "everybody sees them in Open WebUI although LiteLLM limits them",
            "in Open WebUI: Admin Panel, Settings, Models, Access; or models.public = \"take\" in the policy",
        )
        .naming()
    })
}

fn critical(count: i64) -> Option<Check> {
    (count > 0).then(|| {
        finding(
            Verdict::Problem,
            "critical dead letters",
            count.to_string(),
            "somebody keeps more access than LiteLLM gives them",
            "`litellm-webui-sync failures list`",
        )
    })
}

fn last_admins(count: i64) -> Option<Check> {
    (count > 0).then(|| {
        finding(
            Verdict::Problem,
            "last admin",
            "LiteLLM no longer has Open WebUI's last active admin as one",
            "it was kept, because nobody could administer Open WebUI any more",
            "make somebody else an admin, in LiteLLM (proxy_admin) or in Open WebUI",
        )
    })
}

fn email_conflicts(count: i64) -> Option<Check> {
    (count > 0).then(|| {
        finding(
            Verdict::Warning,
            "e-mail conflicts",
            format!("{count} people"),
            "they have no account, or keep an old e-mail, because somebody else has theirs",
            "`litellm-webui-sync failures list`; give each person an e-mail of their own in LiteLLM",
        )
    })
}

fn brakes(count: i64) -> Option<Check> {
    (count > 0).then(|| {
        finding(
            Verdict::Problem,
            "brake",
            "a batch is held",
            "it would take access from unusually many people",
            "`litellm-webui-sync status` names it",
        )
    })
}

fn pause(paused: bool, reason: Option<String>) -> Option<Check> {
    paused.then(|| {
        finding(
            Verdict::Warning,
            "pause",
            reason.unwrap_or_else(|| "no reason given".to_owned()),
            "nothing is applied",
            "`litellm-webui-sync resume`",
        )
        .naming()
    })
}

/// What is not said above.
fn others(count: i64) -> Check {
    if count <= 0 {
        return fine("dead letters", "none but what is said above");
    }
    finding(
        Verdict::Warning,
        "dead letters",
        count.to_string(),
        "these entities are not what LiteLLM says",
        "`litellm-webui-sync failures list`",
    )
}
