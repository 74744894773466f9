//! What Open WebUI's server is asked: whether it takes our rows, and whether Open WebUI lets people use them.
//!
//! Reads catalogs and Open WebUI's own tables and switches. Writes nothing.

use super::{Check, Verdict, failed, finding, fine};
use super::{books, bridge, server};
use crate::config::Config;
use crate::config::policy::ApiKeys;
use crate::error::{Error, Result, Side, on};
use crate::sql;
use crate::target::Target;
use crate::target::layout;
use crate::target::open_webui;
use crate::target::schema;

pub(super) async fn examine(config: &Config, checks: &mut Vec<Check>) -> Result<()> {
    let target = Target::open(config).await?;
    let (named, wanted) = layout::all_privileges();
    let row = target.slow().query_one(sql::DOCTOR_TARGET, &[&config.webui_schema, &named, &wanted]).await;
    let row = row.map_err(on(Side::Target, "examine the server"))?;
    checks.push(server::version("Open WebUI's server", row.get("version")));
    checks.extend(server::tls("Open WebUI's connection", row.get("tls"), row.get("local")));
    checks.extend(server::clock("Open WebUI's clock", row.get("clock")));
    checks.extend(standby(row.get("standby")));
    checks.extend(pooler(row.get("settings_kept")));
    checks.push(privileges(row.get("lacking"), row.get("temporary")));
    checks.push(tables(&target, config).await);
    checks.extend(admins(&target).await);
    checks.extend(api_keys(&target, config).await);
    checks.extend(sign_in_groups(&target).await);
    checks.extend(shared_emails(&target).await);
    let row = target.slow().query_one(sql::DOCTOR_HAS_BOOKS, &[&config.schema]).await;
    let has_books = row.map_err(on(Side::Target, "look for our schema"))?.get(0);
    checks.extend(bridge::target(&target, config, has_books).await?);
    if !has_books {
        checks.push(fine("our schema", "not there yet: `run` makes it"));
        return Ok(());
    }
    if let Err(error) = schema::books_version(&target, config).await {
        let is_older = matches!(error, Error::OlderSchema { .. });
        let check = failed("our schema", &error);
        let why = "the next start of the daemon migrates it; an older daemon does not start on it any more"
            .to_owned();
        checks.push(if is_older { Check { verdict: Verdict::Warning, why, ..check } } else { check });
        if !is_older {
            return Ok(());
        }
    }
    books::examine(&target, config, checks).await
}

fn standby(is_standby: bool) -> Option<Check> {
    is_standby.then(|| {
        finding(
            Verdict::Problem,
            "Open WebUI's server is a standby",
            "in recovery",
            "nothing can be written there",
            "let WEBUI_DATABASE_URL lead to the primary",
        )
    })
}

fn pooler(settings_kept: bool) -> Option<Check> {
    (!settings_kept).then(|| {
        finding(
            Verdict::Problem,
            "Open WebUI's connection",
            "the settings we asked for are not there",
            "a pooler such as PgBouncer is in between: our lease, our settings and our temporary tables belong to a session",
            "let WEBUI_DATABASE_URL lead to Postgres itself",
        )
    })
}

fn privileges(lacking: Option<Vec<String>>, temporary: bool) -> Check {
    let name = "privileges in Open WebUI's database";
    let mut lacking = lacking.unwrap_or_default();
    if !temporary {
        lacking.push("temporary on the database".to_owned());
    }
    if lacking.is_empty() {
        return fine(name, "all there");
    }
    finding(
        Verdict::Problem,
        name,
        format!("without {}", lacking.join(", ")),
        "rows could not be written",
        "`litellm-webui-sync setup --print-sql target` prints the grants",
    )
}

async fn tables(target: &Target, config: &Config) -> Check {
    match layout::find(target, config).await {
        Ok(found) => fine("Open WebUI's tables", found.describe()),
        Err(error) => failed("Open WebUI's tables", &error),
    }
}

/// Where they cannot be read, another finding says so.
async fn admins(target: &Target) -> Option<Check> {
    let row = target.slow().query_one(sql::DOCTOR_ADMINS, &[]).await.ok()?;
    Some(judge_admins(row.get("admins")))
}

/// Without a right to its settings we cannot tell, and need not.
async fn api_keys(target: &Target, config: &Config) -> Option<Check> {
    if config.policy.api_keys != ApiKeys::Mint {
        return None;
    }
    let row = target.slow().query_one(sql::DOCTOR_API_KEYS, &[]).await.ok()?;
    judge_api_keys(row.get("enabled"), row.get("permitted"), row.get("by_group"))
}

/// Without a right to its settings we cannot tell, and need not: whoever was taken out is back all the same.
async fn sign_in_groups(target: &Target) -> Option<Check> {
    let row = target.slow().query_one(sql::DOCTOR_SIGN_IN_GROUPS, &[]).await.ok()?;
    judge_sign_in_groups(row.get("oauth"), row.get("ldap"))
}

fn judge_admins(count: i64) -> Check {
    let name = "Open WebUI's admins";
    if count > 0 {
        return fine(name, format!("{count} can sign in; the last one is never taken away"));
    }
    finding(
        Verdict::Warning,
        name,
        "none can sign in",
        "Open WebUI makes its first account the admin, so nothing is written before; later, nobody could administer it",
        "sign up in Open WebUI, or make somebody an admin there",
    )
}

/// What Open WebUI's own switches do to the keys we mint. `None`: its environment decides, which we cannot see.
fn judge_api_keys(enabled: Option<&str>, permitted: Option<&str>, by_group: bool) -> Option<Check> {
    let name = "Open WebUI's API keys";
    let why = "it refuses the personal API keys we make; with api_keys = \"off\" in the policy none are made";
    match (enabled, permitted) {
        (Some("false"), _) => Some(finding(
            Verdict::Warning,
            name,
            "switched off (auth.enable_api_keys)",
            why,
            "in Open WebUI: Admin Panel, Settings, General, Enable API Keys",
        )),
        (_, Some("false")) if !by_group => Some(finding(
            Verdict::Warning,
            name,
            "nobody but admins may use them (features.api_keys)",
            why,
            "in Open WebUI: Admin Panel, Users, Groups, default permissions or those of a group, API Keys",
        )),
        (Some(_), _) => Some(fine(name, "switched on")),
        _ => None,
    }
}

/// Where they cannot be read, another finding says so.
async fn shared_emails(target: &Target) -> Option<Check> {
    judge_shared_emails(open_webui::shared_emails(target).await.ok()?)
}

fn judge_shared_emails(count: i64) -> Option<Check> {
    (count > 0).then(|| {
        finding(
            Verdict::Warning,
            "accounts that share an e-mail",
            format!("{count} e-mails"),
            "sign-in takes one of the accounts, LiteLLM's changes reach one of them, and Open WebUI 0.11 does not start before that is mended",
            "find them with `select lower(email), array_agg(id) from \"user\" group by 1 having count(*) > 1` in Open WebUI's database; \
             delete the accounts nobody uses, or change their e-mails, in Admin Panel, Users",
        )
    })
}

/// Who else decides who is in which group. A header of a proxy does it too, which only Open WebUI's environment says.
fn judge_sign_in_groups(oauth: Option<&str>, ldap: Option<&str>) -> Option<Check> {
    let switches = [
        (oauth, "oauth.enable_group_mapping", "ENABLE_OAUTH_GROUP_MANAGEMENT=false"),
        (ldap, "ldap.group.enable_management", "ENABLE_LDAP_GROUP_MANAGEMENT=false"),
    ];
    let on: Vec<_> = switches.into_iter().filter(|(stored, ..)| *stored == Some("true")).collect();
    if on.is_empty() {
        return None;
    }
    let list = |pick: fn(&(Option<&str>, &'static str, &'static str)) -> &'static str| {
        on.iter().map(pick).collect::<Vec<_>>().join(" and ")
    };
    Some(finding(
        Verdict::Warning,
        "Open WebUI's groups at sign-in",
        format!("managed by the sign-in too ({})", list(|one| one.1)),
        "it takes people out of every group the sign-in does not name, ours as well: until they are back, some seconds later, they miss \
         the models of these groups",
        format!(
            "let LiteLLM alone say who is in which group: switch it off in Open WebUI's settings, or set {}",
            list(|one| one.2)
        ),
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn who_can_sign_in_and_use_keys_is_judged_by_what_matters() {
        assert_eq!(judge_admins(1).verdict, Verdict::Fine);
        assert!(judge_admins(0).fix.contains("sign up"));
        assert_eq!(judge_api_keys(None, None, false), None);
        let off = judge_api_keys(Some("false"), Some("true"), true).unwrap();
        assert!(off.found.contains("auth.enable_api_keys"));
        let denied = judge_api_keys(Some("true"), Some("false"), false).unwrap();
        assert!(denied.found.contains("features.api_keys"));
        assert_eq!(judge_api_keys(Some("true"), Some("false"), true).unwrap().verdict, Verdict::Fine);
        assert_eq!(judge_sign_in_groups(None, Some("false")), None);
        let both = judge_sign_in_groups(Some("true"), Some("true")).unwrap();
        assert!(
            both.found.contains("oauth.enable_group_mapping and ldap.group.enable_management"),
            "{both:?}"
        );
        assert!(
            both.fix.ends_with("ENABLE_OAUTH_GROUP_MANAGEMENT=false and ENABLE_LDAP_GROUP_MANAGEMENT=false")
        );
    }
}
