-- The scheduled verify. Runs on: target, search_path = our schema.

alter table resnapshot add column scheduled boolean not null default false;
comment on column resnapshot.scheduled is 'Asked for by the timer ([verify] of the policy), and by nobody in particular.';

create table verify_schedule (
    one     boolean primary key default true check (one),
    next_at timestamptz not null
);
comment on table verify_schedule is 'When the next scheduled verify is due. Kept here, so that one missed while no daemon ran is made up for.';
