-- Brings account.in_step in line, before the projection asks who holds which e-mail: it says that the account's person is
-- active under the e-mail the account holds. Runs on: target. :users gives the user ids.
update account a set in_step = not a.in_step
  from (select id as user_id from :users as given(id)) t
 where a.user_id = t.user_id
   and a.in_step <> (a.active and exists (select from person p
                                           where p.user_id = a.user_id and p.unusable_because is null
                                             and p.email = a.email))
