//! Numbers and names as tables and plots show them.

use pipeline_stages::kinds::{Better, Summarize};
use pipeline_stages::metric_name;

use super::groups::Group;

/// How the values of a metric are shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    scale: f64,
    decimals: usize,
    /// Whether all values are shown with an exponent.
    exponents: bool,
}

impl Format {
    pub(super) fn of(summarize: &Summarize) -> Self {
        Self { scale: summarize.scale, decimals: summarize.shown_decimals(), exponents: false }
    }

    /// The same for the values of these groups: with exponents if all of them are so small that they would be shown as zero,
    /// unless the number of decimals is given.
    pub(super) fn of_groups(summarize: &Summarize, groups: &[Group]) -> Self {
        let format = Self::of(summarize);
        let values = groups.iter().filter_map(|group| group.statistics);
        let values = values.flat_map(|it| [it.min, it.max, it.mean]).filter(|it| it.is_finite());
        let largest = values.fold(0.0, |largest: f64, value| largest.max(value.abs()));
        let shown = format.scaled(largest) >= 0.5 * 0.1_f64.powi(format.decimals as i32);
        Self { exponents: summarize.decimals.is_none() && largest > 0.0 && !shown, ..format }
    }

    /// A value, scaled and rounded.
    pub(super) fn value(self, value: f64) -> String {
        // Above this, all decimals together would be longer than the exponent.
        const LONG: f64 = 1e9;
        let (scaled, decimals) = (value * self.scale, self.decimals);
        if !scaled.is_finite() {
            return match (scaled.is_nan(), scaled > 0.0) {
                (true, _) => "NaN".to_owned(),
                (_, positive) => if positive { "inf" } else { "-inf" }.to_owned(),
            };
        }
        let text = match (self.exponents, scaled.abs() < LONG) {
            (true, _) if scaled != 0.0 => format!("{scaled:.2e}"),
            (_, true) => format!("{scaled:.decimals$}"),
            (_, false) => format!("{scaled:.decimals$e}"),
        };
        match text.strip_prefix('-') {
            Some(zero) if zero.bytes().all(|byte| matches!(byte, b'0' | b'.')) => zero.to_owned(),
            _ => text,
        }
    }

    /// A difference, with its sign.
    pub(super) fn difference(self, value: f64) -> String {
        let text = self.value(value);
        let signed = text.starts_with('-')
            || text == "NaN"
            || text.bytes().all(|byte| matches!(byte, b'0' | b'.'));
        if signed { text } else { format!("+{text}") }
    }

    /// The name of a metric with its factor: `test-accuracy (%)`, `test-loss × 100`.
    pub(super) fn name(self, metric: &str) -> String {
        let shown = one_line(metric);
        match self.scale {
            1.0 => shown,
            100.0 if metric_name::is_share(metric) => format!("{shown} (%)"),
            scale => format!("{shown} × {scale}"),
        }
    }

    pub(super) fn scaled(self, value: f64) -> f64 {
        value * self.scale
    }
}

/// The text without line breaks and other control characters.
pub(super) fn one_line(text: &str) -> String {
    let shown: String =
        text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether higher values of a metric are better. `None` if it is not known.
pub(super) fn higher_is_better(better: Better, metric: &str) -> Option<bool> {
    match better {
        Better::Higher => Some(true),
        Better::Lower => Some(false),
        Better::None => None,
        Better::Auto => metric_name::higher_is_better(metric),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn format(scale: f64, decimals: u32) -> Format {
        let parameters = json!({"metric": "m", "scale": scale, "decimals": decimals});
        Format::of(&serde_json::from_value(parameters).unwrap())
    }

    #[test]
    fn values_are_scaled_and_rounded() {
        let percent = format(100.0, 1);
        for (value, text, difference) in [
            (0.8432, "84.3", "+84.3"),
            (-0.05, "-5.0", "-5.0"),
            (-0.0001, "0.0", "0.0"),
            (f64::NAN, "NaN", "NaN"),
            (f64::INFINITY, "inf", "+inf"),
            (f64::NEG_INFINITY, "-inf", "-inf"),
            (1e300, "1.0e302", "+1.0e302"),
        ] {
            assert_eq!((&*percent.value(value), &*percent.difference(value)), (text, difference));
        }
        assert_eq!(percent.name("test-accuracy"), "test-accuracy (%)");
        assert_eq!(percent.name("test-loss"), "test-loss × 100");
        assert_eq!(format(1000.0, 0).name("a\nb"), "a b × 1000");
    }

    #[test]
    fn small_values_have_exponents() {
        let group = |value: f64| Group {
            uses_clean_labels: false,
            row: Vec::new(),
            column: Vec::new(),
            failed: 0,
            statistics: crate::summarize::statistics::Statistics::of(&[value]),
            versus: None,
            reference: None,
        };
        let summarize = |decimals: Option<u32>| {
            let parameters = json!({"metric": "m", "decimals": decimals});
            serde_json::from_value(parameters).unwrap()
        };
        let small = [group(3.14159e-8), group(0.0)];
        let format = Format::of_groups(&summarize(None), &small);
        assert_eq!(
            [3.14159e-8, 0.0, -2e-9].map(|it| format.value(it)),
            ["3.14e-8", "0.000", "-2.00e-9"]
        );
        assert_eq!(Format::of_groups(&summarize(Some(3)), &small).value(3e-8), "0.000");
        assert_eq!(
            Format::of_groups(&summarize(None), &[group(0.5), group(3e-8)]).value(3e-8),
            "0.000"
        );
    }

    #[test]
    fn what_is_better_is_in_the_name_unless_it_is_said() {
        for (better, higher) in [
            (Better::Auto, Some(true)),
            (Better::Lower, Some(false)),
            (Better::Higher, Some(true)),
            (Better::None, None),
        ] {
            assert_eq!(higher_is_better(better, "accuracy"), higher);
        }
    }
}
