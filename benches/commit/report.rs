//! The tables that are printed, in Markdown.

use std::time::Duration;

use crate::measure::{median, ms, quantile};

/// Starts a table of rows that have a floor.
pub(crate) fn head(case: &str, floor: &str) {
    println!("| {case} | ms | {floor}, ms | ratio | of the rounds | bound |");
    println!("|---|---:|---:|---:|---:|---:|");
}

/// One case beside its floor.
pub(crate) struct Row {
    name: String,
    bound: Option<f64>,
    case: Vec<f64>,
    floor: Vec<f64>,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), bound: None, case: Vec::new(), floor: Vec::new() }
    }

    /// The ratio that is to be kept to.
    pub(crate) fn bound(mut self, bound: f64) -> Self {
        self.bound = Some(bound);
        self
    }

    pub(crate) fn note(&mut self, case: Duration, floor: Duration) {
        self.case.push(ms(case));
        self.floor.push(ms(floor));
    }

    pub(crate) fn print(&self) {
        let (case, floor) = (median(&self.case), median(&self.floor));
        let ratio = case / floor;
        let rounds: Vec<f64> = self.case.iter().zip(&self.floor).map(|(case, floor)| case / floor).collect();
        let (low, high) = (quantile(&rounds, 0.25), quantile(&rounds, 0.75));
        let bound = self.bound.map(|bound| format!("{bound:.2}{}", mark(ratio, bound))).unwrap_or_default();
        println!("| {} | {case:.2} | {floor:.2} | {ratio:.2} | {low:.2} to {high:.2} | {bound} |", self.name);
    }
}

/// Starts a table of values that have none.
pub(crate) fn plain_head(what: &str) {
    println!("| {what} | median | highest | bound |");
    println!("|---|---:|---:|---:|");
}

/// One value of many rounds.
pub(crate) fn plain(name: &str, values: &[f64], bound: Option<f64>) {
    let (median, high) = (median(values), quantile(values, 1.0));
    let bound = bound.map(|bound| format!("{bound}{}", mark(median, bound))).unwrap_or_default();
    println!("| {name} | {median:.2} | {high:.2} | {bound} |");
}

/// Says where a bound is not kept.
pub(crate) fn mark(value: f64, bound: f64) -> &'static str {
    if value > bound { " **over**" } else { "" }
}
