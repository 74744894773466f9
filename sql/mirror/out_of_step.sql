-- Marks accounts whose person no longer is active under the e-mail the account holds, before the
-- projection asks who holds which e-mail. Runs on: target. :users gives the user ids.
update account a set in_step = false
  from :users as given(id)
 where a.user_id = given.id and a.in_step
   and not exists (select from person p
                    where p.user_id = a.user_id and p.unusable_because is null and p.email = a.email)
