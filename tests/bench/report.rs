//! Medians, ranges, and whether the goal was met.

use std::time::Duration;

/// The figures of one thing over all runs.
#[derive(Debug, Clone, Default)]
pub struct Figures(Vec<f64>);

impl Figures {
    pub fn add(&mut self, figure: f64) {
        self.0.push(figure);
    }

    pub fn add_seconds(&mut self, time: Duration) {
        self.add(time.as_secs_f64());
    }

    pub fn median(&self) -> f64 {
        percentile(&self.0, 50.0)
    }

    /// `5.12 s (4.90 to 5.31)`
    pub fn show(&self, unit: &str) -> String {
        let (low, high) = (percentile(&self.0, 0.0), percentile(&self.0, 100.0));
        format!("{} {unit} ({} to {})", number(self.median()), number(low), number(high))
    }

    /// Run by run, this and `other` together.
    pub fn plus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a + b).collect())
    }

    /// Run by run, this divided by `other`.
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }
}

/// Nearest rank; of an even number of values, the median is the mean of the middle two.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    if sorted.is_empty() {
        return f64::NAN;
    }
    if percent == 50.0 && sorted.len().is_multiple_of(2) {
        return f64::midpoint(sorted[sorted.len() / 2 - 1], sorted[sorted.len() / 2]);
    }
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

fn number(value: f64) -> String {
    if value.abs() >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// A ratio of medians that says something and has no goal.
pub fn plain_ratio(name: &str, one: &Figures, other: &Figures) {
    line(name, &format!("{:.2}", one.median() / other.median()));
}

/// A goal for a ratio.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

/// The line of a ratio of medians, with the ratios of the single runs, and the verdict.
pub fn ratio(name: &str, product: &Figures, baseline: &Figures, goal: Goal) {
    let ratio = product.median() / baseline.median();
    let runs = product.over(baseline);
    let (met, wanted) = match goal {
        Goal::AtMost(limit) => (ratio <= limit, format!("at most {limit:.1}")),
        Goal::AtLeast(limit) => (ratio >= limit, format!("at least {limit:.1}")),
    };
    let (low, high) = (percentile(&runs.0, 0.0), percentile(&runs.0, 100.0));
    line(name, &format!("{ratio:.2} ({low:.2} to {high:.2}), goal {wanted}: {}", verdict(met)));
}

/// The line of a size with its limit.
pub fn limit(name: &str, mebibytes: f64, limit: f64) {
    line(name, &format!("{mebibytes:.1} MiB, goal under {limit:.0}: {}", verdict(mebibytes < limit)));
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

pub fn title(text: &str) {
    println!("{text}");
}

pub fn line(name: &str, value: &str) {
    println!("  {name:<34} {value}");
}

pub fn end() {
    println!();
}
