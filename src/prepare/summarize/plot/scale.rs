//! From numbers to places in a picture, and the numbers at an axis.

/// A range of numbers, and where its ends are in the picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    /// Where `low` is.
    from: f64,
    /// Where `high` is.
    to: f64,
    logarithmic: bool,
}

impl Scale {
    pub(super) fn linear((low, high): (f64, f64), from: f64, to: f64) -> Self {
        Self { low, high, from, to, logarithmic: false }
    }

    /// A scale for positive numbers whose logarithm is shown.
    pub(super) fn logarithmic((low, high): (f64, f64), from: f64, to: f64) -> Self {
        Self { low: low.ln(), high: high.ln(), from, to, logarithmic: true }
    }

    pub(super) fn place(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.ln() } else { value };
        // Halves, so that the difference of the largest numbers is finite.
        let share = (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0);
        self.from + (self.to - self.from) * if share.is_finite() { share } else { 0.5 }
    }
}

/// The numbers at a vertical axis, with their texts.
pub(super) struct Ticks {
    /// The range from the lowest to the highest one.
    pub range: (f64, f64),
    pub ticks: Vec<(f64, String)>,
}

/// About how many ticks an axis has.
const TICKS: f64 = 6.0;

impl Ticks {
    /// Round numbers around these.
    pub(super) fn around(numbers: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for number in numbers {
            low = low.min(number);
            high = high.max(number);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let least = (low.abs().max(high.abs()) * 1e-9).max(f64::MIN_POSITIVE * 1e9);
        if high - low < least {
            let room = if low == 0.0 { 1.0 } else { low.abs() / 10.0 };
            (low, high) = (low - room, high + room);
        }
        let raw = high / TICKS - low / TICKS;
        let power = 10_f64.powf(raw.log10().floor());
        let factors = [1.0, 2.0, 2.5, 5.0, 10.0];
        let step = factors.iter().map(|factor| factor * power).find(|step| *step >= raw * 0.999);
        let step = step.unwrap_or(10.0 * power);
        let (first, last) = ((low / step).floor(), (high / step).ceil());
        let ticks: Vec<_> = (0..=(last - first).clamp(1.0, 20.0) as usize)
            .map(|index| (first + index as f64) * step)
            .map(|value| (value, tick_text(value, step)))
            .collect();
        let ends = (ticks.first().map_or(low, |it| it.0), ticks.last().map_or(high, |it| it.0));
        Self { range: ends, ticks }
    }
}

/// A multiple of `step` with as many decimals as `step` has.
fn tick_text(value: f64, step: f64) -> String {
    if value != 0.0 && !(1e-4..1e6).contains(&step) {
        return format!("{value:.2e}").replace(".00e", "e");
    }
    let decimals = (0..=6).find(|decimals| {
        let shifted = step * 10_f64.powi(*decimals);
        (shifted - shifted.round()).abs() < 1e-6 * shifted.abs()
    });
    let text = format!("{value:.*}", decimals.unwrap_or(6) as usize);
    if text.trim_start_matches(['-', '0', '.']).is_empty() { "0".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ticks_are_round_and_around_the_numbers() {
        let texts = |low: f64, high: f64| {
            let ticks = Ticks::around([low, high].into_iter()).ticks;
            ticks.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(texts(51.2, 87.9), "50 60 70 80 90");
        assert_eq!(texts(0.0, 0.93), "0 0.2 0.4 0.6 0.8 1.0");
        assert_eq!(texts(0.843, 0.851), "0.842 0.844 0.846 0.848 0.850 0.852");
        assert_eq!(texts(-3.0, 9.0), "-4 -2 0 2 4 6 8 10");
        assert_eq!(texts(5.0, 5.0), "4.4 4.6 4.8 5.0 5.2 5.4 5.6");
        assert_eq!(texts(0.0, 2e-7), "0 5e-8 1e-7 1.50e-7 2e-7");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_range_has_a_few_ticks(low in any::<f64>(), high in any::<f64>()) {
            prop_assume!(low.is_finite() && high.is_finite());
            let ticks = Ticks::around([low, high].into_iter());
            prop_assert!((2..=21).contains(&ticks.ticks.len()));
            let scale = Scale::linear(ticks.range, 100.0, 0.0);
            prop_assert!(scale.place(low).is_finite() && scale.place(high).is_finite());
        }
    }
}
