//! The short way of a small batch: when it is taken, and that it commits nothing it should not.

use litellm_webui_sync::position::{BatchEnd, Lsn};
use litellm_webui_sync::target::{Target, checkpoint};

use crate::churn::{assert_audited_once, reference};
use crate::support::compare::assert_in_step;
use crate::support::{Daemon, Pair, change, key, people, person, team};

/// Notes what is written, in order.
const WITNESS: &str = "
    create table public.seen (place bigint generated always as identity, xid xid8, what text);
    create function public.see() returns trigger language plpgsql as
      $$ begin insert into public.seen (xid, what) values (pg_current_xact_id(), tg_table_name); return null; end $$;
    create trigger see after update on litellm_webui_sync.checkpoint for each row execute function see();
    create trigger see after insert or update on litellm_webui_sync.litellm_user for each row execute function see();
    create trigger see after insert or update on public.\"user\" for each row execute function see();";

/// What the last batch wrote, in order: on the short way the checkpoint comes first.
const LAST: &str = "select string_agg(what, ' ' order by place) from public.seen
                     where xid = (select xid from public.seen where what = 'litellm_user' order by place desc limit 1)";
const SHORT: &str = "checkpoint litellm_user user";
const GENERAL: &str = "litellm_user user checkpoint";

#[tokio::test]
async fn whoever_is_simply_new_or_has_another_name_takes_one_round_trip_and_others_do_not() {
    let pair = Pair::new().await;
    let company = [people("a", 5), team("t", "T", None, &["a1", "a2"]), key("k", "a1")].concat();
    pair.litellm(&company).await;
    reference::begin(&pair).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.webui(WITNESS).await;
    let written = async |changes: &str| {
        pair.litellm(changes).await;
        pair.settle().await;
        pair.ask(LAST).await
    };
    assert_eq!(written(&change("a1", "user_alias = 'In a team, with a key'")).await, SHORT);
    assert_eq!(written(&person("n1", "n1@x.test")).await, SHORT);
    let both = [person("n2", "n2@x.test"), change("a3", "user_alias = 'Another'")].concat();
    assert_eq!(written(&both).await, "checkpoint litellm_user litellm_user user user");
    pair.webui("update \"user\" set name = null where id = 'usr_a2'").await;
    assert_eq!(written(&change("a2", "user_alias = 'Was without one'")).await, SHORT);
    // Whoever gets another e-mail may leave one to somebody else; what was tried in vain left nothing.
    assert_eq!(written(&change("a4", "user_email = 'other@x.test'")).await, GENERAL);
    // For a while nothing is tried.
    assert_eq!(written(&change("a1", "user_alias = 'Soon after'")).await, GENERAL);
    for round in 0..16 {
        written(&change("a1", &format!("user_alias = 'Round {round}'"))).await;
    }
    assert_eq!(written(&change("a1", "user_alias = 'Tried again'")).await, SHORT);
    // What of theirs could not be written is tried again with every change.
    let letter =
        "insert into litellm_webui_sync.dead_letter (kind, key, operation, reason, first_seen, last_seen)
                  values ('api_key', 'a2', 'SYNC_KEY', 'made up', now(), now())";
    pair.webui(letter).await;
    assert_eq!(written(&change("a2", "user_alias = 'With a letter'")).await, GENERAL);
    for round in 0..16 {
        written(&change("a1", &format!("user_alias = 'Again {round}'"))).await;
    }
    // An edit of theirs in Open WebUI is not what the short way looks at.
    pair.webui("update \"user\" set role = 'pending', name = 'Edited' where id = 'usr_a5'").await;
    assert_eq!(written(&change("a5", "user_alias = 'Edited'")).await, "litellm_user checkpoint");
    assert!(!daemon.log().contains("trying again"), "{}", daemon.log());
    pair.webui("update \"user\" set role = 'user' where id = 'usr_a5'").await;
    assert_in_step(&pair).await;
    reference::assert_exactly_once(&pair).await;
    assert_audited_once(&pair).await;
}

/// Everything is sent before the first answer has come: what speaks against it has to be the server's own affair.
#[tokio::test]
async fn a_leader_that_was_replaced_commits_nothing_although_it_sent_its_commit() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.terminate();
    let target = Target::open(&pair.config()).await.unwrap();
    let known = checkpoint::read(&target).await.unwrap().unwrap();
    target.write_in_transactions_only().await.unwrap();
    let next = Lsn::from(u64::from(known.end_lsn) + 8);
    let end = BatchEnd::at(next);
    let first = checkpoint::prepare_first(&target).await.unwrap();
    let send = async |epoch, from, name: &str| {
        let rename = format!("update \"user\" set name = '{name}' where id = 'usr_a1'");
        let (begun, advanced, _, committed) = tokio::join!(
            target.begin_small(),
            checkpoint::advance_first(&target, &first, epoch, from, end),
            target.execute("rename somebody", &rename),
            target.commit("commit a batch"),
        );
        begun.unwrap();
        // COMMIT of what failed answers ROLLBACK, and no error.
        committed.unwrap();
        advanced
    };
    let name = "select name from \"user\" where id = 'usr_a1'";
    let before = pair.ask(name).await;
    for (epoch, from) in [(known.epoch - 1, known.end_lsn), (known.epoch, next)] {
        let error = send(epoch, from, "Too late").await.unwrap_err();
        assert!(error.is_about_a_row(), "{error:?}");
        assert!(format!("{error:?}").contains("another daemon moved the checkpoint"), "{error:?}");
        assert_eq!(pair.ask(name).await, before);
    }
    send(known.epoch, known.end_lsn, "In time").await.unwrap();
    assert_eq!(pair.ask(name).await, "In time");
    assert_eq!(pair.ask("select end_lsn from litellm_webui_sync.checkpoint").await, next.to_string());
}

/// Names nobody would choose. Whatever way they take, they end as the oracle says.
#[tokio::test]
async fn odd_names_end_as_they_should() {
    let pair = Pair::new().await;
    pair.litellm(&[people("a", 4), team("t", "T", None, &["a1", "a2"]), key("k", "a1")].concat()).await;
    reference::begin(&pair).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    let long = format!("'{}'", "é".repeat(400));
    for odd in ["null", "''", "E' \\t\\u00a0'", &long, "E'a\\nb'", "'{}'", "'null'", "E'\\\\x00'"] {
        for who in ["a1", "a2", "a3"] {
            pair.litellm(&change(who, &format!("user_alias = {odd}"))).await;
        }
        pair.litellm(&change("a4", &format!("user_alias = {odd}, teams = '{{}}', team_id = null"))).await;
        pair.settle().await;
        assert_in_step(&pair).await;
    }
    pair.litellm(&change("a3", "user_email = null")).await;
    pair.settle().await;
    pair.litellm(&change("a3", "user_alias = 'Without an e-mail'")).await;
    pair.settle().await;
    pair.litellm(&change("a2", "user_role = null")).await;
    pair.settle().await;
    assert_in_step(&pair).await;
    assert!(!daemon.log().contains("trying again"), "{}", daemon.log());
    reference::assert_exactly_once(&pair).await;
    assert_audited_once(&pair).await;
}

/// A batch that holds users alone is sent with its COMMIT: wherever the death comes, what became of it only the checkpoint knows.
#[tokio::test]
async fn a_daemon_that_is_killed_again_and_again_applies_every_new_name_once() {
    let pair = Pair::new().await;
    pair.litellm(&[people("a", 40), team("t", "T", None, &["a1", "a2"]), key("k", "a1")].concat()).await;
    reference::begin(&pair).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.webui(WITNESS).await;
    let short = "select count(*) from (select from public.seen group by xid
                  having (array_agg(what order by place))[1:2] = '{checkpoint,litellm_user}') batches";
    let sent = async || pair.ask(short).await.parse::<u32>().unwrap();
    let (mut number, mut before) = (0, sent().await);
    for round in 0..12 {
        // Dies with changes on their way, after a few more batches each time.
        loop {
            number += 1;
            let name = format!("user_alias = 'Round {round}, change {number}'");
            pair.litellm(&change(&format!("a{}", 1 + number % 40), &name)).await;
            if number % 3 == 0 {
                pair.litellm(&person(&format!("n{number}"), &format!("n{number}@x.test"))).await;
            }
            if sent().await > before + round {
                break;
            }
            assert!(number < 20_000, "nothing is sent so");
        }
        daemon.kill9();
        before = sent().await;
        daemon = Daemon::start(&pair);
    }
    assert_eq!(pair.settle().await, 0);
    assert_in_step(&pair).await;
    reference::assert_exactly_once(&pair).await;
    assert_audited_once(&pair).await;
}
