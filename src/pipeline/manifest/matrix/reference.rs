//! References: what the text at a port means. `train`, `train@rate=0`, `evaluate@*`, `evaluate@seed=*`.
//!
//! Does not know which instances there are.

use pipeline_stages::PortShape;

use super::points::{Axes, AxisSet};

/// An axis, and its values that are meant.
pub(super) type Pin = (usize, Vec<u32>);

/// What a text at a port means. On all axes for which it does not say something, the instance is the reader's.
pub(super) struct Reference<'r> {
    /// The name of the stage.
    pub(super) name: &'r str,
    /// The axes on which it does not follow the reader.
    pub(super) own: AxisSet,
    /// The axes that it sets.
    pub(super) pins: Vec<Pin>,
    /// Whether it means all instances on the axes that it neither sets nor follows.
    pub(super) takes_all: bool,
}

/// What is wrong with a reference.
pub(super) enum Wrong<'r> {
    /// It means all instances, where the port does not take them.
    All,
    /// It sets axes, where a parameter does that.
    Pinned,
    Form,
    NoStage(&'r str),
    NoAxis(&'r str),
    NoValue(usize, &'r str),
}

impl<'r> Reference<'r> {
    /// Reads what is at a port of this shape.
    pub(super) fn read(
        text: &'r str,
        shape: PortShape,
        axes: &Axes<'_, '_>,
    ) -> Result<Self, Wrong<'r>> {
        let (name, point) = match text.split_once('@') {
            Some(_) if shape == PortShape::Instances => return Err(Wrong::Pinned),
            Some((name, point)) => (name, point),
            None if shape == PortShape::Instances => (text, "*"),
            None => (text, ""),
        };
        let mut said: AxisSet = 0;
        let mut reference = Self { name, own: 0, pins: Vec::new(), takes_all: false };
        for part in point.split_terminator(',').map(str::trim) {
            if part == "*" {
                reference.takes_all = true;
                reference.own = AxisSet::MAX;
                continue;
            }
            let (axis, value) = part.split_once('=').ok_or(Wrong::Form)?;
            let place = axes.find(axis).ok_or(Wrong::NoAxis(axis))?;
            if said & (1 << place) != 0 {
                return Err(Wrong::Form);
            }
            said |= 1 << place;
            reference.own |= 1 << place;
            if value == "*" {
                reference.takes_all = true;
            } else {
                let value = axes.get(place).place(value).ok_or(Wrong::NoValue(place, value))?;
                reference.pins.push((place, vec![value]));
            }
        }
        if text.ends_with('@') {
            return Err(Wrong::Form);
        }
        let takes_several = matches!(shape, PortShape::Named | PortShape::Instances);
        if reference.takes_all && !takes_several { Err(Wrong::All) } else { Ok(reference) }
    }

    /// Whether an instance that has these axes can be meant: it has those that are set.
    pub(super) fn can_mean(&self, axes: AxisSet) -> bool {
        self.pins.iter().all(|(axis, _)| axes & (1 << axis) != 0)
    }
}
