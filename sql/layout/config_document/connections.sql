-- Open WebUI's connections to model servers (one document; before 0.10.0). Runs on: target.
-- Returns one row of JSON texts, NULL where nothing is set: urls, configs.
select (select data #>> '{openai,api_base_urls}' from config order by id desc limit 1) as urls,
       (select data #>> '{openai,api_configs}' from config order by id desc limit 1) as configs
