//! What the words in the name of a metric say of its values.

/// Words of shares of which higher ones are better.
const HIGHER: &[&str] = &["accuracy", "auc", "precision", "recall", "f1"];
/// Words of shares of which lower ones are better.
const LOWER_SHARES: &[&str] = &["error", "ece"];
/// Words of shares of which neither higher nor lower ones are better.
const OTHER_SHARES: &[&str] = &["rate", "confidence"];
/// Words of rates that are not shares, as in `learning-rate`.
const OTHER_RATES: &[&str] = &["learning"];
/// Words of other values of which lower ones are better.
const LOWER: &[&str] = &["loss", "nll", "perplexity"];

/// Whether higher values are better. `None` if the name has words of both kinds, or of none.
pub fn higher_is_better(metric: &str) -> Option<bool> {
    match (has(metric, HIGHER), has(metric, LOWER_SHARES) || has(metric, LOWER)) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    }
}

/// Whether the values are shares, which can be shown in percent.
pub fn is_share(metric: &str) -> bool {
    let is_other = has(metric, OTHER_SHARES) && !has(metric, OTHER_RATES);
    (has(metric, HIGHER) || has(metric, LOWER_SHARES) || is_other) && !has(metric, LOWER)
}

/// Whether the values are accuracies.
pub fn is_accuracy(metric: &str) -> bool {
    has(metric, &["accuracy"]) && !has(metric, LOWER)
}

fn has(metric: &str, words: &[&str]) -> bool {
    let is_word = |word: &str| words.iter().any(|known| known.eq_ignore_ascii_case(word));
    metric.split(|letter: char| !letter.is_ascii_alphanumeric()).any(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_better_is_in_the_name_or_unknown() {
        for (metric, higher, share) in [
            ("test-accuracy", Some(true), true),
            ("test/Accuracy", Some(true), true),
            ("noise-detection-auc", Some(true), true),
            ("test-loss", Some(false), false),
            ("test-ece", Some(false), true),
            ("test-accuracy/loss", None, false),
            ("train-samples", None, false),
            ("noise-rate", None, true),
            ("mean-confidence", None, true),
            ("learning-rate", None, false),
            ("glossary", None, false),
        ] {
            assert_eq!((higher_is_better(metric), is_share(metric)), (higher, share), "{metric}");
        }
        assert!(is_accuracy("test-accuracy/cat") && !is_accuracy("test-ece"));
    }
}
