//! Makes and registers metrics, and keeps the table of them that the handbook shows.

use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, Result,
};

use super::PREFIX;

/// One metric as it is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub name: String,
    pub kind: &'static str,
    pub labels: Vec<String>,
    pub help: String,
}

/// Whatever it makes is registered and described: no metric can be missing from either.
#[derive(Debug, Default)]
pub(super) struct Maker {
    pub(super) registry: Registry,
    pub(super) table: Vec<Described>,
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("{PREFIX}_{name}"), help)
}

impl Maker {
    fn add<C: Collector + Clone + 'static>(&mut self, kind: &'static str, metric: C) -> Result<C> {
        for desc in metric.desc() {
            self.table.push(Described {
                name: desc.fq_name.clone(),
                kind,
                labels: desc.variable_labels.clone(),
                help: desc.help.clone(),
            });
        }
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn counter(&mut self, name: &str, help: &str) -> Result<IntCounter> {
        self.add("counter", IntCounter::with_opts(opts(name, help))?)
    }

    pub(super) fn seconds_counter(&mut self, name: &str, help: &str) -> Result<Counter> {
        self.add("counter", Counter::with_opts(opts(name, help))?)
    }

    pub(super) fn counters(&mut self, name: &str, labels: &[&str], help: &str) -> Result<IntCounterVec> {
        self.add("counter", IntCounterVec::new(opts(name, help), labels)?)
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Result<Gauge> {
        self.add("gauge", Gauge::with_opts(opts(name, help))?)
    }

    pub(super) fn int_gauge(&mut self, name: &str, help: &str) -> Result<IntGauge> {
        self.add("gauge", IntGauge::with_opts(opts(name, help))?)
    }

    pub(super) fn gauges(&mut self, name: &str, labels: &[&str], help: &str) -> Result<GaugeVec> {
        self.add("gauge", GaugeVec::new(opts(name, help), labels)?)
    }

    pub(super) fn int_gauges(&mut self, name: &str, labels: &[&str], help: &str) -> Result<IntGaugeVec> {
        self.add("gauge", IntGaugeVec::new(opts(name, help), labels)?)
    }

    pub(super) fn histogram(&mut self, name: &str, buckets: &[f64], help: &str) -> Result<Histogram> {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.add("histogram", Histogram::with_opts(opts)?)
    }

    pub(super) fn histograms(
        &mut self,
        name: &str,
        labels: &[&str],
        buckets: &[f64],
        help: &str,
    ) -> Result<HistogramVec> {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.add("histogram", HistogramVec::new(opts, labels)?)
    }
}
