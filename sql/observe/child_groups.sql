-- Groups that somebody put under one of our access groups (0.12.0 and newer): their members have its models, whatever LiteLLM says.
-- Runs on: target. Returns (name), in order.
select c.name::text as name from "group" c join access_group a on c.parent_group_id = a.webui_id collate "default" order by 1
