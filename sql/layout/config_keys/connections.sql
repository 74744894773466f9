-- Open WebUI's connections to model servers (a row per key; 0.10.0 and newer). Runs on: target.
-- Returns one row of JSON texts, NULL where nothing is set: urls, configs.
select (select value::text from config where key = 'openai.api_base_urls') as urls,
       (select value::text from config where key = 'openai.api_configs') as configs
