-- Our own state in the target. Runs on: target, with search_path set to our schema. Run once, in order.
-- Nothing here refers to an object of Open WebUI: it would stand in the way of its migrations.

create table checkpoint (
    one                  boolean primary key default true check (one),
    generation           uuid        not null,
    system_identifier    text        not null,
    timeline             integer     not null,
    database_oid         bigint      not null,
    slot                 text        not null,
    consistent_point     pg_lsn      not null,
    end_lsn              pg_lsn      not null,
    committed_at         timestamptz,
    committed_end        pg_lsn,
    transactions_applied bigint      not null default 0,
    changes_applied      bigint      not null default 0,
    epoch                bigint      not null default 1,
    projected_with       text        not null default 'pending',
    expired_through      timestamptz,
    columns_fingerprint  text        not null default '',
    copy_because         text,
    updated_at           timestamptz not null default now()
) with (fillfactor = 10);
comment on table checkpoint is
    'One row: everything LiteLLM committed before end_lsn is applied here, exactly once. Written in the transaction that applies it.';
comment on column checkpoint.committed_end is
    'Where the newest applied transaction with changes ended, committed_at when: by them we know the history again.';
comment on column checkpoint.copy_because is 'Why the stream must not go on from here: the next start copies everything. NULL: it may.';
comment on column checkpoint.epoch is 'Raised by each leader; a batch of an older leader cannot commit.';
comment on column checkpoint.projected_with is
    'The policy, layout and program the Open WebUI rows were last made with; pending: not made yet.';

create table policy (
    one            boolean primary key default true check (one),
    account_adopt  boolean not null default true,
    adopt_admins   boolean not null default false,
    relink         boolean not null default true,
    demote_always  boolean not null default false,
    name_with_team boolean not null default true
);
comment on table policy is 'What the configuration says, for the views below. Written by the leader at start.';
insert into policy default values;

-- ---------------------------------------------------------------- the ledger: what we made or adopted

create table account (
    user_id     text collate "C" primary key,
    webui_id    text collate "C",
    email       text collate "C" not null,
    origin      text    not null check (origin in ('created', 'adopted')),
    active      boolean not null default true,
    in_step     boolean not null default true,
    gave_admin  boolean not null default false,
    former_role text,
    before      jsonb
);
comment on table account is 'Which Open WebUI account belongs to which LiteLLM user.';
comment on column account.webui_id is 'NULL: the account has the id made from user_id (webui_user_id).';
comment on column account.email is 'The e-mail the account holds.';
comment on column account.active is 'false: its person left LiteLLM; the account is locked and kept.';
comment on column account.in_step is
    'The person is active in LiteLLM under the e-mail the account holds. Keeps the index below almost empty.';
comment on column account.gave_admin is 'The admin role came from us, so we may take it back.';
comment on column account.former_role is 'The role it had before it was locked.';
comment on column account.before is 'Adopted accounts: name, role and active flag as they were found.';
create unique index account_webui_id on account (webui_id) where webui_id is not null;
create index account_email on account (email) where not in_step;

create table group_link (
    kind       text collate "C" not null check (kind in ('organization', 'team')),
    litellm_id text collate "C" not null,
    webui_id   text collate "C" not null unique,
    origin     text    not null check (origin in ('created', 'found')),
    present    boolean not null default true,
    primary key (kind, litellm_id)
);
comment on table group_link is
    'Which Open WebUI group stands for which organization or team. found: the row was there before us and is not ours.';
comment on column group_link.present is 'false: gone from LiteLLM, but something in Open WebUI still refers to the group.';

create table member (
    group_id text collate "C" not null,
    user_id  text collate "C" not null,
    primary key (group_id, user_id)
);
create index member_user_id on member (user_id);
comment on table member is 'The group members we put there, by Open WebUI ids. Others are left alone.';

-- ---------------------------------------------------------------- what happened

create table sync_audit (
    id            bigint generated always as identity,
    operation     varchar(20) not null,
    record_id     text,
    sync_result   varchar(20) not null check (sync_result in ('SUCCESS', 'FAILED', 'SKIPPED')),
    old_data      jsonb,
    new_data      jsonb,
    error_message text,
    created_at    timestamptz not null,
    lsn           pg_lsn
);
comment on table sync_audit is
    'One row per entity and batch (one per kind of operation in a copy). lsn: the end of the batch it belongs to.';
-- A plain primary key would cost a tenth of a large batch; id is unique because it is generated.
create index sync_audit_created_at on sync_audit using brin (created_at);
-- autosummarize: the newest rows are looked at every few seconds (target/audit_tail.sql).
create index sync_audit_id on sync_audit using brin (id) with (autosummarize = on);

create table dead_letter (
    kind         text collate "C" not null,
    key          text collate "C" not null,
    operation    varchar(20) not null,
    sqlstate     text,
    reason       text        not null,
    critical     boolean     not null default false,
    first_seen   timestamptz not null,
    last_seen    timestamptz not null,
    attempts     integer     not null default 1,
    primary key (kind, key)
);
comment on table dead_letter is
    'Entities that could not be written. Nothing is queued: the mirror has their newest state, and a retry is the difference for that entity.';

create table skipped (
    user_id text collate "C" primary key,
    reason  text not null,
    since   timestamptz not null
);
comment on table skipped is 'LiteLLM users who get no account, and why.';

create table brake (
    id          bigint generated always as identity primary key,
    end_lsn     pg_lsn      not null,
    people      integer     not null,
    active      integer     not null,
    reason      text        not null,
    -- The resnapshot whose merge is held; NULL: a batch of the stream, which waits.
    resnapshot  bigint,
    raised_at   timestamptz not null default now(),
    approved_at timestamptz,
    used_at     timestamptz
);
comment on table brake is
    'Batches that would lock out unusually many people, held until approved.';

create table backfill (
    id          bigint generated always as identity primary key,
    reason      text        not null,
    slot        text        not null,
    healing     boolean     not null,
    point       pg_lsn,
    started_at  timestamptz not null default now(),
    finished_at timestamptz
);
comment on table backfill is
    'Copies of LiteLLM''s existing rows. An unfinished one explains a slot without a checkpoint.';
comment on column backfill.healing is 'The daemon decided by itself that it was needed: these are limited to a few an hour.';
comment on column backfill.point is 'The consistent point of its slot; NULL: no slot could be made, and no row was read.';

create table resnapshot (
    id           bigint generated always as identity primary key,
    request      uuid        not null unique,
    -- LiteLLM's names; empty is all of them.
    tables       text[]      not null,
    dry_run      boolean     not null,
    requested_at timestamptz not null default now(),
    not_before   timestamptz not null default now(),
    phase        text        not null default 'waiting',
    attempts     integer     not null default 0,
    rows_copied  bigint      not null default 0,
    progress_at  timestamptz not null default now(),
    lsn          pg_lsn,
    error        text,
    drift        jsonb,
    finished_at  timestamptz
);
comment on table resnapshot is
    'Copies asked for while the stream lives. One that is not finished runs again: nothing is changed before its merge.';

create table resnapshot_difference (
    resnapshot  bigint not null references resnapshot on delete cascade,
    operation   text   not null,
    record_id   text,
    sync_result text   not null,
    old_data    jsonb,
    new_data    jsonb
);
create index resnapshot_difference_resnapshot on resnapshot_difference (resnapshot);
comment on table resnapshot_difference is 'Open WebUI rows that were not what they should be when a resnapshot looked.';

create table pause (
    one    boolean primary key default true check (one),
    reason text,
    since  timestamptz not null default now()
);
comment on table pause is 'A row here keeps the daemon from applying anything; LiteLLM''s server keeps the WAL meanwhile.';

create table daemon (
    one          boolean primary key default true check (one),
    instance     uuid        not null,
    state        text        not null,
    reason       text,
    layout       text,
    heartbeat_at timestamptz not null default now()
);
comment on table daemon is 'What the running daemon says of itself, for status.';
