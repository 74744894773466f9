//! Medians, ranges, whether the goals were met; for people, and as JSON for whoever compares runs.

use std::time::Duration;

use serde_json::{Value, json};

/// The figures of one thing over all runs.
#[derive(Debug, Clone, Default)]
pub struct Figures(Vec<f64>);

impl Figures {
    /// Of one run.
    pub fn one(figure: f64) -> Self {
        Self(vec![figure])
    }

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

    /// Run by run, this without `other`.
    pub fn minus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a - b).collect())
    }

    /// Run by run, this divided by `other`.
    fn over(&self, other: &Self) -> Self {
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

/// What a figure or a ratio should be.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    Under(f64),
}

impl Goal {
    /// Unknown (not a number) meets nothing.
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
            Self::Under(limit) => value < limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("at most {limit}"),
            Self::AtLeast(limit) => format!("at least {limit}"),
            Self::Under(limit) => format!("under {limit}"),
        }
    }

    fn verdict(self, value: f64) -> &'static str {
        if self.is_met(value) { "met" } else { "MISSED" }
    }
}

/// What one workload found. Every line is printed as it is known.
#[derive(Debug)]
pub struct Report {
    workload: &'static str,
    sizes: Value,
    figures: Vec<Value>,
    ratios: Vec<Value>,
    notes: Vec<String>,
}

impl Report {
    /// `sizes` is what to say to have the same workload again.
    pub fn new(workload: &'static str, headline: &str, sizes: Value) -> Self {
        println!("{workload}: {headline}");
        Self { workload, sizes, figures: Vec::new(), ratios: Vec::new(), notes: Vec::new() }
    }

    pub fn figure(&mut self, name: &str, unit: &str, figures: &Figures) {
        line(name, &figures.show(unit));
        self.keep(entry(name, figures.median(), figures, Some(unit), None));
    }

    /// Whoever compares runs knows a figure by its name.
    fn keep(&mut self, figure: Value) {
        let is_new = self.figures.iter().all(|other| other["name"] != figure["name"]);
        assert!(is_new, "two figures are called {}", figure["name"]);
        self.figures.push(figure);
    }

    /// A figure that has a goal; its median counts.
    pub fn limit(&mut self, name: &str, unit: &str, figures: &Figures, goal: Goal) {
        let verdict = goal.verdict(figures.median());
        line(name, &format!("{}, goal {}: {verdict}", figures.show(unit), goal.text()));
        self.keep(entry(name, figures.median(), figures, Some(unit), Some(goal)));
    }

    /// A ratio of medians that says something and has no goal.
    pub fn plain_ratio(&mut self, name: &str, one: &Figures, other: &Figures) {
        let ratio = one.median() / other.median();
        line(name, &format!("{ratio:.2}"));
        self.ratios.push(entry(name, ratio, &one.over(other), None, None));
    }

    /// A ratio of medians, with the ratios of the single runs, and the verdict.
    pub fn ratio(&mut self, name: &str, product: &Figures, baseline: &Figures, goal: Goal) {
        let ratio = product.median() / baseline.median();
        let runs = product.over(baseline);
        let (low, high) = (percentile(&runs.0, 0.0), percentile(&runs.0, 100.0));
        let verdict = goal.verdict(ratio);
        line(name, &format!("{ratio:.2} ({low:.2} to {high:.2}), goal {}: {verdict}", goal.text()));
        self.ratios.push(entry(name, ratio, &runs, None, Some(goal)));
    }

    /// Something that could not be measured, and why.
    pub fn note(&mut self, text: &str) {
        println!("  {text}");
        self.notes.push(text.to_owned());
    }

    /// All of it as JSON.
    pub fn end(self) -> Value {
        println!();
        let judged = self.figures.iter().chain(&self.ratios);
        let met = judged.filter(|entry| entry["goal"].is_string()).all(|entry| entry["met"] == true);
        json!({
            "workload": self.workload,
            "sizes": self.sizes,
            "figures": self.figures,
            "ratios": self.ratios,
            "notes": self.notes,
            "all_goals_met": met,
        })
    }
}

/// Its value, that of every run, and what was wanted of it.
fn entry(name: &str, value: f64, runs: &Figures, unit: Option<&str>, goal: Option<Goal>) -> Value {
    json!({
        "name": name.trim(),
        "value": value,
        "unit": unit,
        "runs": runs.0,
        "goal": goal.map(Goal::text),
        "met": goal.map(|goal| goal.is_met(value)),
    })
}

fn line(name: &str, value: &str) {
    println!("  {name:<58} {value}");
}
