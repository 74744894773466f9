-- Whether nothing of ours is about models: nobody has any, and no row, group or grant was made. Runs on: target.
select not exists (select from effective_access) and not exists (select from model_row)
   and not exists (select from access_group) and not exists (select from model_grant)
