//! The scheduled verify: due when the schedule says so, repaired or not as the policy says, shown as metrics.

use crate::support::compare::assert_in_step;
use crate::support::daemon::{DaemonOptions, run};
use crate::support::{Daemon, Pair, change, eventually, people, team};

fn options(verify: &str) -> DaemonOptions {
    DaemonOptions { policy: Some(format!("[verify]\n{verify}\n")), ..DaemonOptions::default() }
}

async fn runs(pair: &Pair) -> String {
    pair.ask(
        "select string_agg(concat_ws('/', phase, case when dry_run then 'dry' else 'mend' end,
                                     case when scheduled then 'scheduled' else 'asked' end), ' ' order by id)
           from litellm_webui_sync.resnapshot",
    )
    .await
}

/// Makes the next scheduled verify due, as if that long had passed.
async fn due(pair: &Pair) {
    eventually("a schedule", || async {
        pair.ask("select count(*) from litellm_webui_sync.verify_schedule").await == "1"
    })
    .await;
    pair.webui("update litellm_webui_sync.verify_schedule set next_at = now() - interval '1 minute'").await;
}

fn shown(daemon: &Daemon, what: &str) -> bool {
    daemon.get("/metrics").1.lines().any(|line| line == format!("litellm_webui_sync_{what}"))
}

/// Why everything was looked at, time after time, as the log and the page say it.
fn reasons(daemon: &Daemon) -> Vec<String> {
    let log = daemon.log();
    let copies = log.lines().filter(|line| line.contains("beside the stream"));
    copies.map(|line| line.split("reason=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()).collect()
}

async fn make_drift(pair: &Pair) {
    pair.webui(
        "delete from litellm_webui_sync.litellm_user where user_id = 'a3';
         update litellm_webui_sync.litellm_user set user_alias = 'Wrong' where user_id = 'a4';
         update \"user\" set name = 'Edited' where id = 'usr_a5'",
    )
    .await;
}

#[tokio::test]
async fn it_reports_and_mends_as_the_policy_says_and_the_metrics_show_it() {
    let pair = Pair::new().await;
    pair.litellm(&[people("a", 10), team("t", "T", None, &["a1", "a2"])].concat()).await;
    {
        let daemon = Daemon::with(&pair, &options("interval_hours = 5\njitter_percent = 0\nrepair = false"));
        pair.settle().await;
        assert!(shown(&daemon, "last_verify{result=\"clean\"} 0"));
        // Not at once: what was just copied needs no verifying.
        eventually("a schedule", || async {
            pair.ask(
                "select count(*) from litellm_webui_sync.verify_schedule
                  where next_at between now() + interval '4 hours 55 minutes' and now() + interval '5 hours'",
            )
            .await
                == "1"
        })
        .await;
        assert_eq!(runs(&pair).await, "");
        make_drift(&pair).await;
        due(&pair).await;
        eventually("a verify", || async { runs(&pair).await == "done/dry/scheduled" }).await;
        assert_eq!(reasons(&daemon), ["the scheduled verify is due"]);
        eventually("its metrics", || async { shown(&daemon, "last_verify{result=\"differed\"} 1") }).await;
        eventually("its count", || async { shown(&daemon, "looks_total{look=\"verify\",result=\"ok\"} 1") })
            .await;
        for expected in [
            "drift_rows{kind=\"missing\",table=\"LiteLLM_UserTable\"} 1",
            "drift_rows{kind=\"different\",table=\"LiteLLM_UserTable\"} 1",
            "drift_rows{kind=\"sync_user\",table=\"user\"} 1",
        ] {
            assert!(shown(&daemon, expected), "{expected}: {}", daemon.get("/metrics").1);
        }
        assert!(daemon.metric("last_verify_timestamp_seconds") > 1_700_000_000.0);
        // Nothing was changed, and the next one is planned.
        assert_eq!(pair.ask("select name from \"user\" where id = 'usr_a5'").await, "Edited");
        assert_eq!(
            pair.ask("select next_at > now() + interval '4 hours' from litellm_webui_sync.verify_schedule")
                .await,
            "t"
        );
    }
    // Missed while nobody was there; and it mends by default.
    pair.webui("update litellm_webui_sync.verify_schedule set next_at = now() - interval '9 days'").await;
    pair.litellm(&change("a6", "user_alias = 'Meanwhile'")).await;
    let daemon = Daemon::start(&pair);
    eventually("the missed verify", || async {
        runs(&pair).await == "done/dry/scheduled done/mend/scheduled"
    })
    .await;
    eventually("its metrics", || async { shown(&daemon, "last_verify{result=\"repaired\"} 1") }).await;
    pair.settle().await;
    assert_in_step(&pair).await;
    due(&pair).await;
    eventually("a clean one", || async { shown(&daemon, "last_verify{result=\"clean\"} 1") }).await;
    let metrics = daemon.get("/metrics").1;
    let drift: Vec<&str> = metrics.lines().filter(|line| line.contains("_drift_rows{")).collect();
    assert!(drift.len() > 30 && drift.iter().all(|line| line.ends_with(" 0")), "{drift:?}");
    daemon.ready().await;
}

#[tokio::test]
async fn it_waits_for_what_is_going_on_and_can_be_switched_off() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 5)).await;
    {
        let daemon = Daemon::with(&pair, &options("interval_hours = 0"));
        pair.settle().await;
        pair.webui(
            "insert into litellm_webui_sync.verify_schedule (next_at) values (now() - interval '1 day')",
        )
        .await;
        // A tick is a second, and this takes several.
        assert_eq!(run(&pair, &["verify"]).0, 0);
        assert_eq!(run(&pair, &["verify"]).0, 0);
        assert_eq!(runs(&pair).await, "done/dry/asked done/dry/asked");
        assert_eq!(reasons(&daemon), ["somebody asked for it", "somebody asked for it"]);
    }
    // While a resnapshot is held or waits, it stays due.
    pair.webui("insert into litellm_webui_sync.resnapshot (request, tables, dry_run, not_before) values (gen_random_uuid(), '{}', true, 'infinity')").await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_eq!(run(&pair, &["verify"]).0, 0);
    assert!(!runs(&pair).await.contains("scheduled"));
    assert_eq!(pair.ask("select next_at < now() from litellm_webui_sync.verify_schedule").await, "t");
    pair.webui("delete from litellm_webui_sync.resnapshot where not_before = 'infinity'").await;
    eventually("the scheduled one", || async { runs(&pair).await.contains("done/mend/scheduled") }).await;
    assert_in_step(&pair).await;
}
