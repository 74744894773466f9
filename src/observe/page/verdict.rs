//! Is it fine, and if not: why, and what to do.
//!
//! Pure. One sentence for each state a daemon can be in; commands stand between backquotes.

use std::time::Duration;

use serde::Serialize;

use crate::copy::register::{Copy, CopyKind};
use crate::observe::board::Facts;
use crate::observe::progress::{State, Status};

/// From here on somebody may notice the delay.
const CATCHING_UP: Duration = Duration::from_secs(5);

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Level {
    Fine,
    /// Not yet, or not this daemon: nothing is wrong.
    Waiting,
    /// It works, but somebody should look.
    Attention,
    /// Open WebUI does not get what it should.
    Trouble,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    /// A few words, to be read from afar.
    pub headline: String,
    pub why: String,
    pub what_to_do: Vec<String>,
}

impl Verdict {
    fn new(level: Level, headline: &str, why: impl Into<String>) -> Self {
        Self { level, headline: headline.to_owned(), why: why.into(), what_to_do: Vec::new() }
    }

    fn and(mut self, what_to_do: impl Into<String>) -> Self {
        self.what_to_do.push(what_to_do.into());
        self
    }
}

/// What is looked at besides the facts.
#[derive(Debug)]
pub struct Now<'a> {
    pub status: &'a Status,
    pub lag: Duration,
    /// As `/readyz`.
    pub lag_limit: Duration,
    /// Dead letters that leave somebody with more access than LiteLLM gives them.
    pub critical: u64,
    /// Why nothing can be moving, whatever the state says.
    pub standstill: Option<String>,
    /// The copy that runs, if one does.
    pub copying: Option<&'a Copy>,
}

/// Judges.
pub fn judge(now: &Now<'_>, facts: &Facts) -> Verdict {
    let reason = now.status.reason.clone().unwrap_or_default();
    if let Some(why) = &now.standstill {
        return Verdict::new(Level::Trouble, "Standing still", format!("{}.", sentence(why))).and(
            "Look at the load of that server and for long locks there; `litellm-webui-sync doctor` helps.",
        );
    }
    match now.status.state {
        State::Starting => Verdict::new(Level::Waiting, "Starting", "Connecting to both databases."),
        State::Standby => Verdict::new(
            Level::Waiting,
            "Standing by",
            "Another daemon is at work; this one takes over within seconds when it lets go.",
        )
        .and("Nothing to do here: the other daemon's page shows how things stand."),
        State::Copying => copying(now.copying, &reason),
        State::Waiting => waiting(facts, &reason),
        State::Streaming => streaming(now, facts),
        State::Reconnecting => Verdict::new(
            Level::Trouble,
            match &facts.trouble {
                Some(trouble) if trouble.is_foreign_leader => "Nobody leads here",
                _ => "No connection",
            },
            format!("{}. Open WebUI keeps its last state meanwhile.", sentence(&reason)),
        )
        .and(
            remedy(facts)
                .unwrap_or_else(|| "See that both database servers run and can be reached from here.".to_owned()),
        )
        .and("It tries again by itself, at least every 40 s. `litellm-webui-sync doctor` checks everything it needs."),
        State::Braked => braked(facts, &reason),
        State::Paused => Verdict::new(
            Level::Waiting,
            "Paused",
            format!("{}. Nothing is applied; LiteLLM's server keeps the changes.", sentence(&reason)),
        )
        .and("To go on: `litellm-webui-sync resume`"),
        State::Draining => Verdict::new(Level::Waiting, "Stopping", "Finishing the batch in hand."),
        State::Stopped => {
            let why = if reason.is_empty() { "Somebody stopped it".to_owned() } else { sentence(&reason) };
            let verdict = Verdict::new(
                Level::Trouble,
                "Stopped",
                format!("{why}. Waiting would not help. Open WebUI keeps its last state."),
            );
            verdict.and(remedy(facts)
                .unwrap_or_else(|| "Start it again: `litellm-webui-sync run`".to_owned()))
        }
    }
}

fn copying(copy: Option<&Copy>, reason: &str) -> Verdict {
    let is_first = copy.is_none_or(|copy| copy.kind == CopyKind::First);
    let verdict = if is_first {
        Verdict::new(
            Level::Waiting,
            "First copy",
            "LiteLLM's existing people, teams and keys are being copied; nobody is in Open WebUI before that is done.",
        )
    } else {
        let why = format!("{}. Open WebUI keeps its last state meanwhile.", sentence(reason));
        let is_request = copy.is_some_and(Copy::is_request);
        Verdict::new(Level::Waiting, if is_request { "Copying" } else { "Copying again" }, why)
    };
    verdict.and("Nothing to do: it follows LiteLLM by itself as soon as the copy is done.")
}

fn waiting(facts: &Facts, reason: &str) -> Verdict {
    let why =
        format!("{}. LiteLLM is followed already; nothing is written to Open WebUI yet.", sentence(reason));
    let verdict = Verdict::new(Level::Waiting, "Waiting for Open WebUI", why);
    // The layout is found before the admin is looked for.
    verdict.and(match facts.servers.layout {
        Some(_) => {
            "Open Open WebUI in a browser and sign up: the first account becomes its administrator. It goes on within \
             a second."
        }
        None => {
            "Start Open WebUI on this database, so that it makes its tables; or check WEBUI_DATABASE_URL and \
             DATABASE_SCHEMA."
        }
    })
}

fn braked(facts: &Facts, reason: &str) -> Verdict {
    let Some(brake) = facts.trouble.as_ref().and_then(|trouble| trouble.brake.as_ref()) else {
        return Verdict::new(Level::Trouble, "Held back", sentence(reason));
    };
    let why = format!(
        "{} of {} active people would be locked out, or lose groups, models or keys, at once. Nothing of it is written; \
         LiteLLM's server keeps the changes.",
        brake.people, brake.active
    );
    Verdict::new(Level::Trouble, "Held back", why)
        .and(format!("If that is right, let it pass once: `litellm-webui-sync approve {}`", brake.id))
        .and("If it is not, repair LiteLLM's data: it is tried again every 15 s.")
}

fn streaming(now: &Now<'_>, facts: &Facts) -> Verdict {
    if now.lag > now.lag_limit {
        let why = format!("Open WebUI has lacked something for {} s.", now.lag.as_secs());
        return Verdict::new(Level::Trouble, "Behind", why).and(
            "Look at the load of both servers, and for long locks in Open WebUI's database; \
             `litellm-webui-sync doctor` helps.",
        );
    }
    if now.critical > 0 {
        let why = format!(
            "{} could not be taken back: somebody in Open WebUI has more than LiteLLM gives them.",
            count(now.critical, "access", "accesses")
        );
        return Verdict::new(Level::Trouble, "Too much access", why)
            .and("What to do is said below: do it now.");
    }
    if now.lag > CATCHING_UP {
        let why = format!("Open WebUI has lacked something for {} s.", now.lag.as_secs());
        return Verdict::new(Level::Waiting, "Catching up", why).and("Nothing to do, unless it goes on.");
    }
    let status = facts.status.as_ref();
    let failed: i64 = status.map_or(0, |status| status.dead_letters.iter().map(|one| one.count).sum());
    if failed > 0 {
        let failed = u64::try_from(failed).unwrap_or_default();
        let why = format!(
            "{} could not be written; everything else in LiteLLM is in Open WebUI.",
            count(failed, "person, group or model", "people, groups or models")
        );
        return Verdict::new(Level::Attention, "In step, with exceptions", why)
            .and("What to do is said below, for each.");
    }
    let slot = facts.slot.as_ref().and_then(|slot| slot.wal_status.as_deref());
    if slot == Some("unreserved") {
        let why = "LiteLLM's server is about to give up our slot; everything would be copied again then.";
        return Verdict::new(Level::Attention, "In step, slot at risk", why)
            .and("Raise max_slot_wal_keep_size on LiteLLM's server, or find what slows us down.");
    }
    let public = status.and_then(|status| status.models.as_ref()).map_or(0, |models| models.public.len());
    if public > 0 {
        let why = format!(
            "Open WebUI shows {} to everybody, although LiteLLM limits them.",
            count(public as u64, "model", "models")
        );
        return Verdict::new(Level::Attention, "In step, with public models", why).and(
            "Make them private in Open WebUI, or set `models.public = \"take\"` in the policy; \
             `litellm-webui-sync status` names them.",
        );
    }
    Verdict::new(Level::Fine, "In step", "Open WebUI has everything LiteLLM has committed.")
}

fn remedy(facts: &Facts) -> Option<String> {
    let remedy = facts.trouble.as_ref()?.remedy.as_deref()?;
    // Some end with a statement to run.
    Some(if remedy.ends_with(';') { sentence(remedy) } else { format!("{}.", sentence(remedy)) })
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// With a capital at its beginning and without a full stop at its end.
fn sentence(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worst_is_said_first() {
        let status = Status { state: State::Streaming, reason: None, since: std::time::SystemTime::now() };
        let say = |seconds: u64, critical: u64| {
            let (lag, lag_limit) = (Duration::from_secs(seconds), Duration::from_secs(60));
            let verdict = judge(
                &Now { status: &status, lag, lag_limit, critical, standstill: None, copying: None },
                &Facts::default(),
            );
            (verdict.level, verdict.headline)
        };
        assert_eq!(say(0, 0), (Level::Fine, "In step".to_owned()));
        assert_eq!(say(12, 0), (Level::Waiting, "Catching up".to_owned()));
        assert_eq!(say(12, 1), (Level::Trouble, "Too much access".to_owned()));
        assert_eq!(say(61, 1), (Level::Trouble, "Behind".to_owned()));
    }
}
