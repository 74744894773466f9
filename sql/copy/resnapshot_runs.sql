-- Whether a daemon copies right now. Runs on: target. A copy says so table by table; one that died stops saying so.
select exists (select from resnapshot where finished_at is null and progress_at > now() - interval '5 minutes'
                  and (phase like 'copying%' or phase in ('making a snapshot', 'merging')))
