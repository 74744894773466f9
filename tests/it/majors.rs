//! Major versions of Postgres: which are taken, and what is said of the others.

use testbed::{Binaries, Cluster, ClusterOptions};

use crate::support::compare::assert_in_step;
use crate::support::daemon::run;
use crate::support::{Daemon, Pair, PairOptions, person};

/// The oldest that LiteLLM's database may be on.
const OLDEST: u32 = 15;

/// Says something on whatever version a run of the tests has: each is taken, or refused before anything is done to it.
#[tokio::test]
async fn litellms_server_is_taken_or_refused_by_its_major_version() {
    let source = Cluster::start(ClusterOptions::default()).unwrap();
    // Of 14 only LiteLLM's side is in question here.
    let target = Binaries::of_the_target().unwrap();
    let target = Cluster::start(ClusterOptions { binaries: target, ..ClusterOptions::default() }).unwrap();
    let pair = Pair::on(&source, &target, PairOptions::default()).await;
    pair.litellm(&person("a", "a@x.test")).await;
    let mut daemon = Daemon::start(&pair);
    let major = Binaries::find().unwrap().major();
    if major >= OLDEST {
        assert_eq!(pair.settle().await, 0);
        assert_in_step(&pair).await;
        return;
    }
    assert_eq!(daemon.end().code(), Some(1));
    let refusal = format!("is on PostgreSQL {major}: {OLDEST} is the oldest that is enough");
    let said = [daemon.log(), run(&pair, &["setup"]).2, run(&pair, &["plan"]).2, run(&pair, &["status"]).2];
    for one in said {
        assert!(one.contains(&refusal) && one.contains("what to do: upgrade that server"), "{one}");
    }
    let (code, said, _) = run(&pair, &["doctor"]);
    assert!(code == 3 && said.contains(&refusal) && said.contains("fix: upgrade that server"), "{said}");
    let made = "select (select count(*) from pg_publication) + (select count(*) from pg_replication_slots)";
    assert_eq!(pair.ask_litellm(made).await, "0");
}
