//! Instances beside a model: the points that are left, projected on the axes of each stage. By chance.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;

use super::command;
use crate::manifest::parse;

/// A matrix and its stages, drawn.
#[derive(Debug, Clone)]
struct Drawn {
    /// How many values each axis has.
    axes: Vec<usize>,
    /// Excluded pairs of values: axis, value, axis, value.
    excluded: Vec<(usize, usize, usize, usize)>,
    /// Per stage: the axes that it uses, and the earlier stages that it reads.
    stages: Vec<(BTreeSet<usize>, BTreeSet<usize>)>,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let stages = prop::collection::vec(
        (
            prop::collection::btree_set(0_usize..3, 0..3),
            prop::collection::btree_set(0_usize..6, 0..3),
        ),
        1..6,
    );
    let excluded = prop::collection::vec((0_usize..3, 0_usize..3, 0_usize..3, 0_usize..3), 0..3);
    (prop::collection::vec(1_usize..4, 3), excluded, stages).prop_map(|(axes, excluded, stages)| {
        let excluded = excluded.into_iter();
        let excluded = excluded.filter(|(a, x, b, y)| a != b && *x < axes[*a] && *y < axes[*b]);
        let excluded = excluded.collect();
        let stages = stages.into_iter().enumerate();
        let stages = stages.map(|(place, (used, inputs))| {
            (used, inputs.into_iter().filter(|input| *input < place).collect())
        });
        let stages = stages.collect();
        Drawn { axes, excluded, stages }
    })
}

impl Drawn {
    fn text(&self) -> String {
        let mut text = "[experiment]\nname = \"x\"\n[matrix]\n".to_owned();
        for (axis, count) in self.axes.iter().enumerate() {
            let values: Vec<_> = (0..*count).map(|value| value.to_string()).collect();
            text.push_str(&format!("x{axis} = [{}]\n", values.join(", ")));
        }
        for (a, x, b, y) in &self.excluded {
            text.push_str(&format!("[[matrix.exclude]]\nx{a} = {x}\nx{b} = [{y}]\n"));
        }
        // It uses every axis.
        text.push_str(&command("all", "\"${x0} ${x1} ${x2}\"", ""));
        for (place, (used, inputs)) in self.stages.iter().enumerate() {
            let run: Vec<_> = used.iter().map(|axis| format!("${{x{axis}}}")).collect();
            let inputs: Vec<_> =
                inputs.iter().map(|input| format!("i{input} = \"s{input}\"")).collect();
            let more = format!("inputs = {{ {} }}", inputs.join(", "));
            text.push_str(&command(&format!("s{place}"), &format!("\"{}\"", run.join(" ")), &more));
        }
        text
    }

    fn points(&self) -> Vec<[usize; 3]> {
        let mut points = Vec::new();
        for a in 0..self.axes[0] {
            for b in 0..self.axes[1] {
                for c in 0..self.axes[2] {
                    let point = [a, b, c];
                    let is_excluded =
                        self.excluded.iter().any(|&(a, x, b, y)| point[a] == x && point[b] == y);
                    if !is_excluded {
                        points.push(point);
                    }
                }
            }
        }
        points
    }

    /// The axes of a stage, itself or through its inputs.
    fn axes_of(&self, place: usize) -> BTreeSet<usize> {
        let (used, inputs) = &self.stages[place];
        let mut all = used.clone();
        inputs.iter().for_each(|&input| all.extend(self.axes_of(input)));
        all
    }

    fn name_at(&self, place: usize, point: [usize; 3]) -> String {
        let axes = self.axes_of(place);
        let parts: Vec<_> = axes.iter().map(|&axis| format!("x{axis}={}", point[axis])).collect();
        match parts.is_empty() {
            true => format!("s{place}"),
            false => format!("s{place}@{}", parts.join(",")),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// The instances are the points that are left, projected on the axes of the stage, and read what is at the same point.
    #[test]
    fn instances_are_the_projections_of_the_points(drawn in drawn()) {
        let text = drawn.text();
        let points = drawn.points();
        let Ok((manifest, _)) = parse(Path::new("x.toml"), &text, &[]) else {
            prop_assert!(points.is_empty(), "{text}");
            return Ok(());
        };
        let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for &point in &points {
            expected.insert(format!("all@x0={},x1={},x2={}", point[0], point[1], point[2]), BTreeSet::new());
            for (place, (_, inputs)) in drawn.stages.iter().enumerate() {
                let inputs = inputs.iter().map(|&input| drawn.name_at(input, point)).collect();
                expected.insert(drawn.name_at(place, point), inputs);
            }
        }
        let found: BTreeMap<String, BTreeSet<String>> = manifest.stages.iter().map(|stage| {
            let inputs = stage.connections().map(|(_, one)| one.from.to_string()).collect();
            (stage.name.to_string(), inputs)
        }).collect();
        prop_assert_eq!(manifest.stages.len(), expected.len());
        prop_assert_eq!(found, expected);
    }
}
