-- What becomes of Open WebUI's rows of models: before (was_model) against after (is_model). Runs on: target, in the session
-- of a plan. Returns action (create, activate, retire, take), model_id. take: public before, and not any more.
select case
           when w.id is null then 'create'
           when i.is_active and not w.is_active then 'activate'
           when w.is_active and not i.is_active then 'retire'
           else 'take'
       end as action, i.id::text as model_id
  from is_model i left join was_model w on w.id = i.id
 where w.id is null or i.is_active <> w.is_active or (w.is_public and not i.is_public)
 order by 1, i.id collate "C"
