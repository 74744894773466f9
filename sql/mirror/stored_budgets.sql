-- Which budgets are stored as used up. Runs on: target.
select kind, id, team_id, "limit", resets_at from budget_closed
