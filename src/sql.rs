//! Every file of `sql/` as a named constant; nothing else reads them.
//!
//! Statements are complete as they stand, apart from `:name` places. They are psql variables
//! (`\set users …` makes a file run by hand) and are filled in here: what a set of keys is read
//! from (see [`TouchedFrom`]), and the pieces that depend on the layout of Open WebUI.

macro_rules! files {
    ($($(#[$doc:meta])* $name:ident = $path:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = include_str!(concat!("../sql/", $path));)*
        /// Every file with its path, for the tests that look for forgotten ones.
        pub const ALL: &[(&str, &str)] = &[$(($path, $name)),*];
    };
}

files! {
    SCHEMA_STATE = "schema/0001_state.sql";
    SCHEMA_MIRROR = "schema/0002_mirror.sql";
    SCHEMA_ACCESS = "schema/0003_access.sql";
    SCHEMA_API_KEY = "schema/0004_api_key.sql";
    SCHEMA_VERIFY = "schema/0005_verify.sql";
    SCHEMA_REWRITTEN = "schema/0006_rewritten.sql";
    SCHEMA_CLEAR_KEYS = "schema/0007_clear_keys.sql";
    SCHEMA_KEY_TEAMS = "schema/0008_key_teams.sql";
    SCHEMA_MODEL_TAGS = "schema/0009_model_tags.sql";
    SCHEMA_BUDGETS = "schema/0010_budgets.sql";
    IDS = "desired/0_ids.sql";
    PERSON = "desired/1_person.sql";
    DESIRED_ACCOUNT = "desired/2_account.sql";
    DESIRED_GROUP = "desired/3_group.sql";
    DESIRED_MEMBER = "desired/4_member.sql";
    KEY = "desired/5_key.sql";
    ACCESS_VIEWS = "desired/6_access.sql";
    BUDGET_VIEWS = "desired/7_budget.sql";
    ACCESS_OF_EMAIL = "operate/access/of_email.sql";
    ACCESS_BUDGETS = "operate/access/budgets.sql";
    ACCESS_IS_UNUSED = "project/access_is_unused.sql";
    ACCESS_GIVEN = "access/given.sql";
    ACCESS_GIVEN_TOGETHER = "access/given_together.sql";
    ACCESS_OF_PEOPLE = "access/of_people.sql";
    ACCESS_OF_EVERYBODY = "access/of_everybody.sql";
    ACCESS_OF_ORGANIZATIONS = "access/of_organizations.sql";
    ACCESS_OF_TEAMS = "access/of_teams.sql";
    ACCESS_ROSTER_TEAMS = "access/roster_teams.sql";
    ACCESS_KEY_TEAMS = "access/key_teams.sql";
    ACCESS_OF_KEYS = "access/of_keys.sql";
    USER_NAMES = "budgets/user_names.sql";
    KEY_NAMES = "budgets/key_names.sql";
    TEAM_NAMES = "budgets/team_names.sql";
    ORGANIZATION_NAMES = "budgets/organization_names.sql";
    MEMBER_NAMES = "budgets/member_names.sql";
    SPENT_BEFORE = "budgets/spent_before.sql";
    CUSTOMER_NAMES = "budgets/customer_names.sql";
    STORE_BUDGETS = "mirror/store_budgets.sql";
    STORE_CHATS = "mirror/store_chats.sql";
    STORE_WINDOWS = "mirror/store_windows.sql";
    STORED_BUDGETS = "mirror/stored_budgets.sql";
    STORED_CHATS = "mirror/stored_chats.sql";
    STORED_WINDOWS = "mirror/stored_windows.sql";
    REACH = "mirror/reach.sql";
    TEAM_ROSTER = "mirror/team_roster.sql";
    TEAM_PEOPLE = "mirror/team_people.sql";
    RIGHTS_PEOPLE = "mirror/rights_people.sql";
    EMAIL_PEERS = "mirror/email_peers.sql";
    OUT_OF_STEP = "mirror/out_of_step.sql";
    EXPIRED_KEYS = "mirror/expired_keys.sql";
    GROUP_MEMBER_MEMBERS = "layout/group_member/members.sql";
    GROUP_MEMBER_ACCESS_MEMBERS = "layout/group_member/access_members.sql";
    GROUP_MEMBER_GROUPS_OF = "layout/group_member/groups_of.sql";
    GROUP_MEMBER_LEAVE_ACCESS_GROUPS = "layout/group_member/leave_access_groups.sql";
    GROUP_MEMBER_PLAN = "layout/group_member/plan.sql";
    GROUP_MEMBER_PURGE = "layout/group_member/purge.sql";
    GROUP_USER_IDS_MEMBERS = "layout/group_user_ids/members.sql";
    GROUP_USER_IDS_ACCESS_MEMBERS = "layout/group_user_ids/access_members.sql";
    GROUP_USER_IDS_CHANGES = "layout/group_user_ids/changes.sql";
    GROUP_USER_IDS_GROUPS_OF = "layout/group_user_ids/groups_of.sql";
    GROUP_USER_IDS_LEAVE_ACCESS_GROUPS = "layout/group_user_ids/leave_access_groups.sql";
    GROUP_USER_IDS_PLAN = "layout/group_user_ids/plan.sql";
    GROUP_USER_IDS_PURGE = "layout/group_user_ids/purge.sql";
    API_KEY_HELD = "layout/api_key/held.sql";
    API_KEY_DELETE = "layout/api_key/delete.sql";
    API_KEY_MINT = "layout/api_key/mint.sql";
    API_KEY_PLAN = "layout/api_key/plan.sql";
    API_KEY_PURGE = "layout/api_key/purge.sql";
    USER_API_KEY_HELD = "layout/user_api_key/held.sql";
    USER_API_KEY_DELETE = "layout/user_api_key/delete.sql";
    USER_API_KEY_MINT = "layout/user_api_key/mint.sql";
    USER_API_KEY_PLAN = "layout/user_api_key/plan.sql";
    USER_API_KEY_PURGE = "layout/user_api_key/purge.sql";
    NEW_KEY = "layout/new_key.sql";
    ACCESS_GRANT_GRANTS = "layout/access_grant/grants.sql";
    ACCESS_GRANT_TAKE = "layout/access_grant/take.sql";
    ACCESS_GRANT_PUBLIC = "layout/access_grant/public.sql";
    ACCESS_GRANT_SEES = "layout/access_grant/sees.sql";
    ACCESS_GRANT_PLAN = "layout/access_grant/plan.sql";
    ACCESS_GRANT_PURGE = "layout/access_grant/purge.sql";
    MODEL_ACCESS_CONTROL_GRANTS = "layout/model_access_control/grants.sql";
    MODEL_ACCESS_CONTROL_TAKE = "layout/model_access_control/take.sql";
    MODEL_ACCESS_CONTROL_PUBLIC = "layout/model_access_control/public.sql";
    MODEL_ACCESS_CONTROL_SEES = "layout/model_access_control/sees.sql";
    MODEL_ACCESS_CONTROL_PLAN = "layout/model_access_control/plan.sql";
    MODEL_ACCESS_CONTROL_PURGE = "layout/model_access_control/purge.sql";
    CONFIG_KEYS_CONNECTIONS = "layout/config_keys/connections.sql";
    CONFIG_DOCUMENT_CONNECTIONS = "layout/config_document/connections.sql";
    EMAIL_UNIQUE_HOLDER = "layout/email_unique/holder.sql";
    EMAIL_NOT_UNIQUE_HOLDER = "layout/email_not_unique/holder.sql";
    ACCOUNT_DIFFERENCE = "project/account_difference.sql";
    PLAIN_NEW = "project/plain_new.sql";
    PLAIN_RENAMED = "project/plain_renamed.sql";
    NEW_ACCOUNTS = "project/new_accounts.sql";
    NEW_USER = "project/new_user.sql";
    CREATE_ACCOUNTS = "project/create_accounts.sql";
    VACATE_EMAILS = "project/vacate_emails.sql";
    LINK_ACCOUNTS = "project/link_accounts.sql";
    UPDATE_ACCOUNTS = "project/update_accounts.sql";
    ACTIVE_PEOPLE = "project/active_people.sql";
    CLAIMANTS = "project/claimants.sql";
    HAS_ADMIN = "project/has_admin.sql";
    MERGE_AUDIT = "project/merge_audit.sql";
    GROUPS = "project/groups.sql";
    MEMBERS_WITH_ACCOUNTS = "project/members_with_accounts.sql";
    MEMBER_DIFFERENCE = "project/member_difference.sql";
    MEMBER_AUDIT = "project/member_audit.sql";
    DESIRED_MEMBERS_OF_KEYS = "project/desired_members_of_keys.sql";
    DESIRED_MEMBERS_OF_MANY = "project/desired_members_of_many.sql";
    DESIRED_MEMBERS_OF_ALL = "project/desired_members_of_all.sql";
    REMOVE_GROUPS = "project/remove_groups.sql";
    MODEL_ROWS = "project/model_rows.sql";
    STORE_ACCESS = "project/store_access.sql";
    ACCESS_GROUPS = "project/access_groups.sql";
    ACCESS_MEMBER_DIFFERENCE = "project/access_member_difference.sql";
    GRANT_DIFFERENCE = "project/grant_difference.sql";
    REMOVE_ACCESS_GROUPS = "project/remove_access_groups.sql";
    KEY_DIFFERENCE = "project/key_difference.sql";
    MINT_LATER = "project/mint_later.sql";
    KEY_STATES_OF_ONE = "project/key_states_of_one.sql";
    KEY_STATES_OF_ALL = "project/key_states_of_all.sql";
    MINT_BOOKS = "project/mint_books.sql";
    BEGIN_BATCH = "target/begin_batch.sql";
    ADVANCE = "target/advance.sql";
    ADVANCE_FIRST = "target/advance_first.sql";
    END_BATCH = "target/end_batch.sql";
    READ_CHECKPOINT = "target/read_checkpoint.sql";
    TAKE_LEAD = "target/take_lead.sql";
    NEW_GENERATION = "target/new_generation.sql";
    ACCEPT_SOURCE = "target/accept_source.sql";
    HEALED_LATELY = "copy/healed_lately.sql";
    FAILED_LATELY = "target/failed_lately.sql";
    DEAD_LETTER = "target/dead_letter.sql";
    CREATE_MINTING = "project/create_minting.sql";
    EXPIRED_THROUGH = "target/expired_through.sql";
    COLUMNS = "source/columns.sql";
    TO_ANALYZE = "target/to_analyze.sql";
    HOLDS_LEASE = "target/holds_lease.sql";
    IS_LEASE_HELD = "target/is_lease_held.sql";
    BREAK_LEASE = "target/break_lease.sql";
    LAYOUT = "target/layout.sql";
    OPEN_WEBUI = "target/open_webui.sql";
    WHOSE_SCHEMA = "target/whose_schema.sql";
    BOOKS_VERSION = "target/books_version.sql";
    WRITE_POLICY = "target/write_policy.sql";
    STORE_EXTRA = "target/store_extra.sql";
    STORE_POLLED = "target/store_polled.sql";
    STATUS = "observe/status.sql";
    PURGE_THINGS = "operate/teardown/things.sql";
    PURGE_ACCOUNTS = "operate/teardown/purge_accounts.sql";
    BRAKE_IS_OPEN = "target/brake_is_open.sql";
    BRAKE_WAITING = "target/brake_waiting.sql";
    BRAKE_USE_APPROVAL = "target/brake_use_approval.sql";
    BRAKE_RAISE = "target/brake_raise.sql";
    BRAKE_RELEASE = "target/brake_release.sql";
    BRAKE_APPROVE = "target/brake_approve.sql";
    DEAD_LETTERS_DUE = "target/dead_letters_due.sql";
    COUNTS = "target/counts.sql";
    DEAD_LETTER_CLASSES = "target/dead_letter_classes.sql";
    SKIPPED_REASONS = "target/skipped_reasons.sql";
    GLANCE = "target/glance.sql";
    WAS_ACTIVE = "target/was_active.sql";
    SIZE = "target/size.sql";
    HEARTBEAT = "target/heartbeat.sql";
    OLD_AUDIT = "target/old_audit.sql";
    AUDIT_TAIL = "target/audit_tail.sql";
    ENTITIES = "observe/entities.sql";
    CREATE_TOUCHED = "mirror/create_touched.sql";
    PAUSE = "target/pause.sql";
    PAUSE_REASON = "target/pause_reason.sql";
    FAILURES_LIST = "target/failures_list.sql";
    FAILURES_RETRY = "target/failures_retry.sql";
    FAILURES_DISCARD = "target/failures_discard.sql";
    FAILURES_HISTORY = "target/failures_history.sql";
    INHERITED_GROUPS = "layout/inherited_groups.sql";
    CHILD_GROUPS = "observe/child_groups.sql";
    SHARED_EMAILS = "observe/shared_emails.sql";
    BUDGET_CLOSED_PEOPLE = "observe/budget_closed_people.sql";
    DOCTOR_API_KEYS = "operate/doctor/api_keys.sql";
    DOCTOR_SIGN_IN_GROUPS = "operate/doctor/sign_in_groups.sql";
    DOCTOR_SOURCE = "operate/doctor/source.sql";
    DOCTOR_SOURCE_TABLES = "operate/doctor/source_tables.sql";
    DOCTOR_TARGET = "operate/doctor/target.sql";
    DOCTOR_HAS_BOOKS = "operate/doctor/has_books.sql";
    DOCTOR_BOOKS = "operate/doctor/books.sql";
    DOCTOR_ADMINS = "operate/doctor/admins.sql";
    DOCTOR_SHARED_EMAILS = "operate/doctor/shared_emails.sql";
    DOCTOR_CHATS = "operate/doctor/chats.sql";
    DOCTOR_ACCOUNT_IDS = "operate/doctor/account_ids.sql";
    DOCTOR_BRIDGE_SOURCE = "operate/doctor/bridge_source.sql";
    DOCTOR_BRIDGE_TARGET = "operate/doctor/bridge_target.sql";
    DOCTOR_BRIDGE_PASSWORDS = "operate/doctor/bridge_passwords.sql";
    PLAN_TARGET_LACKS = "operate/plan/target_lacks.sql";
    REPORT_IDENTIFIERS = "operate/report/identifiers.sql";
    REPORT_SOURCE = "operate/report/source.sql";
    REPORT_TARGET = "operate/report/target.sql";
    REPORT_LETTERS = "operate/report/letters.sql";
    REPORT_AUDIT = "operate/report/audit.sql";
    REPORT_FAILED = "operate/report/failed.sql";
    REPORT_COPIES = "operate/report/copies.sql";
    REPORT_LOOKS = "operate/report/looks.sql";
    REPORT_BRAKES = "operate/report/brakes.sql";
    PLAN_NOTE = "operate/plan/note.sql";
    PLAN_NOTE_BOOKS = "operate/plan/note_books.sql";
    PLAN_ACCOUNTS = "operate/plan/accounts.sql";
    PLAN_SKIPPED = "operate/plan/skipped.sql";
    PLAN_FAILURES = "operate/plan/failures.sql";
    PLAN_GROUPS = "operate/plan/groups.sql";
    PLAN_MEMBERS = "operate/plan/members.sql";
    PLAN_KEYS = "operate/plan/keys.sql";
    PLAN_MODELS = "operate/plan/models.sql";
    PLAN_GRANTS = "operate/plan/grants.sql";
    REWRITTEN = "copy/rewritten.sql";
    NEXT_PEOPLE = "copy/next_people.sql";
    NEXT_GROUPS = "copy/next_groups.sql";
    RESNAPSHOT_RECORD = "copy/resnapshot_record.sql";
    END_LEFTOVERS = "copy/end_leftovers.sql";
    RESNAPSHOT_PENDING = "copy/resnapshot_pending.sql";
    RESNAPSHOT_PROGRESS = "copy/resnapshot_progress.sql";
    RESNAPSHOT_LATER = "copy/resnapshot_later.sql";
    RESNAPSHOT_FINISH = "copy/resnapshot_finish.sql";
    RESNAPSHOT_RESULT = "copy/resnapshot_result.sql";
    RESNAPSHOT_DIFFERENCES = "copy/resnapshot_differences.sql";
    RESNAPSHOT_FOUND = "copy/resnapshot_found.sql";
    RESNAPSHOT_KEEP_DIFFERENCE = "copy/resnapshot_keep_difference.sql";
    VERIFY_DUE = "copy/verify_due.sql";
    LAST_VERIFY = "copy/last_verify.sql";
    PASSWORDS_WITHOUT = "operate/passwords/without.sql";
    PASSWORDS_STATE = "operate/passwords/state.sql";
    PASSWORDS_WRITE = "operate/passwords/write.sql";
    SERVER = "source/server.sql";
    LEADER = "source/leader.sql";
    FAILOVER_SLOT = "source/failover_slot.sql";
    SLOT_STATE = "source/slot_state.sql";
    DROP_SLOT = "source/drop_slot.sql";
    SOURCE_GLANCE = "source/glance.sql";
    PUBLICATION = "source/publication.sql";
    SOURCE_TABLES = "source/tables.sql";
    DDL = "source/ddl.sql";
    BLOCKERS = "source/blockers.sql";
    HELD_UP = "source/held_up.sql";
}

/// The views and functions, in the order they depend on each other. Installed whenever their text
/// differs from what the target has.
pub const VIEWS: &[&str] =
    &[IDS, PERSON, DESIRED_ACCOUNT, DESIRED_GROUP, DESIRED_MEMBER, KEY, ACCESS_VIEWS, BUDGET_VIEWS];

/// Migrations of our own schema, in order. A released one is never edited.
pub const MIGRATIONS: &[&str] = &[
    SCHEMA_STATE,
    SCHEMA_MIRROR,
    SCHEMA_ACCESS,
    SCHEMA_API_KEY,
    SCHEMA_VERIFY,
    SCHEMA_REWRITTEN,
    SCHEMA_CLEAR_KEYS,
    SCHEMA_KEY_TEAMS,
    SCHEMA_MODEL_TAGS,
    SCHEMA_BUDGETS,
];

/// The functions of [`VIEWS`].
const FUNCTIONS: &[&str] = &[
    "webui_user_id",
    "webui_second_id",
    "webui_plain_id",
    "webui_group_id",
    "webui_name",
    "webui_user_ids",
    "leaves_its_email",
    "key_is_usable",
    "access_group_models",
    "webui_access_control",
];

/// The text for a session whose tables and views of ours are all temporary: the server looks for tables among the
/// temporary ones by itself, for functions it never does.
pub fn among_temporary(text: &str) -> String {
    let mut out = text.to_owned();
    for name in FUNCTIONS {
        let called = format!("{name}(");
        let mut rest = std::mem::take(&mut out);
        while let Some(at) = rest.find(&called) {
            let (before, after) = rest.split_at(at);
            out.push_str(before);
            if !before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.') {
                out.push_str("pg_temp.");
            }
            out.push_str(&called);
            rest = after.strip_prefix(&called).unwrap_or_default().to_owned();
        }
        out.push_str(&rest);
    }
    out
}

/// Where a statement reads touched keys from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TouchedFrom {
    /// Array parameters: a batch in memory.
    Arrays,
    /// The temporary table `touched`: a transaction too large for that.
    Table,
    /// Everything there is: the first projection, a changed policy, a reconcile.
    Everything,
    /// The temporary table `remaining`: the people of one of the two above whom `project/new_accounts.sql` left.
    Remaining,
}

/// The kinds of touched keys, and where everything of a kind is found.
const KINDS: &[(&str, &str, &str)] = &[
    ("users", "'user'", "(select user_id as id from litellm_user union select user_id from account)"),
    (
        "group_people",
        "'user', 'member'",
        "(select user_id as id from litellm_user union select user_id from account)",
    ),
    ("members", "'member'", "(select user_id as id from litellm_user)"),
    (
        "teams",
        "'team'",
        "(select team_id as id from litellm_team union select litellm_id from group_link where kind = 'team')",
    ),
    (
        "organizations",
        "'organization'",
        "(select organization_id as id from litellm_organization
          union select litellm_id from group_link where kind = 'organization')",
    ),
    ("emails", "'email'", "(select email as id from account where not in_step)"),
    ("rosters", "'roster'", "(select team_id as id from litellm_team)"),
    ("team_people", "'team_people'", "(select team_id as id from litellm_team)"),
    ("team_rights", "'team_rights'", "(select team_id as id from litellm_team)"),
    (
        "organization_rights",
        "'organization_rights'",
        "(select organization_id as id from litellm_organization)",
    ),
];

/// Fills in where the keys come from: each of them once, wherever that is. (A statement that sorted repetitions out itself would make
/// the planner expect few, of whatever there is.) Array parameters are numbered from `first_parameter`, in the order
/// in which the kinds below lists those the text uses.
pub fn with_keys(text: &str, keys: TouchedFrom, first_parameter: usize) -> String {
    let mut out = text.to_owned();
    let mut parameter = first_parameter;
    for (place, kind, everything) in KINDS {
        let marker = format!(":{place}");
        if !has_place(&out, &marker) {
            continue;
        }
        let from = match keys {
            TouchedFrom::Arrays => format!("unnest(${parameter}::text[])"),
            TouchedFrom::Table => format!("(select distinct id from touched where kind in ({kind}))"),
            TouchedFrom::Everything => (*everything).to_owned(),
            TouchedFrom::Remaining => "(select id from remaining)".to_owned(),
        };
        out = fill(&out, &marker, &from);
        let array = format!(":{}_array", place.trim_end_matches('s'));
        out = fill(&out, &array, &format!("${parameter}::text[]"));
        parameter += 1;
    }
    out
}

/// Replaces the place `marker` (`:name`) wherever it stands as a whole word outside comments.
pub fn fill(text: &str, marker: &str, with: &str) -> String {
    let mut out = String::with_capacity(text.len() + with.len());
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with("--") {
            out.push_str(line);
            continue;
        }
        let mut rest = line;
        while let Some(at) = rest.find(marker) {
            let (before, after) = rest.split_at(at);
            let after = after.strip_prefix(marker).unwrap_or(after);
            let whole =
                !before.ends_with(':') && !after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            out.push_str(before);
            out.push_str(if whole { with } else { marker });
            rest = after;
        }
        out.push_str(rest);
    }
    out
}

fn has_place(text: &str, marker: &str) -> bool {
    fill(text, marker, "") != text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_whole_words_and_casts_are_left_alone() {
        assert_eq!(fill("a :users b :users_array c::users", ":users", "X"), "a X b :users_array c::users");
        assert_eq!(fill("-- :users\n:users", ":users", "X"), "-- :users\nX");
    }

    #[test]
    fn every_function_of_ours_is_found_among_the_temporary_ones() {
        let made: Vec<&str> = VIEWS
            .iter()
            .flat_map(|text| text.split("create or replace function ").skip(1))
            .filter_map(|text| text.split('(').next())
            .collect();
        assert!(
            made.iter().all(|name| FUNCTIONS.contains(name)) && made.len() == FUNCTIONS.len(),
            "{made:?}"
        );
        let text = "select webui_user_id(a), not_webui_user_id(b), webui_user_ids(key_is_usable(c))";
        assert_eq!(
            among_temporary(text),
            "select pg_temp.webui_user_id(a), not_webui_user_id(b), pg_temp.webui_user_ids(pg_temp.key_is_usable(c))"
        );
    }

    #[test]
    fn array_parameters_are_numbered_in_the_order_of_their_kinds() {
        let text = ":teams :organizations :users = any (:user_array) (:team_array)";
        let filled = with_keys(text, TouchedFrom::Arrays, 4);
        assert_eq!(
            filled,
            "unnest($5::text[]) unnest($6::text[]) unnest($4::text[]) = any ($4::text[]) ($5::text[])"
        );
    }
}
