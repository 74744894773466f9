//! Whether budgets count what people chat: under whom LiteLLM's rows say it books that, and whether the policy fits.
//!
//! Asks both sides; writes nothing.

use super::{Check, Verdict, finding, fine};
use crate::config::Config;
use crate::config::policy::{AccountIds, BudgetPolicy, Chats};
use crate::postgres::quote_ident;
use crate::source::Source;
use crate::sql;
use crate::target::Target;

const NAME: &str = "budgets and chats";
const PAGE: &str = "docs/src/spending.md says how to choose";

/// What the rows say. `None`: it could not be asked.
#[derive(Debug, Clone, Copy, Default)]
struct Facts {
    /// Customers, and those who are called like a user's e-mail.
    customers: Option<(i64, i64)>,
    /// Accounts called by LiteLLM's `user_id`, and others.
    accounts: Option<(i64, i64)>,
}

/// What a missing right or a missing table hides is left out: another finding says so.
pub(super) async fn examine(config: &Config, checks: &mut Vec<Check>) {
    let facts = Facts { customers: customers(config).await, accounts: accounts(config).await };
    let policy = &config.policy;
    checks.extend(judge(policy.access.budgets, policy.budgets.chats, policy.accounts.id, facts));
}

async fn customers(config: &Config) -> Option<(i64, i64)> {
    let source = Source::open(config).await.ok()?;
    let table = |name: &str| format!("{}.{}", quote_ident(&config.litellm_schema), quote_ident(name));
    let text = sql::fill(sql::DOCTOR_CHATS, ":user_table", &table("LiteLLM_UserTable"));
    let text = sql::fill(&text, ":customer_table", &table("LiteLLM_EndUserTable"));
    let row = source.client().query_one(&text, &[]).await.ok()?;
    Some((row.get("customers"), row.get("people")))
}

async fn accounts(config: &Config) -> Option<(i64, i64)> {
    let target = Target::open(config).await.ok()?;
    let row = target.slow().query_one(sql::DOCTOR_ACCOUNT_IDS, &[]).await.ok()?;
    Some((row.get("plain"), row.get("others")))
}

fn judge(budgets: BudgetPolicy, chats: Chats, ids: AccountIds, facts: Facts) -> Option<Check> {
    let (plain, others) = facts.accounts.unwrap_or_default();
    let warning =
        |found: String, why: &str, fix: String| Some(finding(Verdict::Warning, NAME, found, why, fix));
    let as_customers = "LiteLLM books chats under people's e-mails as customers";
    match (chats, facts.customers) {
        (Chats::None, Some((_, people))) if people > 0 => warning(
            format!("{people} customers of LiteLLM's are called like users' e-mails"),
            "what people chat is known, and counts for nobody: budgets.chats is \"none\"",
            format!("budgets.chats = \"customer\" in the policy; {PAGE}"),
        ),
        (Chats::None, _) if budgets == BudgetPolicy::Enforce => warning(
            "access.budgets is \"enforce\", budgets.chats is \"none\"".to_owned(),
            "only what people spend with keys of their own counts: nobody's chats end",
            format!("let LiteLLM book chats under people, and set budgets.chats; {PAGE}"),
        ),
        (Chats::Customer, None) => Some(finding(
            Verdict::Problem,
            NAME,
            "LiteLLM_EndUserTable cannot be read",
            "budgets.chats is \"customer\": what people chat is only there",
            "grant select on it: `litellm-webui-sync setup --print-sql source`",
        )),
        (Chats::Customer, Some((customers, 0))) if customers > 0 => warning(
            format!("none of LiteLLM's {customers} customers is called like a user's e-mail"),
            "budgets.chats is \"customer\", and nobody's chats count",
            format!(
                "map the header X-OpenWebUI-User-Email to litellm_user_role customer (user_header_mappings), and set \
                 ENABLE_FORWARD_USER_INFO_HEADERS in Open WebUI; {PAGE}"
            ),
        ),
        (Chats::Customer, Some(_)) if plain > 0 => warning(
            format!("{as_customers}; {plain} accounts are called by LiteLLM's user_id"),
            "if LiteLLM also maps X-OpenWebUI-User-Id to a user, what these people chat counts twice",
            "map one of the two headers only".to_owned(),
        ),
        (Chats::Customer, Some((_, people))) => {
            Some(fine(NAME, format!("{as_customers}: {people} people so far")))
        }
        (Chats::User, Some((_, people))) if people > 0 => warning(
            format!("{people} customers of LiteLLM's are called like users' e-mails"),
            "budgets.chats is \"user\", but LiteLLM books chats as customers: they count for nobody",
            format!(
                "map X-OpenWebUI-User-Id to a user and not the e-mail to a customer, or budgets.chats = \"customer\"; {PAGE}"
            ),
        ),
        (Chats::User, _) if others > 0 => warning(
            format!("{others} of {} accounts are not called by LiteLLM's user_id", plain + others),
            "budgets.chats is \"user\": LiteLLM books what these people chat under nobody",
            match ids {
                AccountIds::Prefixed => format!(
                    "accounts.id = \"plain\" gives new accounts LiteLLM's ids; these need budgets.chats = \"customer\"; {PAGE}"
                ),
                AccountIds::Plain => format!(
                    "they were there before, adopted, or their ids are none for Open WebUI; only budgets.chats = \"customer\" reaches them; {PAGE}"
                ),
            },
        ),
        (Chats::User, _) => Some(fine(NAME, "LiteLLM books chats under its users")),
        (Chats::None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_count_or_counts_twice_is_said() {
        let facts = |customers, accounts| Facts { customers: Some(customers), accounts: Some(accounts) };
        let judge = |budgets, chats, facts| {
            judge(budgets, chats, AccountIds::Prefixed, facts).map(|check| check.verdict)
        };
        let (ignore, enforce) = (BudgetPolicy::Ignore, BudgetPolicy::Enforce);
        let (warning, fine) = (Some(Verdict::Warning), Some(Verdict::Fine));
        assert_eq!(judge(ignore, Chats::None, facts((9, 0), (0, 4))), None);
        assert_eq!(judge(ignore, Chats::None, facts((9, 3), (0, 4))), warning);
        assert_eq!(judge(enforce, Chats::None, facts((0, 0), (0, 4))), warning);
        assert_eq!(judge(enforce, Chats::Customer, facts((9, 3), (0, 4))), fine);
        assert_eq!(judge(enforce, Chats::Customer, facts((9, 0), (0, 4))), warning);
        assert_eq!(judge(enforce, Chats::Customer, facts((0, 0), (0, 4))), fine);
        assert_eq!(judge(enforce, Chats::Customer, facts((9, 3), (2, 4))), warning);
        assert_eq!(judge(enforce, Chats::Customer, Facts::default()), Some(Verdict::Problem));
        assert_eq!(judge(enforce, Chats::User, facts((9, 3), (4, 0))), warning);
        assert_eq!(judge(enforce, Chats::User, facts((0, 0), (4, 1))), warning);
        assert_eq!(judge(enforce, Chats::User, facts((0, 0), (4, 0))), fine);
    }
}
