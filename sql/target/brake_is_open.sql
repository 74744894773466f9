-- Whether any batch is held, approved or not. Runs on: target.
select exists (select from brake where used_at is null and resnapshot is null)
