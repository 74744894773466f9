//! A backlog of transactions of one new user each.
//!
//! The same backlog is in three slots: the daemon's and those of two native subscriptions, which
//! copy LiteLLM's user table and nothing else, one committing durably as the daemon does, one with
//! Postgres' default for subscriptions. Each is started in turn. Timed: from when the source
//! sees its slot in use until its last user is visible.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};
use testbed::execute;

use crate::Options;
use crate::native::Native;
use crate::report::{Figures, Goal, Report};
use crate::rig::{Rig, SLOT, wait_for_slot};

pub async fn run(rig: &Rig, options: &Options) -> Result<Value> {
    let users = options.users.unwrap_or(40_000);
    let existing = options.existing.unwrap_or(0);
    let mut report = Report::new(
        "single",
        &format!("a backlog of {users} transactions of one user, {existing} before, {} runs", options.runs),
        json!({ "users": users, "existing": existing, "runs": options.runs }),
    );
    let mut figures = [Figures::default(), Figures::default(), Figures::default()];
    let (mut start, mut peak) = (Figures::default(), Figures::default());
    for run in 0..options.runs {
        let pair = rig.pair(existing).await?;
        pair.start_daemon()?.stop()?;
        let meter = pair.meter().await?;
        let before = meter.applied().await?;
        let durable = Native::subscribe(&pair, "native_on", "on").await?;
        let default = Native::subscribe(&pair, "native_off", "off").await?;
        let backlog = format!(
            "set synchronous_commit = off;
             do $$ begin
                 for n in {} .. {} loop
                     insert into \"LiteLLM_UserTable\" (user_id, user_alias, user_email, user_role, teams, models)
                     values (md5('person ' || n)::uuid::text, 'Person ' || n, 'person' || n || '@example.com',
                             'internal_user', '{{}}', '{{}}');
                     commit;
                 end loop;
             end $$",
            existing + 1,
            existing + users
        );
        // Not in one string: a DO block that commits cannot be part of a larger transaction.
        let client = testbed::connect(&pair.source).await?;
        for statement in backlog.splitn(2, ';') {
            client.batch_execute(statement).await?;
        }
        for turn in 0..3 {
            rig.settle().await?;
            let which = (run + turn) % 3;
            let time = match which {
                0 => {
                    let spawned = Instant::now();
                    let mut daemon = pair.spawn_daemon()?;
                    let streaming = wait_for_slot(&pair.source, SLOT, true).await?;
                    let drained = meter.wait(before + i64::try_from(users)?, &mut daemon).await?;
                    start.add_seconds(streaming - spawned);
                    peak.add(daemon.memory().peak);
                    daemon.stop()?;
                    drained - streaming
                }
                n => {
                    let native = if n == 1 { &durable } else { &default };
                    let streaming = native.enable().await?;
                    let drained = native.wait_for_person(existing + users).await?;
                    native.disable().await?;
                    drained - streaming
                }
            };
            figures[which].add(users as f64 / time.as_secs_f64());
        }
        pair.check(existing + users, users).await?;
        durable.end(rig).await?;
        default.end(rig).await?;
        pair.drop_slot().await?;
        execute(&pair.source, "drop publication native").await?;
    }
    let [product, durable, default] = &figures;
    report.figure("product", "transactions/s", product);
    report.figure("its start-up before that", "s", &start);
    report.figure("native, synchronous_commit = on", "transactions/s", durable);
    report.figure("native, synchronous_commit = off", "transactions/s", default);
    report.ratio("ratio to on", product, durable, Goal::AtLeast(1.0));
    report.plain_ratio("ratio to off, for information", product, default);
    report.figure("peak memory of the daemon", "MiB", &peak);
    Ok(report.end())
}
