//! Which shapes each release of Open WebUI has.

use litellm_webui_sync::target::{Target, layout};
use testbed::Schema;

use crate::support::{Pair, PairOptions};

/// The tables a release made, what is said of them in short, and how its settings are kept.
const RELEASES: &[(Schema, &str, &str)] = &[
    (
        Schema::OpenWebUi0_6_30,
        "members=group.user_ids keys=user.api_key access=model.access_control email=not_unique",
        "config.data (before 0.10.0)",
    ),
    (
        Schema::OpenWebUi0_6_43,
        "members=group_member keys=api_key access=model.access_control email=not_unique",
        "config.data (before 0.10.0)",
    ),
    (
        Schema::OpenWebUi0_7_2,
        "members=group_member keys=api_key access=model.access_control email=not_unique",
        "config.data (before 0.10.0)",
    ),
    (
        Schema::OpenWebUi0_8_12,
        "members=group_member keys=api_key access=access_grant email=not_unique",
        "config.data (before 0.10.0)",
    ),
    (
        Schema::OpenWebUi0_9_6,
        "members=group_member keys=api_key access=access_grant email=not_unique",
        "config.data (before 0.10.0)",
    ),
    (
        Schema::OpenWebUi0_10_2,
        "members=group_member keys=api_key access=access_grant email=not_unique",
        "config, a row per key",
    ),
    (
        Schema::OpenWebUi0_11_4,
        "members=group_member keys=api_key access=access_grant email=unique",
        "config, a row per key",
    ),
    (
        Schema::OpenWebUi0_12_4,
        "members=group_member keys=api_key access=access_grant email=unique",
        "config, a row per key",
    ),
    (
        Schema::OpenWebUi0_12_4FromOld,
        "members=group_member keys=api_key access=access_grant email=unique",
        "config, a row per key",
    ),
];

#[tokio::test]
async fn every_release_is_recognised_by_its_tables() {
    assert!(Schema::open_webui().eq(RELEASES.iter().map(|(schema, _, _)| *schema)));
    for (schema, short, settings) in RELEASES {
        let pair = Pair::with(PairOptions { webui: *schema, ..Default::default() }).await;
        let config = pair.config();
        let found = layout::find(&Target::open(&config).await.unwrap(), &config).await.unwrap();
        assert_eq!(found.describe(), *short, "{schema}");
        assert!(found.found().contains(&("settings", *settings)), "{schema}: {:?}", found.found());
    }
}
