-- What keys are called, for those that are shown. Runs on: source. :schema LiteLLM's schema, :which who: by stored token or by
-- hash of it, with $1 and $2. Returns (ids, aliases, email).
select array[k.token] as ids, array[k.key_alias] as aliases, null::text as email
  from :schema."LiteLLM_VerificationToken" k
 where :which
