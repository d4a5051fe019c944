//! Bars on a terminal: one for each running stage, one for the whole.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Course, Reporter, plain};
use crate::events::RunEvent;
use crate::stage_name::StageName;

/// How wide the names of stages may be before they push the bars.
const NAME_WIDTH: usize = 16;

/// Draws bars on standard error.
pub(crate) struct Bars {
    all: MultiProgress,
    whole: Option<ProgressBar>,
    stages: BTreeMap<StageName, (ProgressBar, Course)>,
    started: bool,
}

impl Bars {
    pub(crate) fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        Self { all, whole: None, stages: BTreeMap::new(), started: false }
    }

    fn print(&self, event: &RunEvent) {
        if let Some(line) = plain::line(event) {
            // With no bar to draw, indicatif's `println` would keep the line to itself; its `suspend` panics where
            // the terminal is gone. The next tick draws the bars again.
            let _ = self.all.clear();
            plain::print(&line);
        }
    }

    fn start(&mut self, stage: &StageName) {
        if !std::mem::replace(&mut self.started, true)
            && let Some(whole) = &self.whole
        {
            self.all.add(whole.clone());
        }
        let bar = ProgressBar::new_spinner().with_prefix(stage.to_string());
        bar.set_style(spinner_style());
        let bar = match &self.whole {
            Some(whole) => self.all.insert_before(whole, bar),
            None => self.all.add(bar),
        };
        bar.tick();
        self.stages.insert(stage.clone(), (bar, Course::default()));
    }
}

impl Reporter for Bars {
    fn event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Begin { experiment, stages } => {
                let whole = ProgressBar::hidden().with_prefix(experiment.clone());
                whole.set_length(*stages as u64);
                whole.set_style(style(
                    "      {prefix:16!.bold} {bar:28.green/dim} {pos}/{len} stages, {elapsed}",
                ));
                self.whole = Some(whole);
            }
            RunEvent::Start { stage, .. } | RunEvent::Again { stage, .. } => {
                self.print(event);
                self.start(stage);
            }
            RunEvent::Progress { stage, progress } => {
                let Some((bar, course)) = self.stages.get_mut(stage) else { return };
                if let Some(total) = progress.total.filter(|_| bar.length().is_none()) {
                    bar.set_length(total);
                    bar.set_style(style("      {prefix:16!} {bar:28.cyan/dim} {wide_msg}"));
                }
                bar.set_position(progress.done);
                course.progress(progress);
                let parts = [course.values(), course.speed(), course.left()];
                bar.set_message(parts.into_iter().flatten().collect::<Vec<_>>().join(", "));
            }
            RunEvent::Measured { stage, measured } => {
                // The next progress shows it.
                self.stages
                    .entry(stage.clone())
                    .and_modify(|(_, course)| course.measured(measured));
            }
            RunEvent::End { stage, .. } => {
                if let Some((bar, _)) = self.stages.remove(stage) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
                if let Some(whole) = &self.whole {
                    whole.inc(1);
                }
                self.print(event);
            }
            RunEvent::Done { .. } => {
                if let Some(whole) = self.whole.take() {
                    whole.finish_and_clear();
                }
                let _ = self.all.clear();
            }
            RunEvent::Same { .. }
            | RunEvent::Wait { .. }
            | RunEvent::Note { .. }
            | RunEvent::Stopping => self.print(event),
        }
    }

    fn tick(&mut self) {
        for (bar, _) in self.stages.values() {
            bar.tick();
        }
        if let Some(whole) = self.whole.as_ref().filter(|_| self.started) {
            whole.tick();
        }
    }
}

fn spinner_style() -> ProgressStyle {
    style("      {prefix:16!} {spinner} {elapsed} {wide_msg}")
}

/// A style of a template, with the bar as all bars here have it.
pub(super) fn style(template: &str) -> ProgressStyle {
    debug_assert!(template.contains(&format!(":{NAME_WIDTH}!")));
    // The templates are constants; one that indicatif cannot read shows the plain style.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}
