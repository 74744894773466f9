//! Links that die without a word, at whatever point of a session: the state is true meanwhile, and it recovers by itself.

use std::time::Duration;

use crate::network::Bench;
use crate::support::compare::assert_in_step;
use crate::support::{Daemon, change, eventually, within};

/// How long a daemon may take to notice a dead link, whatever it waits for, and to be through with its work again.
const RECOVERED: Duration = Duration::from_secs(150);

/// One start, during which every connection to one side is lost after so many bytes.
async fn start_with_a_loss(source: bool, bytes: u64) {
    let bench = Bench::new().await;
    let proxy = if source { &bench.source_proxy } else { &bench.target_proxy };
    proxy.lose_after_bytes(bytes);
    let daemon = Daemon::start(&bench.pair);
    let side = if source { "source" } else { "target" };
    within(RECOVERED, &format!("ready after losing the {side} at {bytes} bytes"), || async {
        daemon.get("/readyz").0 == 200
    })
    .await;
    bench.pair.litellm(&change("a1", "user_alias = 'Seen'")).await;
    bench.pair.settle().await;
    assert_in_step(&bench.pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_gets_over_a_link_that_dies_at_any_byte() {
    // From the log-in over the look at both sides and the copy to the first batches.
    let source = [100, 900, 3_000, 9_000, 14_000].map(|bytes| (true, bytes));
    let target = [100, 2_000, 12_000, 40_000, 90_000].map(|bytes| (false, bytes));
    let starts = source.into_iter().chain(target).map(|(side, bytes)| start_with_a_loss(side, bytes));
    futures_util::future::join_all(starts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_streams_is_not_ready_while_a_link_is_dead_and_litellms_server_stops_fast() {
    for source in [true, false] {
        let bench = Bench::new().await;
        let daemon = Daemon::start(&bench.pair);
        bench.pair.settle().await;
        let proxy = if source { &bench.source_proxy } else { &bench.target_proxy };
        proxy.blackhole(true);
        bench.pair.litellm(&change("a1", "user_alias = 'While it is dark'")).await;
        within(Duration::from_secs(20), "it says so", || async { daemon.get("/readyz").0 == 503 }).await;
        assert_eq!(daemon.get("/healthz").0, 200);
        bench.stop_source_fast();
        proxy.blackhole(false);
        eventually("ready again", || async { daemon.get("/readyz").0 == 200 }).await;
        bench.assert_right().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_begins_and_the_target_is_silent_litellms_server_stops_fast() {
    let starts = [500, 12_000, 40_000].map(|bytes| async move {
        let bench = Bench::new().await;
        bench.target_proxy.lose_after_bytes(bytes);
        let daemon = Daemon::start(&bench.pair);
        // Where it stands by now, nobody knows: that is the point.
        tokio::time::sleep(Duration::from_secs(4)).await;
        bench.stop_source_fast();
        within(RECOVERED, "ready in the end", || async { daemon.get("/readyz").0 == 200 }).await;
        bench.pair.settle().await;
        assert_in_step(&bench.pair).await;
    });
    futures_util::future::join_all(starts).await;
}
