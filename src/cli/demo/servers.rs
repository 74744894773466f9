//! What the demo stands on: a throwaway server, both products' databases in it, and the daemon's configuration.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Result, anyhow};
use testbed::{Binaries, Cluster, ClusterOptions, Schema};
use tokio::task::spawn_blocking;

use super::screen::Screen;
use crate::config::policy::{Access, BudgetPolicy, Http, Names};
use crate::config::{Config, Endpoint, Policy};

const FIRST_PORT: u16 = 9466;

pub(super) async fn start(screen: &Screen) -> Result<Cluster> {
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
    Ok(cluster)
}

/// Both databases, with Open WebUI's own administrator and LiteLLM's people.
pub(super) async fn prepare(cluster: &Cluster) -> Result<Config> {
    let litellm = cluster.create_database("litellm").await?;
    let webui = cluster.create_database("webui").await?;
    testbed::load(&litellm, Schema::LiteLlm1_110_2).await?;
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
        policy: policy(),
    })
}

/// As by default, but for what there would be nothing to see of: used-up budgets close what they are for, and the status page names
/// people, who are made up.
fn policy() -> Policy {
    Policy {
        access: Access { budgets: BudgetPolicy::Enforce, ..Access::default() },
        http: Http { names: Names::Show },
        ..Policy::default()
    }
}

/// The usual port, or the next one that is free.
fn free_address() -> Option<SocketAddr> {
    (FIRST_PORT..FIRST_PORT + 100)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|address| TcpListener::bind(address).is_ok())
}
