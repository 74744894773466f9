//! What LiteLLM really writes, call by call: the row changes of recorded calls of three releases, replayed in their order and their
//! transactions. After each call everybody has what LiteLLM's rows say by then, by the oracle.
//!
//! `recordings/extract.py` made the files, out of what a real proxy's server logged.

use testbed::Schema;

use crate::support::compare::{Foreign, differences};
use crate::support::daemon::run;
use crate::support::{Daemon, Pair, PairOptions};

/// Replays one file into a LiteLLM of its tables.
async fn replay(litellm: Schema, calls: &str) {
    let pair = Pair::with(PairOptions { litellm, ..PairOptions::default() }).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    let mut replayed = 0;
    for call in calls.split("\n-- ") {
        let (name, statements) = call.split_once('\n').unwrap();
        pair.litellm(statements).await;
        pair.settle().await;
        let found = differences(&pair, &Foreign::default()).await;
        assert!(found.is_empty(), "after {name}:\n{}", found.join("\n"));
        replayed += 1;
    }
    assert!(replayed > 3, "{replayed} calls");
    // Nothing is left that a look at everything would mend.
    let (code, said, error) = run(&pair, &["verify"]);
    assert_eq!(code, 0, "{said}{error}");
}

#[tokio::test]
async fn what_litellm_1_110_2_writes_ends_right_after_each_call() {
    replay(Schema::LiteLlm1_110_2, include_str!("recordings/litellm-1.110.2.sql")).await;
}

/// Its tables are those of 1.110.2 with fewer columns, as far as they are read.
#[tokio::test]
async fn what_litellm_1_100_5_writes_ends_right_after_each_call() {
    replay(Schema::LiteLlm1_110_2, include_str!("recordings/litellm-1.100.5.sql")).await;
}

#[tokio::test]
async fn what_litellm_1_77_3_writes_ends_right_after_each_call() {
    replay(Schema::LiteLlm1_77_3, include_str!("recordings/litellm-1.77.3.sql")).await;
}

#[tokio::test]
async fn what_sign_ins_and_a_new_master_key_write_ends_right() {
    for calls in [
        include_str!("recordings/litellm-1.110.2-signin.sql"),
        include_str!("recordings/litellm-1.110.2-sso.sql"),
        include_str!("recordings/litellm-1.110.2-master.sql"),
    ] {
        replay(Schema::LiteLlm1_110_2, calls).await;
    }
}
