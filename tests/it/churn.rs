//! Everything LiteLLM does, under a daemon that is killed again and again: exactly once, and right.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use testbed::{Cluster, ClusterOptions, churn, seed};

use crate::support::compare::assert_in_step;
use crate::support::{Daemon, Pair, PairOptions, rows};

/// The testbed's reference reader, beside the product's slot.
pub(crate) mod reference {
    use litellm_webui_sync::catalog::TABLES;
    use testbed::reference::{count, create_reference_slot};

    use crate::support::{Pair, rows};

    const SLOT_SUFFIX: &str = "_reference";

    /// Makes the publication as the product would, then a slot that counts from now on.
    pub(crate) async fn begin(pair: &Pair) {
        publish(pair).await;
        create_reference_slot(&pair.source, &slot(pair)).await.unwrap();
    }

    /// The name of the slot that counts.
    pub(crate) fn slot(pair: &Pair) -> String {
        format!("{}{SLOT_SUFFIX}", pair.slot)
    }

    pub(crate) async fn publish(pair: &Pair) {
        let have = rows(&pair.source, "select tablename from pg_tables where schemaname = 'public'").await;
        let tables: Vec<String> = TABLES
            .iter()
            .filter(|table| have.iter().any(|row| row[0].as_deref() == Some(table.source)))
            .map(|table| format!("public.\"{}\"", table.source))
            .collect();
        pair.litellm(&format!("create publication litellm_webui_sync for table {}", tables.join(", "))).await;
    }

    /// The counters are what was committed between the consistent point of the product's slot and its checkpoint.
    pub(crate) async fn assert_exactly_once(pair: &Pair) {
        let sql = "select consistent_point::text, end_lsn::text from litellm_webui_sync.checkpoint";
        let row = rows(&pair.target, sql).await.remove(0);
        let (from, to) = (row[0].clone().unwrap(), row[1].clone().unwrap());
        let slot = slot(pair);
        let publication = "litellm_webui_sync";
        let before = count(&pair.source, &slot, publication, Some(&from)).await.unwrap();
        let until = count(&pair.source, &slot, publication, Some(&to)).await.unwrap();
        let applied = pair.applied().await;
        let expected = (until.transactions - before.transactions, until.changes - before.changes);
        assert_eq!(applied, expected, "transactions and changes applied, since {from} up to {to}");
    }
}

/// What holds at every moment.
async fn assert_position(pair: &Pair) {
    // The slot first: it may only move after the checkpoint did.
    let sql =
        format!("select confirmed_flush_lsn from pg_replication_slots where slot_name = '{}'", pair.slot);
    let confirmed = pair.ask_litellm(&sql).await;
    if confirmed.is_empty() {
        // Killed before it had a slot.
        return;
    }
    let sql = format!("select '{confirmed}'::pg_lsn <= end_lsn from litellm_webui_sync.checkpoint");
    assert_ne!(pair.ask(&sql).await, "f", "the source was told more than was committed: {confirmed}");
}

pub(crate) async fn assert_audited_once(pair: &Pair) {
    let sql = "select operation, record_id, lsn::text, count(*) from litellm_webui_sync.sync_audit
                where record_id is not null group by 1, 2, 3 having count(*) > 1";
    let twice = rows(&pair.target, sql).await;
    assert!(twice.is_empty(), "{} audit rows twice: {:?}", twice.len(), &twice[..twice.len().min(5)]);
}

fn random() -> (u64, StdRng) {
    let seed = std::env::var("PROPERTY_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("PROPERTY_TEST_SEED={seed}");
    (seed, StdRng::seed_from_u64(seed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_rounds_of_churn_and_kills_are_applied_exactly_once() {
    let rounds: u32 = std::env::var("CHURN_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let (seed_number, mut random) = random();
    let cluster = Cluster::start(ClusterOptions::default()).unwrap();
    let pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
    seed(&pair.source, 300, 20, 6, 500).await.unwrap();
    reference::begin(&pair).await;
    let mut daemon = Daemon::start(&pair);
    let mut kills = 0;
    for round in 1..=rounds {
        let working = {
            let url = pair.source.clone();
            let legacy = random.random_bool(0.3);
            tokio::spawn(async move { churn(&url, round, 60, 2, legacy).await })
        };
        while !working.is_finished() {
            let moment = std::time::Duration::from_millis(random.random_range(1..400));
            tokio::time::sleep(moment).await;
            if random.random_bool(0.3) {
                daemon.kill9();
                kills += 1;
                daemon = Daemon::start(&pair);
            }
        }
        working.await.unwrap().unwrap_or_else(|error| panic!("seed {seed_number}: {error:#}"));
        assert_position(&pair).await;
    }
    println!("{kills} kills");
    pair.settle().await;
    assert_position(&pair).await;
    daemon.terminate();
    assert_in_step(&pair).await;
    reference::assert_exactly_once(&pair).await;
    assert_audited_once(&pair).await;
}
