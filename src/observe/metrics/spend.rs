//! The budgets as metrics: the fullest by name, and everybody in sums.
//!
//! Gauges all of them: spend goes down at a reset. They are filled anew whenever somebody looks, because temporary
//! increases end without a row in the stream.

use std::sync::Arc;

use prometheus::{GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Result};

use super::make::Maker;
use crate::budgets::rules::Kind;
use crate::budgets::{Budgets, Ranking, Shown};

#[derive(Debug)]
pub struct Spend {
    pub loaded: IntGauge,
    pub spend: GaugeVec,
    pub limit: GaugeVec,
    pub utilization: GaugeVec,
    pub reset: GaugeVec,
    pub entities: IntGaugeVec,
    pub spend_sum: GaugeVec,
    pub limit_sum: GaugeVec,
    pub hidden: IntGaugeVec,
    pub closed_people: IntGauge,
    pub crossings: IntCounterVec,
}

impl Spend {
    pub(super) fn new(make: &mut Maker) -> Result<Self> {
        let entity = ["kind", "id", "alias"];
        let crossings = make.counters(
            "budget_crossings_total",
            &["kind", "direction"],
            "Budgets that were used up (closed) or not any more (opened), and took models away or gave them back",
        )?;
        for kind in Kind::ALL {
            for direction in ["closed", "opened"] {
                crossings.with_label_values(&[kind.name(), direction]);
            }
        }
        Ok(Self {
            crossings,
            closed_people: make.int_gauge(
                "budget_closed_people",
                "People whom a used-up budget takes models from, where access.budgets is \"enforce\"",
            )?,
            loaded: make.int_gauge("budgets_loaded", "1 once the budgets below are known")?,
            spend: make.gauges(
                "budget_spend_usd",
                &entity,
                "Spend in the present window, of the fullest of each kind (user, key, team, organization, team_member, customer) \
                 and of those that reached their soft budget",
            )?,
            limit: make.gauges(
                "budget_limit_usd",
                &entity,
                "The limit in force, a temporary increase included; none where there is no limit",
            )?,
            utilization: make.gauges(
                "budget_utilization_ratio",
                &entity,
                "Spend as a share of the limit, 1 is all of it; none where there is no limit",
            )?,
            reset: make.gauges(
                "budget_reset_timestamp_seconds",
                &entity,
                "When the spend goes back to 0 (Unix time); none where it never does",
            )?,
            entities: make.int_gauges(
                "budget_entities",
                &["kind", "state"],
                "How many have spent or have a limit, by state: ok, soft (soft budget reached), warning (80 % of the limit), exceeded \
                 (LiteLLM refuses), unlimited",
            )?,
            spend_sum: make.gauges("budget_spend_sum_usd", &["kind"], "Spend of all of a kind")?,
            limit_sum: make.gauges("budget_limit_sum_usd", &["kind"], "Limits of all of a kind that have one")?,
            hidden: make.int_gauges(
                "budget_hidden_entities",
                &["kind"],
                "How many reached their soft budget and have no series of their own, because they are too many",
            )?,
        })
    }

    pub(super) fn fill(&self, ranking: Option<Arc<Ranking>>, budgets: &Budgets) {
        for vec in
            [&self.spend, &self.limit, &self.utilization, &self.reset, &self.spend_sum, &self.limit_sum]
        {
            vec.reset();
        }
        self.entities.reset();
        self.hidden.reset();
        self.loaded.set(i64::from(ranking.is_some()));
        let Some(ranking) = ranking else { return };
        for (kind, found) in &ranking.kinds {
            let name = [kind.name()];
            self.spend_sum.with_label_values(&name).set(found.spend);
            self.limit_sum.with_label_values(&name).set(found.limit);
            self.hidden.with_label_values(&name).set(whole(found.hidden));
            for (state, count) in &found.states {
                self.entities.with_label_values(&[kind.name(), state.name()]).set(whole(*count));
            }
            for one in budgets.shown(&ranking, *kind) {
                self.show(*kind, &one);
            }
        }
    }

    fn show(&self, kind: Kind, one: &Shown) {
        let labels = [kind.name(), one.id.as_str(), one.alias.as_str()];
        self.spend.with_label_values(&labels).set(one.standing.spend);
        for (vec, value) in [
            (&self.limit, one.standing.limit),
            (&self.utilization, one.standing.utilization()),
            (&self.reset, one.standing.reset.map(seconds)),
        ] {
            if let Some(value) = value {
                vec.with_label_values(&labels).set(value);
            }
        }
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds are exact for 285 000 years")]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}
