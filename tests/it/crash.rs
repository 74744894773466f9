//! One death in each crash window of `src/failpoint.rs`.

use litellm_webui_sync::failpoint;

use crate::churn::{assert_audited_once, reference};
use crate::support::compare::assert_in_step;
use crate::support::daemon::{DaemonOptions, run};
use crate::support::{Daemon, Pair, change, gone, key, organization, people, person, team};

/// Dies at hit number `after + 1` of a window, in the middle of changes; then a daemon that does not.
async fn dies_in(window: &str, after: u32) {
    let pair = Pair::new().await;
    pair.litellm(
        &[people("a", 40), organization("o", "O"), team("t", "T", Some("o"), &["a1", "a2"])].concat(),
    )
    .await;
    reference::begin(&pair).await;
    let failpoints =
        Some(if after == 0 { format!("{window}=panic") } else { format!("{window}={after}*off->panic") });
    let options = DaemonOptions { failpoints, ..DaemonOptions::default() };
    let mut victim = Daemon::with(&pair, &options);
    let mut number = 0;
    while victim.is_running() {
        number += 1;
        assert!(number < 400, "{window} was never hit");
        pair.litellm(
            &[
                person(&format!("n{number}"), &format!("n{number}@x.test")),
                key(&format!("n{number}"), &format!("n{number}")),
                change("a1", &format!("user_alias = 'Round {number}'")),
            ]
            .concat(),
        )
        .await;
        if number == 3 {
            pair.litellm(&gone("a2")).await;
        }
        if number == 4 && window == failpoint::MENDED_NOT_FINISHED {
            pair.settle().await;
            pair.webui(
                "delete from litellm_webui_sync.litellm_user where user_id = 'a3';
                 update \"user\" set name = 'Edited' where id = 'usr_a4'",
            )
            .await;
            assert_eq!(run(&pair, &["resnapshot"]).0, 0);
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        if window == failpoint::SENT_NOT_ANSWERED {
            // Nothing but users is sent so: sooner or later a batch holds this alone.
            pair.litellm(&change("a3", &format!("user_alias = 'Alone {number}'"))).await;
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
    }
    assert!(!victim.end().success());
    let _daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 0);
    assert_in_step(&pair).await;
    reference::assert_exactly_once(&pair).await;
    assert_audited_once(&pair).await;
}

#[tokio::test]
async fn a_death_with_the_mirror_written_and_open_webui_not() {
    dies_in(failpoint::STAGED_NOT_PROJECTED, 0).await;
    dies_in(failpoint::STAGED_NOT_PROJECTED, 4).await;
}

#[tokio::test]
async fn a_death_with_everything_written_and_nothing_committed() {
    dies_in(failpoint::PROJECTED_NOT_COMMITTED, 0).await;
    dies_in(failpoint::PROJECTED_NOT_COMMITTED, 3).await;
}

#[tokio::test]
async fn a_death_with_everything_sent_and_nothing_known_of_the_commit() {
    dies_in(failpoint::SENT_NOT_ANSWERED, 0).await;
    dies_in(failpoint::SENT_NOT_ANSWERED, 4).await;
}

#[tokio::test]
async fn a_death_after_the_commit_and_before_the_source_is_told() {
    dies_in(failpoint::COMMITTED_NOT_ACKNOWLEDGED, 0).await;
    dies_in(failpoint::COMMITTED_NOT_ACKNOWLEDGED, 4).await;
}

#[tokio::test]
async fn a_death_with_a_slot_and_no_copy() {
    dies_in(failpoint::SLOT_WITHOUT_COPY, 0).await;
}

#[tokio::test]
async fn a_death_with_a_copy_that_is_not_merged() {
    dies_in(failpoint::COPIED_NOT_MERGED, 0).await;
}

#[tokio::test]
async fn a_death_after_a_look_has_mended_what_differed() {
    dies_in(failpoint::MENDED_NOT_FINISHED, 0).await;
}

#[test]
fn every_window_has_its_test() {
    let text = include_str!("crash.rs");
    let source = include_str!("../../src/failpoint.rs");
    for name in failpoint::ALL {
        let line = source.lines().find(|line| line.contains(&format!("\"{name}\""))).unwrap();
        let constant = line.trim_start_matches("pub const ").split(':').next().unwrap();
        assert!(text.contains(&format!("dies_in(failpoint::{constant}")), "{constant}");
    }
}
