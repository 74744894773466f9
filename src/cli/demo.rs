//! `demo`: a throwaway Postgres with both products' databases, people, the daemon, and live changes.
//!
//! Owns the story it tells. What it prints about Open WebUI it reads there itself, from Open WebUI's
//! tables and over connections of its own; of the daemon it uses what any operator has. Nothing
//! survives it: the server and its files go with this process, however that ends.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use testbed::{Binaries, Cluster, ClusterOptions, LiveChange, Schema, reference};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Endpoint, Policy};
use crate::observe::status::{self, StatusReport, Waited};
use crate::position::Lsn;
use crate::source::Source;
use crate::target::Target;

const FIRST_PORT: u16 = 9466;
/// How long anything may take to arrive before the demo counts it as lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two live changes, so that a person can follow.
const PAUSE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(1);
/// A change of a team touches everybody in it; so many rows show what happens.
const ROWS_SHOWN: usize = 4;
/// Counts independently of the daemon what LiteLLM commits.
const REFERENCE_SLOT: &str = "demo_reference";

/// Shows the product at work. With `once`, ends when the last change has arrived.
///
/// # Errors
/// When there is no Postgres, when the daemon stops, and when anything has not arrived.
pub(super) async fn demo(once: bool) -> Result<()> {
    let cancel = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let screen = Screen::new();
    let mut stage = None;
    let outcome = tokio::select! {
        outcome = Box::pin(perform(once, &screen, &mut stage, &cancel)) => Some(outcome),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    // Whatever happened: the daemon drains, then the server goes. A signal in here changes nothing,
    // and after a signal while the server was starting its guard cleans up.
    cancel.cancel();
    if let Some(Stage { cluster, daemon }) = stage.take() {
        if let Some(daemon) = daemon {
            let _ = tokio::time::timeout(Duration::from_secs(5), daemon).await;
        }
        spawn_blocking(move || drop(cluster)).await?;
        screen.line("");
        screen.line("The throwaway server and its files are gone.");
    }
    match outcome {
        Some(outcome) => outcome,
        None if once => bail!("interrupted before everything was shown"),
        None => Ok(()),
    }
}

/// What has to be taken down again.
#[derive(Debug)]
struct Stage {
    cluster: Cluster,
    daemon: Option<JoinHandle<Result<()>>>,
}

async fn perform(
    once: bool,
    screen: &Screen,
    stage: &mut Option<Stage>,
    cancel: &CancellationToken,
) -> Result<()> {
    let started = Instant::now();
    let Stage { cluster, daemon } = stage.insert(start_server(screen).await?);
    let config = prepare(cluster).await?;
    screen.line("Two databases, made by LiteLLM 1.109.1 and Open WebUI 0.12.4, and LiteLLM's people.");

    let mut show = Show::new(screen, cluster, config).await?;
    let running = daemon.insert(tokio::spawn(super::run::serve(show.config.clone(), cancel.clone())));
    let story = async {
        show.first_copy(started).await?;
        show.live_changes(once).await?;
        show.summary(once).await
    };
    let outcome = tokio::select! {
        outcome = story => outcome,
        ended = &mut *running => Err(stopped(ended)),
    };
    if outcome.is_err() || once {
        return outcome;
    }
    // The caller ends this on a signal.
    Err(stopped(running.await))
}

/// The daemon ended while it should run.
fn stopped(ended: Result<Result<()>, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow!("the daemon ended"),
        Ok(Err(error)) => error,
        Err(panic) => anyhow!(panic).context("the daemon panicked"),
    }
}

async fn start_server(screen: &Screen) -> Result<Stage> {
    if Binaries::is_fetch_needed() {
        screen.line("No PostgreSQL server on this machine: downloading one, once (a few dozen MB) …");
    }
    let cluster = spawn_blocking(|| Cluster::start(ClusterOptions::default())).await??;
    screen.line(&format!(
        "PostgreSQL {} on 127.0.0.1:{}. {}",
        cluster.binaries().version(),
        cluster.port(),
        screen.bold("A throwaway: every local user may enter, and it ends with this program.")
    ));
    Ok(Stage { cluster, daemon: None })
}

/// Both databases, with Open WebUI's own administrator and LiteLLM's people.
async fn prepare(cluster: &Cluster) -> Result<Config> {
    let litellm = cluster.create_database("litellm").await?;
    let webui = cluster.create_database("webui").await?;
    testbed::load(&litellm, Schema::LiteLlm1_109_1).await?;
    testbed::load(&webui, Schema::OpenWebUi0_12_4).await?;
    testbed::open_webui_admin(&webui).await?;
    testbed::demo_people(&litellm).await?;
    let endpoint =
        |url: &str| Endpoint::parse(url).map_err(|problems| anyhow!("{url}: {}", problems.join("; ")));
    Ok(Config {
        source: endpoint(&litellm)?,
        target: endpoint(&webui)?,
        slot: "litellm_webui_sync".to_owned(),
        publication: "litellm_webui_sync".to_owned(),
        schema: "litellm_webui_sync".to_owned(),
        litellm_schema: "public".to_owned(),
        webui_schema: "public".to_owned(),
        http: free_address(),
        http_token: None,
        models_api: None,
        policy: Policy::default(),
    })
}

/// The usual port, or the next one that is free.
fn free_address() -> Option<SocketAddr> {
    (FIRST_PORT..FIRST_PORT + 100)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|address| TcpListener::bind(address).is_ok())
}

/// The story, and what it looks at.
#[derive(Debug)]
struct Show<'a> {
    screen: &'a Screen,
    config: Config,
    litellm_url: String,
    webui_url: String,
    litellm: Client,
    webui: Client,
    /// Accounts that were there before the daemon.
    found: BTreeSet<String>,
    /// What the daemon had counted when the independent count began.
    counted_before: (i64, i64),
    latencies: Vec<Duration>,
}

impl<'a> Show<'a> {
    async fn new(screen: &'a Screen, cluster: &Cluster, config: Config) -> Result<Self> {
        let (litellm_url, webui_url) = (cluster.url("litellm"), cluster.url("webui"));
        let webui = testbed::connect(&webui_url).await?;
        let found = Picture::take(&webui).await?.accounts.into_values().map(|a| a.email).collect();
        Ok(Self {
            screen,
            config,
            litellm: testbed::connect(&litellm_url).await?,
            webui,
            litellm_url,
            webui_url,
            found,
            counted_before: (0, 0),
            latencies: Vec::new(),
        })
    }

    /// Waits for the copy of the existing people, and shows who arrived.
    async fn first_copy(&mut self, started: Instant) -> Result<()> {
        if let Waited::Failed { reason } = status::wait_now(&self.config, PATIENCE).await? {
            bail!("the first copy did not arrive: {reason}");
        }
        let people: i64 =
            self.litellm.query_one("select count(*) from \"LiteLLM_UserTable\"", &[]).await?.get(0);
        let report = status::report(&self.config).await?;
        let picture = Picture::take(&self.webui).await?;

        self.heading(&format!(
            "The first copy: everybody is in Open WebUI {:.1} s after this program began",
            started.elapsed().as_secs_f64()
        ));
        self.line(&format!("{people:>5}  users in LiteLLM, of whom"));
        self.line(&format!("{:>5}    have an account in Open WebUI and may log in", report.accounts_active));
        for skipped in &report.skipped {
            self.line(&format!("{:>5}    have none: {}", skipped.count, skipped.what));
        }
        for letter in &report.dead_letters {
            self.line(&format!("{:>5}    set aside: {}", letter.count, letter.what));
        }
        let mut groups: Vec<&Group> = picture.groups.values().collect();
        groups.sort_by_key(|group| (&group.kind, &group.name));
        self.line("");
        self.line(&self.screen.dim("members  kind          group in Open WebUI"));
        for group in groups {
            self.line(&format!("{:>7}  {:<12}  {}", group.members.len(), group.kind, group.name));
        }
        reference::create_reference_slot(&self.litellm_url, REFERENCE_SLOT).await?;
        self.counted_before = counters(&report)?;
        Ok(())
    }

    /// Applies the changes to LiteLLM one by one, and shows what each did to Open WebUI.
    async fn live_changes(&mut self, once: bool) -> Result<()> {
        self.heading("Live changes: time from the commit in LiteLLM until Open WebUI's database shows it");
        let source = Source::open(&self.config).await?;
        let target = Target::open(&self.config).await?;
        let changes = testbed::demo_live_changes();
        let count = changes.len();
        for (number, change) in (1..).zip(changes) {
            if !once {
                tokio::time::sleep(PAUSE).await;
            }
            let before = Picture::take(&self.webui).await?;
            let latency = self.arrival(&change, &source, &target).await?;
            self.latencies.push(latency);
            let title = self.screen.bold(&format!("{number}/{count}  {}", change.title));
            if number > 1 {
                self.line("");
            }
            self.line(&format!("{title}  {}", self.screen.green(&milliseconds(latency))));
            let after = Picture::take(&self.webui).await?;
            for line in before.differences(&after) {
                self.line(&format!("     {line}"));
            }
        }
        Ok(())
    }

    /// Commits the change and waits until Open WebUI's database has it.
    ///
    /// What is waited for is a barrier behind the change, as in `status --wait now`: a change may
    /// alter nothing there. Its own transaction and the poll are in the time.
    async fn arrival(&self, change: &LiveChange, source: &Source, target: &Target) -> Result<Duration> {
        change.apply(&self.litellm_url).await?;
        let committed = Instant::now();
        let barrier = source.emit_barrier().await?;
        loop {
            let row = target.client().query_one("select end_lsn from checkpoint", &[]).await?;
            if row.get::<_, Lsn>(0) > barrier {
                return Ok(committed.elapsed());
            }
            ensure!(
                committed.elapsed() < PATIENCE,
                "\"{}\" did not arrive within {} s",
                change.title,
                PATIENCE.as_secs()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Compares what arrived with what LiteLLM holds and committed, and says how to look further.
    async fn summary(&mut self, once: bool) -> Result<()> {
        self.heading("Summary");
        let report = status::report(&self.config).await?;
        let (transactions, changes) = counters(&report)?;
        let applied = (transactions - self.counted_before.0, changes - self.counted_before.1);
        let counted =
            reference::count(&self.litellm_url, REFERENCE_SLOT, &self.config.publication, None).await?;
        reference::drop_reference_slot(&self.litellm_url, REFERENCE_SLOT).await?;
        let committed = (i64::try_from(counted.transactions)?, i64::try_from(counted.changes)?);
        let exactly = applied == committed;
        self.verdict(
            exactly,
            &format!(
                "LiteLLM committed {} transactions with {} row changes; applied: {} with {}",
                committed.0, committed.1, applied.0, applied.1
            ),
        );
        let disagreements = self.disagreements().await?;
        self.verdict(
            disagreements.is_empty(),
            &format!(
                "Open WebUI has the people, roles and groups of LiteLLM: {} accounts active, {} locked, \
                 {} groups with {} members",
                report.accounts_active, report.accounts_locked, report.groups, report.members
            ),
        );
        for disagreement in &disagreements {
            self.line(&format!("   {disagreement}"));
        }
        self.latencies.sort_unstable();
        if let (Some(p50), Some(slowest)) =
            (self.latencies.get(self.latencies.len() / 2), self.latencies.last())
        {
            self.line(&format!(
                "   Commit to visible: p50 {}, slowest {}",
                milliseconds(*p50),
                milliseconds(*slowest)
            ));
        }
        ensure!(exactly && disagreements.is_empty(), "not everything arrived");
        if !once {
            self.how_to_look();
        }
        Ok(())
    }

    /// Where Open WebUI's accounts and groups are not what LiteLLM's tables say, read from both
    /// databases without the daemon.
    async fn disagreements(&self) -> Result<Vec<String>> {
        let text = "select distinct lower(btrim(user_email)), \
                           bool_or(user_role = 'proxy_admin') over (partition by lower(btrim(user_email)))
                      from \"LiteLLM_UserTable\"
                     where user_email like '%@%' and coalesce(metadata ->> 'scim_active', '') <> 'false'";
        let rows = self.litellm.query(text, &[]).await?;
        let wanted: BTreeSet<(String, bool)> =
            rows.iter().map(|row| (row.get(0), row.get::<_, Option<bool>>(1) == Some(true))).collect();
        let picture = Picture::take(&self.webui).await?;
        let actual: BTreeSet<(String, bool)> = picture
            .accounts
            .values()
            .filter(|account| account.may_log_in() && !self.found.contains(&account.email))
            .map(|account| (account.email.clone(), account.role == "admin"))
            .collect();
        let text = "select coalesce(organization_alias, organization_id) from \"LiteLLM_OrganizationTable\"
                    union all select coalesce(team_alias, team_id) from \"LiteLLM_TeamTable\"";
        let rows = self.litellm.query(text, &[]).await?;
        let mut wanted_groups: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let mut groups: Vec<String> = picture.groups.into_values().map(|group| group.name).collect();
        wanted_groups.sort_unstable();
        groups.sort_unstable();

        let mut found = Vec::new();
        for (email, admin) in wanted.difference(&actual) {
            found.push(format!("{email} (admin: {admin}) is missing in Open WebUI"));
        }
        for (email, admin) in actual.difference(&wanted) {
            found.push(format!("{email} (admin: {admin}) is too much in Open WebUI"));
        }
        if groups != wanted_groups {
            found.push(format!("groups: {wanted_groups:?} in LiteLLM, {groups:?} in Open WebUI"));
        }
        Ok(found)
    }

    fn how_to_look(&self) {
        let program = std::env::args().next().unwrap_or_else(|| "litellm-webui-sync".to_owned());
        let block = |what: &str, lines: &[String]| {
            self.line("");
            self.line(&self.screen.bold(what));
            for line in lines {
                self.line(&format!("  {line}"));
            }
        };
        block("The databases", &[format!("psql {}", self.litellm_url), format!("psql {}", self.webui_url)]);
        if let Some(address) = self.config.http {
            block("The status page", &[format!("http://{address}/ in a browser")]);
            block(
                "For machines",
                &["api/status", "metrics", "readyz"].map(|page| format!("curl http://{address}/{page}")),
            );
        }
        block(
            "Its status",
            &[
                format!("export LITELLM_DATABASE_URL={}", self.litellm_url),
                format!("export WEBUI_DATABASE_URL={}", self.webui_url),
                format!("{program} status"),
            ],
        );
        let rename = "update \"LiteLLM_TeamTable\" set team_alias = $$Labs$$ where team_id = $$research$$";
        let names = "select name, email from \"user\" order by 1";
        block(
            "A change of your own",
            &[
                format!("psql {} -c '{rename}'", self.litellm_url),
                format!("{program} status --wait now"),
                format!("psql {} -c '{names}'", self.webui_url),
            ],
        );
        self.line("");
        self.line("It runs until Ctrl-C.");
    }

    fn heading(&self, text: &str) {
        self.line("");
        self.line(&self.screen.bold(text));
        self.line("");
    }

    fn verdict(&self, is_good: bool, text: &str) {
        let mark = if is_good { self.screen.green("ok") } else { self.screen.red("NO") };
        self.line(&format!("{mark} {text}"));
    }

    fn line(&self, text: &str) {
        self.screen.line(text);
    }
}

fn counters(report: &StatusReport) -> Result<(i64, i64)> {
    let checkpoint = report.checkpoint.as_ref().context("there is no checkpoint")?;
    Ok((checkpoint.transactions_applied, checkpoint.changes_applied))
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

/// The accounts and groups of Open WebUI 0.12.4 at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Picture {
    accounts: BTreeMap<String, Account>,
    groups: BTreeMap<String, Group>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    email: String,
    name: String,
    role: String,
    is_active: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    kind: String,
    name: String,
    members: BTreeSet<String>,
}

impl Account {
    fn may_log_in(&self) -> bool {
        self.is_active && self.role != "pending"
    }
}

impl Picture {
    async fn take(webui: &Client) -> Result<Self> {
        let text = "select u.id, u.email, u.name, u.role, coalesce(a.active, false)
                      from \"user\" u left join auth a using (id)";
        let rows = webui.query(text, &[]).await.context("could not read Open WebUI's accounts")?;
        let accounts = rows.iter().map(|row| {
            let account =
                Account { email: row.get(1), name: row.get(2), role: row.get(3), is_active: row.get(4) };
            (row.get(0), account)
        });
        let text =
            "select g.id, case when g.id like 'grp\\_team\\_%' then 'team' else 'organization' end, g.name,
                           array(select m.user_id from group_member m where m.group_id = g.id)
                      from \"group\" g";
        let rows = webui.query(text, &[]).await.context("could not read Open WebUI's groups")?;
        let groups = rows.iter().map(|row| {
            let members: Vec<String> = row.get(3);
            let group = Group { kind: row.get(1), name: row.get(2), members: members.into_iter().collect() };
            (row.get(0), group)
        });
        Ok(Self { accounts: accounts.collect(), groups: groups.collect() })
    }

    /// What is different in `after`, a line per row, for a person.
    fn differences(&self, after: &Self) -> Vec<String> {
        let mut lines = self.account_differences(after);
        if lines.len() > ROWS_SHOWN {
            let more = lines.len() - ROWS_SHOWN + 1;
            lines.truncate(ROWS_SHOWN - 1);
            lines.push(format!("account  … and {more} more"));
        }
        lines.extend(self.group_differences(after));
        if lines.is_empty() {
            lines.push("nothing was written to Open WebUI's tables".to_owned());
        }
        lines
    }

    fn account_differences(&self, after: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (id, new) in &after.accounts {
            match self.accounts.get(id) {
                None => {
                    lines.push(format!("account  {}: new, \"{}\", role {}", new.email, new.name, new.role));
                }
                Some(old) if old != new => {
                    let log_in = |account: &Account| if account.is_active { "on" } else { "off" };
                    let fields = [
                        ("e-mail", old.email.as_str(), new.email.as_str()),
                        ("name", &old.name, &new.name),
                        ("role", &old.role, &new.role),
                        ("log-in", log_in(old), log_in(new)),
                    ];
                    let changed: Vec<String> = fields
                        .iter()
                        .filter(|(_, old, new)| old != new)
                        .map(|(field, old, new)| format!("{field} {old} → {new}"))
                        .collect();
                    lines.push(format!("account  {}: {}", old.email, changed.join(", ")));
                }
                Some(_) => {}
            }
        }
        let gone = self.accounts.iter().filter(|(id, _)| !after.accounts.contains_key(*id));
        lines.extend(gone.map(|(_, old)| format!("account  {}: deleted", old.email)));
        lines
    }

    fn group_differences(&self, after: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let people = |ids: &mut dyn Iterator<Item = &String>| -> String {
            let names: Vec<&str> = ids
                .map(|id| after.accounts.get(id).map_or(id.as_str(), |account| account.email.as_str()))
                .collect();
            names.join(", ")
        };
        for (id, new) in &after.groups {
            let Some(old) = self.groups.get(id) else {
                lines.push(format!("group    {}: new, {} members", new.name, new.members.len()));
                continue;
            };
            let mut changed = Vec::new();
            if old.name != new.name {
                changed.push(format!("name {} → {}", old.name, new.name));
            }
            if old.members != new.members {
                changed.push(format!("{} → {} members", old.members.len(), new.members.len()));
            }
            let joined = people(&mut new.members.difference(&old.members));
            if !joined.is_empty() {
                changed.push(format!("joined: {joined}"));
            }
            let left = people(&mut old.members.difference(&new.members));
            if !left.is_empty() {
                changed.push(format!("left: {left}"));
            }
            if !changed.is_empty() {
                lines.push(format!("group    {}: {}", old.name, changed.join(", ")));
            }
        }
        let gone = self.groups.iter().filter(|(id, _)| !after.groups.contains_key(*id));
        lines.extend(gone.map(|(_, old)| format!("group    {}: deleted", old.name)));
        lines
    }
}

/// Standard output, coloured for a terminal and plain for everything else.
#[derive(Debug)]
struct Screen {
    is_terminal: bool,
}

impl Screen {
    fn new() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { is_terminal: std::io::stdout().is_terminal() && !no_color }
    }

    /// A reader that has seen enough (`| head`) is no reason to fail.
    fn line(&self, text: &str) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    fn bold(&self, text: &str) -> String {
        self.styled("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.styled("2", text)
    }

    fn green(&self, text: &str) -> String {
        self.styled("32", text)
    }

    fn red(&self, text: &str) -> String {
        self.styled("31", text)
    }

    fn styled(&self, code: &str, text: &str) -> String {
        if self.is_terminal { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        let account = |email: &str| Account {
            email: email.to_owned(),
            name: "N".to_owned(),
            role: "user".to_owned(),
            is_active: true,
        };
        let accounts = ["a", "b", "c", "d", "e"].map(|id| (id.to_owned(), account(&format!("{id}@x"))));
        let group = Group { kind: "team".to_owned(), name: "G".to_owned(), members: BTreeSet::new() };
        Picture { accounts: accounts.into(), groups: [("g".to_owned(), group)].into() }
    }

    #[test]
    fn a_difference_names_the_fields_before_and_after() {
        let mut after = picture();
        let account = after.accounts.get_mut("a").unwrap();
        (account.role, account.is_active) = ("pending".to_owned(), false);
        after.groups.get_mut("g").unwrap().members.insert("b".to_owned());
        assert_eq!(
            picture().differences(&after),
            ["account  a@x: role user → pending, log-in on → off", "group    G: 0 → 1 members, joined: b@x"]
        );
        assert_eq!(picture().differences(&picture()), ["nothing was written to Open WebUI's tables"]);
    }

    #[test]
    fn many_accounts_are_cut_to_a_few_lines() {
        let mut after = picture();
        after.accounts.values_mut().for_each(|account| account.name = "M".to_owned());
        let lines = picture().differences(&after);
        assert_eq!(lines.len(), ROWS_SHOWN);
        assert_eq!(lines.last().unwrap(), "account  … and 2 more");
    }
}
