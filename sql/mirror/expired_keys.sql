-- Whose keys expired since we last looked: nothing is written to LiteLLM's stream when one does. Runs on: target.
-- $1 when we last looked (timestamptz, NULL: never), $2 now (timestamptz). Returns (kind 'rights', id).
--
-- Compared as text, for the index litellm_key_expires. Zeros at the end of the fraction are not sent, hence a lower
-- bound that is a little early: who is found once too often is found in order.
select distinct 'rights' as kind, k.user_id as id
  from litellm_key k
 where k.expires collate "C" >= coalesce(to_char(($1 - interval '2 ms') at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS'), '')
   and k.expires collate "C" <= to_char($2 at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS')
   and k.user_id is not null
