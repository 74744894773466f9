//! What a list of models means to LiteLLM, over the models it serves. Pure.
//!
//! Owns the known models and the semantics of one list (LiteLLM 1.109.1, `proxy/auth/auth_checks.py`): empty, `*` and
//! `all-proxy-models` are no limit; `all-team-models` is one only where a team is meant; the name of an access group
//! that a deployment is tagged with stands for what that deployment serves; anything with a `*` is a pattern; the rest are
//! names, and come last. A list never makes a model known: a person types the lists of their own keys.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use regex::{Regex, RegexBuilder};

use super::bits::Bits;

/// A NULL in a list. No text of Postgres holds this.
pub const NULL: &str = "\0";

/// Names that mean something in a list and are never models.
const SENTINELS: &[&str] = &["all-proxy-models", "all-team-models", "no-default-models"];

/// A longer pattern, or one that compiles to more than this, matches nothing.
const PATTERN_MAX_CHARS: usize = 256;
const PATTERN_MAX_BYTES: usize = 32 * 1024;
/// Patterns of one list beyond this many match nothing: people write the lists of their own keys, and each pattern is held
/// against every model while a batch waits.
const PATTERNS_OF_A_LIST: usize = 100;
/// A longer name is no model.
const NAME_MAX_BYTES: usize = 512;

/// Lists resolved and kept; more than this many are forgotten together.
const KEPT_LISTS: usize = 20_000;

/// One row of `LiteLLM_ProxyModelTable`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deployment {
    /// `model_name`.
    pub name: String,
    /// The team it is for, and the name that team calls it by.
    pub team: Option<(String, String)>,
    /// `model_info.access_groups`.
    pub tags: Vec<String>,
    pub blocked: bool,
}

/// What LiteLLM serves, and to whom a name means what.
#[derive(Debug)]
pub struct KnownModels {
    /// In order; the place of a name is its bit.
    names: Vec<String>,
    places: HashMap<String, usize>,
    /// Served to everybody.
    common: Bits,
    /// Served to one team only.
    of_team: HashMap<String, Bits>,
    /// What a tag stands for, and what it stands for in a team besides.
    tags: HashMap<String, Bits>,
    team_tags: HashMap<(String, String), Bits>,
    lists: Mutex<HashMap<Where, HashMap<Vec<String>, Meaning>>>,
    /// What the patterns in them match: many lists have the same.
    patterns: Mutex<HashMap<String, Pattern<Arc<Bits>>>>,
}

/// What a list comes to.
#[derive(Debug, Clone)]
pub struct Meaning {
    /// What it allows of all known models, whether or not they are served there.
    pub allowed: Arc<Bits>,
    /// LiteLLM fails at it for everything else: then it asks no other list.
    pub is_spoiled: bool,
}

/// Where a list stands: it decides what `all-team-models` and team-scoped tags mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place<'a> {
    /// A user's, a member's, an organization's or a project's list, or a key's without a team.
    Anywhere,
    /// A team's list or the list of one of its keys.
    Team(&'a str),
}

/// A [`Place`] as far as it makes a difference for lists that were resolved.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Where {
    Anywhere,
    /// A team without a model of its own: to such a list they are all the same.
    AnyTeam,
    Team(String),
}

impl KnownModels {
    /// `others` are names known without a row, from `/v1/models` and from the policy, with the access groups they are tagged with.
    pub fn new(deployments: &[Deployment], others: &[(String, Vec<String>)]) -> Self {
        // The stored name of a team's model is nobody's to ask for, and the name the team calls it by is the team's: LiteLLM lists
        // both to whoever may see everything.
        let internal: HashSet<&str> = deployments
            .iter()
            .filter(|d| d.team.is_some())
            .flat_map(|d| [d.name.as_str(), d.asked_for().1])
            .collect();
        let mut served: BTreeSet<(Option<&str>, &str)> = BTreeSet::new();
        let mut blocked: HashSet<&str> = HashSet::new();
        for deployment in deployments {
            let (team, name) = deployment.asked_for();
            match deployment.blocked {
                false if is_name(name) => {
                    served.insert((team, name));
                }
                // While every row of a name is blocked, nobody gets it, whatever was last heard of it.
                true if team.is_none() => {
                    blocked.insert(name);
                }
                _ => {}
            }
        }
        for (name, _) in others {
            if is_name(name) && !internal.contains(name.as_str()) && !blocked.contains(name.as_str()) {
                served.insert((None, name));
            }
        }
        let names: Vec<String> = {
            let names: BTreeSet<&str> = served.iter().map(|(_, name)| *name).collect();
            names.into_iter().map(str::to_owned).collect()
        };
        let places: HashMap<String, usize> =
            names.iter().enumerate().map(|(place, name)| (name.clone(), place)).collect();
        let mut known_models = Self {
            common: Bits::none(names.len()),
            of_team: HashMap::new(),
            tags: HashMap::new(),
            team_tags: HashMap::new(),
            lists: Mutex::default(),
            patterns: Mutex::default(),
            names,
            places,
        };
        for (team, name) in &served {
            let Some(place) = known_models.place(name) else { continue };
            match team {
                None => known_models.common.insert(place),
                Some(team) => {
                    let none = Bits::none(known_models.names.len());
                    known_models.of_team.entry((*team).to_owned()).or_insert(none).insert(place);
                }
            }
        }
        known_models.tag(deployments, others);
        known_models
    }

    /// A name has the tags of its deployments; one without a row of its own has those of the patterns that serve it.
    fn tag(&mut self, deployments: &[Deployment], others: &[(String, Vec<String>)]) {
        let none = Bits::none(self.names.len());
        let mut has_row = Bits::none(self.names.len());
        for deployment in deployments.iter().filter(|deployment| !deployment.blocked) {
            let (team, name) = deployment.asked_for();
            let Some(place) = self.place(name) else { continue };
            if team.is_none() {
                has_row.insert(place);
            }
            for tag in &deployment.tags {
                match team {
                    None => self.tags.entry(tag.clone()).or_insert(none.clone()).insert(place),
                    Some(team) => {
                        let key = (team.to_owned(), tag.clone());
                        self.team_tags.entry(key).or_insert(none.clone()).insert(place);
                    }
                }
            }
        }
        for (name, tags) in others {
            let Some(place) = self.place(name).filter(|place| self.common.contains(*place)) else { continue };
            for tag in tags {
                self.tags.entry(tag.clone()).or_insert(none.clone()).insert(place);
            }
        }
        let patterns = deployments
            .iter()
            .filter(|d| !d.blocked && d.team.is_none() && d.name.contains('*') && !d.tags.is_empty());
        for deployment in patterns {
            let Pattern::Fits(pattern) = compile(&deployment.name) else { continue };
            for (place, name) in self.names.iter().enumerate() {
                if self.common.contains(place) && !has_row.contains(place) && pattern.is_match(name) {
                    for tag in &deployment.tags {
                        self.tags.entry(tag.clone()).or_insert(none.clone()).insert(place);
                    }
                }
            }
        }
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// The known models, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn none(&self) -> Bits {
        Bits::none(self.names.len())
    }

    pub fn all(&self) -> Bits {
        Bits::all(self.names.len())
    }

    /// What is served there at all: everybody's models, and a team's own.
    pub fn served(&self, place: Place<'_>) -> Bits {
        let mut served = self.common.clone();
        if let Place::Team(team) = place
            && let Some(own) = self.of_team.get(team)
        {
            served.widen(own);
        }
        served
    }

    /// What a list allows of all known models, whether or not they are served there.
    pub fn allowed(&self, list: &[String], place: Place<'_>) -> Arc<Bits> {
        self.meaning(list, place).allowed
    }

    /// What a list comes to.
    pub fn meaning(&self, list: &[String], place: Place<'_>) -> Meaning {
        let place_of_list = match place {
            Place::Anywhere => Where::Anywhere,
            Place::Team(team) if self.of_team.contains_key(team) => Where::Team(team.to_owned()),
            Place::Team(_) => Where::AnyTeam,
        };
        let lists = || self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lists().get(&place_of_list).and_then(|lists| lists.get(list)) {
            return known.clone();
        }
        let meaning = self.resolve(list, place);
        let mut lists = lists();
        if lists.values().map(HashMap::len).sum::<usize>() >= KEPT_LISTS {
            lists.clear();
        }
        lists.entry(place_of_list).or_default().insert(list.to_vec(), meaning.clone());
        meaning
    }

    /// Tags, then patterns, then everything else, as LiteLLM looks at them.
    fn resolve(&self, list: &[String], place: Place<'_>) -> Meaning {
        let (patterns, end) = patterns(list, |pattern| self.matched(pattern));
        if end == End::Open || end == End::Through && is_no_limit(list, place) {
            return Meaning { allowed: Arc::new(self.all()), is_spoiled: false };
        }
        let mut bits = self.none();
        for item in list {
            if let Some(tagged) = self.tags.get(item) {
                bits.widen(tagged);
            }
            if let Place::Team(team) = place
                && let Some(tagged) = self.team_tags.get(&(team.to_owned(), item.clone()))
            {
                bits.widen(tagged);
            }
        }
        for matched in &patterns {
            bits.widen(matched);
        }
        if end == End::Through {
            for at in list.iter().filter_map(|item| self.place(item)) {
                bits.insert(at);
            }
        }
        Meaning { allowed: Arc::new(bits), is_spoiled: end == End::Spoiled }
    }

    /// The known models that a pattern matches.
    fn matched(&self, pattern: &str) -> Pattern<Arc<Bits>> {
        if is_too_long(pattern) {
            return Pattern::TooMuch;
        }
        let kept = || self.patterns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept().get(pattern) {
            return known.clone();
        }
        let matched = match compile(pattern) {
            Pattern::Fits(regex) => {
                let mut matched = self.none();
                for (at, name) in self.names.iter().enumerate() {
                    if regex.is_match(name) {
                        matched.insert(at);
                    }
                }
                Pattern::Fits(Arc::new(matched))
            }
            Pattern::TooMuch => Pattern::TooMuch,
            Pattern::Broken => Pattern::Broken,
        };
        let mut kept = kept();
        if kept.len() >= KEPT_LISTS {
            kept.clear();
        }
        kept.insert(pattern.to_owned(), matched.clone());
        matched
    }

    /// Whether a list allows one name, known or not: what an alias of a key points to.
    pub fn allows(&self, list: &[String], name: &str, place: Place<'_>) -> bool {
        if let Some(at) = self.place(name) {
            return self.allowed(list, place).contains(at);
        }
        let (patterns, end) = patterns(list, compile);
        end == End::Open
            || patterns.iter().any(|pattern| pattern.is_match(name))
            || end == End::Through && (is_no_limit(list, place) || list.iter().any(|item| item == name))
    }

    /// The place of a known model.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.place(name)
    }

    /// The names of a set.
    pub fn named(&self, bits: &Bits) -> Vec<&str> {
        bits.places().filter_map(|place| self.names.get(place)).map(String::as_str).collect()
    }
}

impl Deployment {
    /// Who may ask for it, by which name.
    fn asked_for(&self) -> (Option<&str>, &str) {
        match &self.team {
            Some((team, public_name)) => (Some(team), public_name),
            None => (None, &self.name),
        }
    }
}

/// Whether it is the name of a model: no word that stands for several, and nothing Open WebUI could not hold.
pub fn is_name(name: &str) -> bool {
    is_usable(name) && !name.contains('*') && !SENTINELS.contains(&name)
}

/// Whether a name can be a model's in Open WebUI at all: it becomes a key of its tables and of ours, which hold no more.
fn is_usable(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX_BYTES && !name.contains(char::is_control)
}

/// How looking at the patterns of a list ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// At a bare `*`: everything is allowed.
    Open,
    /// At what LiteLLM stumbles over, a pattern that is none or a NULL: whatever was not allowed until there is refused.
    Spoiled,
    /// At the end of the list: names come next.
    Through,
}

/// What `take` makes of the patterns of a list, in their order, as far as LiteLLM comes with them.
fn patterns<T>(list: &[String], take: impl Fn(&str) -> Pattern<T>) -> (Vec<T>, End) {
    let (mut found, mut seen) = (Vec::new(), 0);
    for item in list {
        if item == NULL {
            return (found, End::Spoiled);
        }
        if item == "*" {
            return (found, End::Open);
        }
        if !item.contains('*') {
            continue;
        }
        seen += 1;
        if seen > PATTERNS_OF_A_LIST {
            continue;
        }
        match take(item) {
            Pattern::Fits(pattern) => found.push(pattern),
            Pattern::TooMuch => {}
            Pattern::Broken => return (found, End::Spoiled),
        }
    }
    (found, End::Through)
}

fn is_no_limit(list: &[String], place: Place<'_>) -> bool {
    list.is_empty()
        || list.iter().any(|item| {
            item == "all-proxy-models" || item == "all-team-models" && matches!(place, Place::Team(_))
        })
}

/// LiteLLM's `re.match("^" + pattern.replace("*", ".*") + "$", name)`. Nothing but the star is escaped there, so nothing
/// is here.
fn compile(pattern: &str) -> Pattern<Regex> {
    if is_too_long(pattern) {
        return Pattern::TooMuch;
    }
    let text = format!("\\A(?:^{}$)", pattern.replace('*', ".*"));
    let built = RegexBuilder::new(&text)
        .size_limit(PATTERN_MAX_BYTES)
        .dfa_size_limit(PATTERN_MAX_BYTES)
        .nest_limit(50)
        .build();
    match built {
        Ok(pattern) => Pattern::Fits(pattern),
        Err(regex::Error::CompiledTooBig(_)) => Pattern::TooMuch,
        Err(_) => Pattern::Broken,
    }
}

fn is_too_long(pattern: &str) -> bool {
    pattern.chars().count() > PATTERN_MAX_CHARS
}

/// What serves names as LiteLLM understands it, if `pattern` is one: with a `*`, and a regular expression that we take.
pub fn pattern(pattern: &str) -> Option<Regex> {
    match compile(pattern) {
        Pattern::Fits(compiled) if pattern.contains('*') => Some(compiled),
        _ => None,
    }
}

/// What became of a pattern.
#[derive(Debug, Clone)]
enum Pattern<T> {
    Fits(T),
    /// More than we take: it matches nothing.
    TooMuch,
    /// No regular expression.
    Broken,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known_models() -> KnownModels {
        let row = |name: &str, tags: &[&str]| Deployment {
            name: name.to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..Deployment::default()
        };
        let scoped = |team: &str, public: &str| Deployment {
            name: format!("model_name_{team}_1"),
            team: Some((team.to_owned(), public.to_owned())),
            tags: vec!["own".to_owned()],
            ..Deployment::default()
        };
        let blocked = |name: &str| Deployment { blocked: true, ..row(name, &["beta"]) };
        let rows = [
            row("gpt-4", &["beta"]),
            row("gpt-4", &[]),
            blocked("gpt-4"),
            blocked("off"),
            row("claude-3", &[]),
            row("openai/*", &["wild"]),
            scoped("t", "private"),
            scoped("t", "claude-3"),
        ];
        let others = ["openai/o1", "off", "model_name_t_1", "all-team-models", "poll*", "gpt-4"];
        KnownModels::new(&rows, &others.map(|name| (name.to_owned(), Vec::new())))
    }

    fn allowed(list: &[&str], place: Place<'_>) -> String {
        let known_models = known_models();
        let list: Vec<String> = list.iter().map(|item| (*item).to_owned()).collect();
        known_models.named(&known_models.allowed(&list, place)).join(" ")
    }

    #[test]
    fn only_names_that_somebody_serves_are_known() {
        let known_models = known_models();
        assert_eq!(known_models.names(), ["claude-3", "gpt-4", "openai/o1", "private"]);
        assert_eq!(
            known_models.named(&known_models.served(Place::Anywhere)).join(" "),
            "claude-3 gpt-4 openai/o1"
        );
        assert_eq!(known_models.named(&known_models.served(Place::Team("t"))).len(), 4);
        assert_eq!(known_models.named(&known_models.served(Place::Team("u"))).len(), 3);
        let odd = ["a".repeat(513), "b\u{7}".to_owned(), String::new(), "fine".to_owned()];
        let odd: Vec<(String, Vec<String>)> = odd.iter().map(|name| (name.clone(), Vec::new())).collect();
        assert_eq!(KnownModels::new(&[], &odd).names(), ["fine"]);
    }

    #[test]
    fn a_teams_own_model_is_the_teams_whoever_litellm_lists_it_to() {
        let own = Deployment {
            name: "model_name_t_1".to_owned(),
            team: Some(("t".to_owned(), "private".to_owned())),
            ..Deployment::default()
        };
        let heard = ["private", "model_name_t_1", "gpt-4"].map(|name| (name.to_owned(), Vec::new()));
        let known_models = KnownModels::new(&[own], &heard);
        assert_eq!(known_models.named(&known_models.served(Place::Anywhere)), ["gpt-4"]);
        assert_eq!(known_models.named(&known_models.served(Place::Team("t"))), ["gpt-4", "private"]);
    }

    #[test]
    fn every_kind_of_list_means_what_it_means_to_litellm() {
        use Place::{Anywhere, Team};
        let every = "claude-3 gpt-4 openai/o1 private";
        for (list, place, expected) in [
            (&[][..], Anywhere, every),
            (&["x", "*"], Anywhere, every),
            (&["all-proxy-models"], Anywhere, every),
            (&["all-team-models"], Anywhere, ""),
            (&["all-team-models"], Team("u"), every),
            (&["no-default-models"], Team("u"), ""),
            (&["gpt-4", "gpt-4", "unknown", ""], Anywhere, "gpt-4"),
            (&["beta"], Anywhere, "gpt-4"),
            (&["wild"], Anywhere, "openai/o1"),
            (&["own"], Anywhere, ""),
            (&["own"], Team("u"), ""),
            (&["own"], Team("t"), "claude-3 private"),
            (&["openai/*"], Anywhere, "openai/o1"),
            (&["gpt.*"], Anywhere, "gpt-4"),
            (&["*-3"], Anywhere, "claude-3"),
            (&["g(*"], Anywhere, ""),
            // An alternative is anchored on one side only: as LiteLLM has it.
            (&["gpt|zzz*"], Anywhere, "gpt-4"),
            (&["GPT-4"], Anywhere, ""),
            (&["off"], Anywhere, ""),
        ] {
            assert_eq!(allowed(list, place), expected, "{list:?} {place:?}");
        }
        assert_eq!(allowed(&[&("a".repeat(2_000) + "*")], Anywhere), "");
        assert_eq!(allowed(&["(((a{1,50}){1,50}){1,50}){1,50}*"], Anywhere), "");
        // Patterns that would keep a processor busy are none; ordinary ones are, also with many stars.
        for evil in ["(?:(?:a?[a-z0-9-]?){0,400}0)*", "[a-z0-9-]{0,900}*", "(?:[a-z0-9-]?){1500}*"] {
            assert!(!matches!(compile(evil), Pattern::Fits(_)), "{evil}");
        }
        assert!(matches!(compile("a*b*c*d*e*f*"), Pattern::Fits(_)));
        let mut many: Vec<String> = (0..PATTERNS_OF_A_LIST).map(|i| format!("x{i}*")).collect();
        many.push("gpt*".to_owned());
        assert_eq!(known_models().named(&known_models().allowed(&many, Anywhere)).len(), 0);
    }

    #[test]
    fn a_list_allows_a_name_that_is_no_model() {
        let list = ["legacy".to_owned(), "old-*".to_owned()];
        let known_models = known_models();
        assert!(known_models.allows(&list, "legacy", Place::Anywhere));
        assert!(known_models.allows(&list, "old-1", Place::Anywhere));
        assert!(!known_models.allows(&list, "gpt-4", Place::Anywhere));
        assert!(known_models.allows(&[], "whatever", Place::Anywhere));
    }
}
