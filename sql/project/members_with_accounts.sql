-- Of those whose groups may have changed, whose account is looked at all the same: it is not there, or something of theirs could not be written.
-- Runs on: target, first of the projection. :members gives LiteLLM user ids. Returns rows (id).
select m.id
  from :members as m(id)
  left join account a on a.user_id = m.id
  left join "user" w on w.id = coalesce(a.webui_id, 'usr_' || a.user_id) collate "default"
 where w.id is null
    or exists (select from dead_letter l where l.kind in ('account', 'api_key', 'last_admin') and l.key = m.id)
