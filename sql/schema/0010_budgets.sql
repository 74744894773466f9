-- Budgets that close paths to models, and what people spend by chatting. Runs on: target, search_path = our schema.
create table budget_closed (
    kind      text collate "C" not null check (kind in ('user', 'key', 'team', 'organization', 'team_member', 'customer')),
    id        text collate "C" not null,
    team_id   text collate "C" not null default '',
    email     text collate "C",
    spend     double precision not null,
    "limit"   double precision,
    resets_at timestamptz,
    since     timestamptz not null,
    primary key (kind, id, team_id)
);
comment on table budget_closed is 'Budgets of LiteLLM''s that are used up, where access.budgets is "enforce". Written by the batch that crossed the limit.';
comment on column budget_closed.id is 'LiteLLM''s id; of a team_member the user''s, of a key its token as litellm_key has it.';
comment on column budget_closed.email is 'What a customer is called, as litellm_user.email.';
comment on column budget_closed.spend is 'In US dollars, when it was closed or its limit changed. What is spent since is not written here.';
comment on column budget_closed."limit" is 'NULL: LiteLLM blocks it.';

create index budget_closed_email on budget_closed (email) where email is not null;

create table chat_spend (
    customer_id  text collate "C" primary key,
    spend        double precision not null,
    counted_from double precision not null,
    resets_at    timestamptz
);
comment on table chat_spend is 'LiteLLM''s customers who are people with a budget, by their e-mail, where budgets.chats is "customer": their spend at the checkpoint.';
comment on column chat_spend.counted_from is 'What was spent before the window of the user''s budget, which ends at resets_at: only the rest counts.';

create table chat_window (
    user_id   text collate "C" primary key,
    resets_at timestamptz,
    has_spent boolean not null
);
comment on table chat_window is 'LiteLLM''s users with a budget and an e-mail, where budgets.chats is "customer": how their rows were at the checkpoint, so that a reset is told from a row that is sent again.';
comment on column chat_window.has_spent is 'Their own spend was more than 0.';

alter table policy add column plain_ids boolean not null default false;
comment on column policy.plain_ids is 'New accounts get LiteLLM''s user_id as their id, where Open WebUI can hold it.';
