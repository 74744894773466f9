//! Metrics: the handbook has them all, and they say what happens.

use std::path::Path;

use litellm_webui_sync::config::reference;
use litellm_webui_sync::observe::metrics::Metrics;

use crate::support::{Daemon, Pair, eventually, people};

/// What stands in a page of the handbook between the marks of `part`.
fn part_of_the_docs(page: &str, part: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src").join(page);
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {part}: made from the code -->"), format!("<!-- {part}: end -->"));
    let (before, rest) = text.split_once(&begin).expect("the mark before");
    let (found, after) = rest.split_once(&end).expect("the mark after");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{begin}{wanted}{end}{after}")).unwrap();
        return;
    }
    assert!(
        found == wanted,
        "{page} is not up to date. Run:\n    UPDATE_DOCS=1 cargo nextest run the_docs_say_what_the_code_does"
    );
}

#[test]
fn the_docs_say_what_the_code_does() {
    part_of_the_docs("metrics.md", "metrics", &format!("\n\n{}\n", Metrics::new().unwrap().markdown()));
    part_of_the_docs("configuration.md", "settings", &format!("\n\n{}\n", reference::settings()));
    part_of_the_docs("configuration.md", "policy", &format!("\n\n```toml\n{}```\n\n", reference::POLICY));
}

#[tokio::test]
async fn the_metrics_say_what_happens_and_move_while_nothing_does() {
    let pair = Pair::new().await;
    let limited = "update \"LiteLLM_UserTable\" set max_budget = 10;";
    pair.litellm(&[&people("a", 5), limited].concat()).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.ready().await;
    pair.litellm(&people("b", 7)).await;
    pair.settle().await;
    let has = |text: &str| daemon.get("/metrics").1.contains(&format!("litellm_webui_sync_{text}"));
    for text in [
        "ready 1",
        "build_info{version=\"",
        "state{state=\"streaming\"} 1",
        "transactions_total 1",
        "changes_total 7",
        "batch_changes_sum 7",
        "stage_seconds_count{stage=\"decode\"} 1",
        "stage_seconds_count{stage=\"mirror\"} 1",
        "stage_seconds_count{stage=\"project\"} 1",
        "stage_seconds_count{stage=\"commit\"} 1",
        "commit_to_visible_seconds_bucket{le=\"0.0005\"}",
        "commit_to_visible_seconds_bucket{le=\"600\"} 1",
        "copies_total 1",
        "copy_phase{phase=\"idle\"} 1",
        "copy_rows 5",
        "copy_tables_done 11",
        "last_copy_failed 0",
        "slot_status{status=\"reserved\"} 1",
        "publication_status{status=\"ok\"} 1",
        "layout_info{layout=\"",
        "same_position_restarts 0",
        "buffer_rows 0",
        "budgets_loaded 1",
        "budget_entities{kind=\"user\",state=\"ok\"} 5",
        // Those who have neither spent nor been limited are not counted.
        "budget_entities{kind=\"user\",state=\"unlimited\"} 0",
        "skipped_users 0",
    ] {
        eventually(text, || async { has(text) }).await;
    }
    assert!(daemon.metric("process_start_time_seconds") > 1.7e9);
    assert!(daemon.metric("last_copy_timestamp_seconds") >= daemon.metric("process_start_time_seconds"));
    assert!(daemon.metric("checkpoint_position_bytes") > 0.0);
    assert!(daemon.metric("slot_headroom_seconds") > 0.0);
    eventually("positions", || async { daemon.metric("slot_restart_position_bytes") > 0.0 }).await;

    // Nothing happens, and what depends on time goes on.
    let (age, message) = (daemon.metric("checkpoint_age_seconds"), daemon.metric("last_message_age_seconds"));
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let later = (daemon.metric("checkpoint_age_seconds"), daemon.metric("last_message_age_seconds"));
    assert!(later.0 > age || later.1 > message, "{later:?}");

    // What is broken is shown, with a reason that is no secret; and it is counted how often in vain.
    pair.litellm(
        "insert into \"LiteLLM_UserTable\" (user_id, models) values ('nobody', '{}');
         insert into \"LiteLLM_UserTable\" (user_id, user_email, models, created_at)
         select 'twin' || i, 'twin@x.test', '{}', now() from generate_series(1, 2) i;",
    )
    .await;
    pair.settle().await;
    eventually("a conflict", || async {
        has("dead_letters_by_class{class=\"conflict\",kind=\"account\"} 1")
    })
    .await;
    eventually("a skipped user", || async { has("skipped_users_by_reason{reason=\"") }).await;
}

#[tokio::test]
async fn sessions_that_fail_where_they_began_are_counted() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 2)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()";
    eventually("restarts", || async {
        let sessions = daemon.metric("sessions_total");
        pair.webui(cut).await;
        eventually("a session", || async { daemon.metric("sessions_total") > sessions }).await;
        daemon.metric("same_position_restarts") >= 2.0
    })
    .await;
    pair.litellm(&people("b", 2)).await;
    pair.settle().await;
    eventually("progress", || async { daemon.metric("same_position_restarts") == 0.0 }).await;
}
