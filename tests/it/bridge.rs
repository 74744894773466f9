//! Coming from a trigger bridge: it is found and named, its rows are taken over, nothing is doubled.
//!
//! The bridge of this test writes what the real one writes, through dblink where the server has that, else by itself.

use testbed::{Schema, execute};

use crate::support::compare::{Foreign, assert_in_step_with};
use crate::support::daemon::run;
use crate::support::{Daemon, Pair, PairOptions, change, gone, key, organization, person, token};
use serde_json::Value;

/// Its tables, functions and triggers. `address` is dblink's of Open WebUI's database.
fn install(address: &str) -> String {
    format!(
        r#"create table sync_audit (id serial primary key, operation varchar(20) not null, record_id text not null,
               sync_result varchar(20) not null, old_data jsonb, new_data jsonb, error_message text, created_at timestamp default now());
           create table sync_mapping (id serial primary key, litellm_type varchar(20) not null, litellm_id text not null,
               openwebui_type varchar(20) not null, openwebui_id text not null, sync_data jsonb default '{{}}',
               created_at timestamp default now(), unique (litellm_type, litellm_id));
           create function sync_user_to_openwebui() returns trigger language plpgsql as $f$
           begin
               perform dblink_exec('{address}', format('insert into "user" (id, email, name, role, settings, info, profile_image_url,
                       last_active_at, created_at, updated_at) values (%L, %L, %L, %L, ''{{}}'', %L, ''/static/p.png'', 1, 1, 1)
                   on conflict (id) do update set email = excluded.email, name = excluded.name, role = excluded.role',
                   'usr_' || new.user_id, new.user_email, coalesce(new.user_alias, 'User'),
                   case when new.user_role in ('proxy_admin', 'proxy_admin_viewer') then 'admin' else 'user' end,
                   json_build_object('team_id', new.team_id, 'original_user_id', new.user_id)::text));
               perform dblink_exec('{address}', format('insert into auth (id, email, password, active)
                       values (%L, %L, crypt(%L, gen_salt(''bf'', 4)), true) on conflict (id) do update set email = excluded.email',
                   'usr_' || new.user_id, new.user_email, new.user_email));
               insert into sync_mapping (litellm_type, litellm_id, openwebui_type, openwebui_id)
               values ('user', new.user_id, 'user', 'usr_' || new.user_id) on conflict do nothing;
               return new;
           end $f$;
           create function sync_organization_to_group() returns trigger language plpgsql as $f$
           begin
               perform dblink_exec('{address}', format('insert into "group" (id, name, description, meta, created_at, updated_at)
                       values (%L, %L, %L, %L, 1, 1) on conflict (id) do update set name = excluded.name',
                   'grp_' || new.organization_id, new.organization_alias, new.organization_alias || ' organization',
                   json_build_object('organization_id', new.organization_id, 'spend', new.spend)::text));
               insert into sync_mapping (litellm_type, litellm_id, openwebui_type, openwebui_id)
               values ('organization', new.organization_id, 'group', 'grp_' || new.organization_id) on conflict do nothing;
               return new;
           end $f$;
           create function sync_api_key_to_webui() returns trigger language plpgsql as $f$
           begin
               perform dblink_exec('{address}',
                   format('update "user" set api_key = %L where id = %L', new.token, 'usr_' || new.user_id));
               return new;
           end $f$;
           create function check_sync_status() returns bigint language sql as 'select count(*) from sync_mapping';
           create trigger user_sync_trigger after insert or update on "LiteLLM_UserTable"
               for each row execute function sync_user_to_openwebui();
           create trigger organization_sync_trigger after insert or update on "LiteLLM_OrganizationTable"
               for each row execute function sync_organization_to_group();
           create trigger trigger_sync_api_key_to_webui after insert or update on "LiteLLM_VerificationToken"
               for each row when (new.user_id is not null) execute function sync_api_key_to_webui();"#
    )
}

/// What the triggers do, where the server has no dblink.
fn by_hand() -> String {
    let user = |id: &str, email: &str, role: &str| {
        let hash = bcrypt::hash(email, 4).unwrap().replacen("$2b$", "$2a$", 1);
        format!(
            "insert into \"user\" (id, email, name, role, settings, info, profile_image_url, last_active_at, created_at, updated_at)
             values ('usr_{id}', '{email}', 'User', '{role}', '{{}}', '{{\"team_id\" : null, \"original_user_id\" : \"{id}\"}}', '/static/p.png', 1, 1, 1);
             insert into auth (id, email, password, active) values ('usr_{id}', '{email}', '{hash}', true);"
        )
    };
    [
        user("alice", "alice@x.test", "user"),
        user("boss", "boss@x.test", "admin"),
        user("viewer", "viewer@x.test", "admin"),
        user("carol", "Carol@X.test", "user"),
        user("mover", "old@x.test", "user"),
        "insert into \"group\" (id, name, description, meta, created_at, updated_at)
         values ('grp_o', 'O', 'O organization', '{\"organization_id\": \"o\", \"spend\": 0}', 1, 1);"
            .to_owned(),
        format!("update \"user\" set api_key = {} where id = 'usr_alice';", token("k")),
    ]
    .concat()
}

fn litellm() -> String {
    [
        organization("o", "O"),
        person("alice", "alice@x.test"),
        person("boss", "boss@x.test"),
        person("viewer", "viewer@x.test"),
        person("carol", "Carol@X.test"),
        person("mover", "old@x.test"),
        change("boss", "user_role = 'proxy_admin'"),
        change("viewer", "user_role = 'proxy_admin_viewer'"),
        change("alice", "organization_id = 'o'"),
        key("k", "alice"),
    ]
    .concat()
}

fn doctor(pair: &Pair) -> Vec<(String, Value)> {
    let (_, out, error) = run(pair, &["doctor", "--json"]);
    let checks: Vec<Value> = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{error}"));
    checks
        .into_iter()
        .filter(|check| check["verdict"] != "fine")
        .map(|check| (check["name"].as_str().unwrap().to_owned(), check))
        .collect()
}

fn fix_of(checks: &[(String, Value)], name: &str) -> String {
    let found = checks.iter().find(|(known, _)| known == name);
    let (_, check) = found.unwrap_or_else(|| panic!("no {name} in {checks:?}"));
    let fix = check["fix"].as_str().unwrap();
    fix.split_once("database").and_then(|(_, rest)| rest.split_once(": ")).unwrap().1.to_owned()
}

#[tokio::test]
async fn its_accounts_groups_and_keys_are_taken_over_and_doctor_says_how_to_be_rid_of_it() {
    let pair = Pair::with(PairOptions { webui: Schema::OpenWebUi0_6_30, ..PairOptions::default() }).await;
    let database = pair.target.rsplit('/').next().unwrap();
    let port = pair.ask("show port").await;
    let address = format!("host=127.0.0.1 port={port} dbname={database} user=postgres password=bridge");
    let has_dblink =
        pair.ask("select count(*) from pg_available_extensions where name in ('dblink', 'pgcrypto')").await
            == "2";
    if has_dblink {
        pair.webui("create extension pgcrypto").await;
        pair.litellm("create extension dblink").await;
        pair.litellm(&install(&address)).await;
        pair.litellm(&litellm()).await;
    } else {
        pair.litellm(&litellm()).await;
        pair.litellm(&install(&address)).await;
        pair.webui(&by_hand()).await;
    }
    assert_eq!(pair.account("carol@x.test").await, "usr_carol|User|user|active");
    assert_eq!(pair.account("viewer@x.test").await, "usr_viewer|User|admin|active");
    // It is named, with what to do, and without the password in its functions.
    let checks = doctor(&pair);
    let fix = fix_of(&checks, "trigger bridge");
    assert!(!format!("{checks:?}").contains("password=bridge"));
    assert!(
        checks
            .iter()
            .any(|(name, check)| name == "passwords that are the e-mail" && check["found"] == "5 accounts"),
        "{checks:?}"
    );
    let (code, out, error) = run(&pair, &["plan"]);
    assert!(code == 0 && out.contains("trigger bridge"), "{out}{error}");
    assert!(out.contains("accounts  5 adopt") && out.contains("failures  0"), "{out}");
    let (sql, _) = fix.split_once(" commit;").unwrap();
    execute(&pair.source, &format!("{sql} commit;")).await.unwrap_or_else(|error| panic!("{error:#}: {sql}"));
    let left = "select (select count(*) from pg_trigger t join pg_class c on c.oid = tgrelid where not tgisinternal and relname like 'LiteLLM%')
                     + (select count(*) from pg_class where relname in ('sync_audit', 'sync_mapping'))
                     + (select count(*) from pg_proc where pronamespace = 'public'::regnamespace and prosrc ~ 'sync_mapping|perform dblink')";
    assert_eq!(pair.ask_litellm(left).await, "0");
    // Changed since, by LiteLLM alone.
    pair.litellm(&change("mover", "user_email = 'new@x.test'")).await;
    let _daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 0, "{}", pair.dead_letters().await);
    assert_eq!(pair.ask("select count(*) from \"user\"").await, "6");
    assert_eq!(pair.ask("select count(*) from \"group\"").await, "1");
    assert_eq!(pair.ask("select count(*) from auth").await, "6");
    assert_eq!(pair.account("boss@x.test").await, "usr_boss|boss|admin|active");
    // An admin for the bridge's sake, and not for LiteLLM's.
    assert_eq!(pair.account("viewer@x.test").await, "usr_viewer|viewer|user|active");
    assert_eq!(pair.account("new@x.test").await, "usr_mover|new|user|active");
    // Its group is ours by now, and what would break Open WebUI's page of groups is mended.
    assert_eq!(
        pair.ask("select concat_ws('|', name, user_id is not null, data is not null) from \"group\"").await,
        "O|t|t"
    );
    assert_eq!(pair.ask("select user_ids::text from \"group\"").await, "[\"usr_alice\"]");
    // The copied hash opened nothing; this does.
    assert!(pair.ask("select api_key from \"user\" where id = 'usr_alice'").await.starts_with("sk-"));
    assert_in_step_with(&pair, &Foreign::default()).await;
    let checks = doctor(&pair);
    assert!(checks.iter().all(|(name, _)| name != "trigger bridge"), "{checks:?}");
    // One of them is made of an e-mail that was in capitals then, another of one that is gone.
    let found = &checks.iter().find(|(name, _)| name == "passwords that are the e-mail").unwrap().1["found"];
    assert_eq!(found, "5 accounts");
    let fix = fix_of(&checks, "passwords that are the e-mail");
    let chosen = "$2b$12$chosen";
    pair.webui(&format!("update auth set password = '{chosen}' where id = 'usr_boss'")).await;
    let (sql, _) = fix.split_once("; (").unwrap();
    pair.webui(sql).await;
    assert_eq!(
        pair.ask("select string_agg(password, '' order by id) from auth where id like 'usr%'").await,
        chosen
    );
    assert!(doctor(&pair).iter().all(|(name, _)| name != "passwords that are the e-mail"));
    // Ours like any other: the organization goes, and so does its group.
    pair.litellm(&[gone("mover"), "delete from \"LiteLLM_OrganizationTable\"".to_owned()].concat()).await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.ask("select count(*) from \"group\"").await, "0");
    assert!(pair.account("new@x.test").await.ends_with("|pending|locked"));
}

#[tokio::test]
async fn after_an_upgrade_of_open_webui_its_rows_are_still_known() {
    let pair = Pair::new().await;
    pair.litellm(
        &[person("alice", "alice@x.test"), person("bob", "bob@x.test"), key("k", "alice"), key("l", "bob")]
            .concat(),
    )
    .await;
    // As Open WebUI's migrations leave them: info is JSON, keys have a table.
    pair.webui(&format!(
        "insert into \"user\" (id, email, name, role, info, profile_image_url, last_active_at, created_at, updated_at)
         select 'usr_' || n, n || '@before.test', 'User', 'user', json_build_object('original_user_id', n)::jsonb::json, 'p', 1, 1, 1
           from (values ('alice'), ('bob')) p(n);
         insert into auth (id, email, password, active) select id, email, '', true from \"user\" where id like 'usr%';
         insert into api_key (id, user_id, key, created_at, updated_at)
         values ('key_usr_alice', 'usr_alice', {}, 1, 1), ('key_usr_bob', 'usr_bob', 'sk-of-his-own', 1, 1)",
        token("k")
    ))
    .await;
    let _daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 0, "{}", pair.dead_letters().await);
    assert_eq!(pair.account("alice@x.test").await, "usr_alice|alice|user|active");
    assert_eq!(pair.ask("select count(*) from api_key").await, "2");
    assert!(pair.ask("select key from api_key where user_id = 'usr_alice'").await.starts_with("sk-"));
    assert_eq!(pair.ask("select key from api_key where user_id = 'usr_bob'").await, "sk-of-his-own");
    assert_in_step_with(&pair, &Foreign::default()).await;
}
