//! Patterns on the command line that name stages: `train`, `train@rate=0.9`, `eval*@method=lq-*`.
//!
//! Knows how names are made. Does not depend on manifests.

use pipeline_stages::point::canonical;

use crate::stage_name::StageName;

/// Which stages are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern<'t> {
    name: &'t str,
    /// The axes, each with a value. The same axis twice means either value.
    conditions: Vec<(&'t str, &'t str)>,
}

impl<'t> Pattern<'t> {
    /// Reads a pattern: the name of a stage, which means all its instances, or one with values of axes after `@`. `*`
    /// stands for anything.
    pub(crate) fn read(text: &'t str) -> Self {
        let (name, point) = text.split_once('@').unwrap_or((text, "*"));
        let parts = point.split(',').filter(|part| *part != "*");
        let conditions = parts.map(|part| part.split_once('=').unwrap_or((part, "")));
        Self { name, conditions: conditions.collect() }
    }

    /// Whether the stage in the manifest is meant, at any point.
    pub(crate) fn has_template(&self, template: &str) -> bool {
        glob(self.name, template)
    }

    /// Whether the stage has an axis of the pattern.
    pub(crate) fn has_axis(&self, stage: &StageName) -> bool {
        let mut axes = self.conditions.iter().map(|(axis, _)| axis);
        axes.any(|axis| stage.point().any(|(other, _)| glob(axis, other)))
    }

    /// Whether it has one value on every axis of the stage.
    pub(crate) fn has_all_axes(&self, stage: &StageName) -> bool {
        let is_one = |axis| self.conditions.iter().filter(|(other, _)| *other == axis).count() == 1;
        stage.point().all(|(axis, _)| is_one(axis))
    }

    /// Whether this stage is meant.
    pub(crate) fn has(&self, stage: &StageName) -> bool {
        let holds = |axis: &str, value: &str| {
            stage.point().any(|(other, there)| glob(axis, other) && is_value(value, there))
        };
        self.has_template(stage.template())
            && self.conditions.iter().all(|(axis, _)| {
                let same = self.conditions.iter().filter(|(other, _)| other == axis);
                same.into_iter().any(|(axis, value)| holds(axis, value))
            })
    }
}

/// Whether a value is meant: numbers are compared as numbers.
fn is_value(pattern: &str, value: &str) -> bool {
    match pattern.contains('*') {
        true => glob(pattern, value),
        false => canonical(pattern) == canonical(value),
    }
}

/// Whether the text is the pattern, in which `*` stands for anything.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut rest = rest;
    while let Some((middle, after)) = rest.split_once('*') {
        let Some(place) = text.find(middle) else { return false };
        text = &text[place + middle.len()..];
        rest = after;
    }
    text.ends_with(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_stages_a_pattern_means() {
        let stages = [
            "data",
            "train@init=scratch,method=ce,rate=0.9",
            "train@init=scratch,method=lq-0.5,rate=0.9",
            "train@init=simclr,method=lq-0.66,rate=0.05",
            "trainer@rate=1e-5",
        ];
        for (pattern, expected) in [
            ("data", &[0][..]),
            ("data@*", &[0]),
            ("data@rate=0.9", &[]),
            ("train", &[1, 2, 3]),
            ("train@*", &[1, 2, 3]),
            ("*", &[0, 1, 2, 3, 4]),
            ("train*", &[1, 2, 3, 4]),
            ("t*n", &[1, 2, 3]),
            ("train@rate=0.90", &[1, 2]),
            ("train@rate=9e-1,method=ce", &[1]),
            ("train@rate=0.9,rate=0.05", &[1, 2, 3]),
            ("train@method=lq-*", &[2, 3]),
            ("train@method=lq-*,*", &[2, 3]),
            ("train@*=scratch", &[1, 2]),
            ("train@m*=*q*", &[2, 3]),
            ("*@rate=*5", &[3, 4]),
            ("*@rate=0.00001", &[4]),
            ("train@rate", &[]),
            ("train@rate=0.7", &[]),
            ("train@init=scratch,method=ce,rate=0.9", &[1]),
            ("", &[]),
        ] {
            let read = Pattern::read(pattern);
            let names = stages
                .iter()
                .enumerate()
                .filter(|(_, stage)| read.has(&stage.parse().expect("a name")));
            assert_eq!(names.map(|(place, _)| place).collect::<Vec<_>>(), expected, "{pattern}");
        }
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, expected) in [
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("**", "", true),
            ("*b*b", "ab", false),
            ("*b*b", "abb", true),
            ("a*b*c", "a1b2b3c", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
