-- Writes the policy where the views read it. Runs on: target. $1 adopt accounts, $2 admins too, $3 link people anew,
-- $4 always demote, $5 put the team into names, $6 new accounts get LiteLLM's ids (all boolean).
update policy
   set account_adopt = $1, adopt_admins = $2, relink = $3, demote_always = $4, name_with_team = $5, plain_ids = $6
