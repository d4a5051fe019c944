//! Bars on a terminal: one for each running stage, one for the whole.
//!
//! Between two drawings, the cursor is at the beginning of the first bar. So nothing must be known of where the bars are
//! when they are drawn again: whatever a terminal makes of them when its size changes is below the cursor, and is cleared.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::course::Course;
use super::plain;
use super::reporter::Reporter;
use crate::cache::Owner;
use crate::events::RunEvent;
use crate::screen::{self, Size};
use crate::stage_name::StageName;
use crate::{colour, format, visible, width};

/// The bars are drawn again this often.
const INTERVAL: Duration = Duration::from_millis(100);
/// The widest bar, and the narrowest one that makes room for numbers.
const BAR: usize = 28;
const LEAST_BAR: usize = 5;
/// The parts of a line that count more than a wide bar: the time left, the loss and the rate.
const BEFORE_BAR: usize = 3;
/// Names are never made shorter than this for a bar.
const NAME: usize = 12;
/// Below this width of the terminal there are no bars, only numbers.
const NARROW: usize = 40;
/// How far everything is from the left, where there is room: as the lines above the bars.
const INDENT: usize = 6;

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// From the cursor to the end of the terminal. Lines that are too long are not continued while bars are drawn.
const CLEAR: &str = "\r\u{1b}[J";
const CLEAR_LINE: &str = "\u{1b}[K";
const NO_WRAP: &str = "\u{1b}[?7l";
const WRAP: &str = "\u{1b}[?7h";

/// Draws bars on standard error.
pub(crate) struct Bars {
    /// Whether standard error is a terminal: else there are lines only.
    is_drawn: bool,
    began: Instant,
    experiment: String,
    total: usize,
    ended: usize,
    stages: BTreeMap<StageName, Shown>,
    /// When the bars were drawn last. `None` while there are none on the terminal.
    drawn: Option<Instant>,
}

/// A running stage.
struct Shown {
    began: Instant,
    course: Course,
    /// Whether it waits in the queue of a scheduler.
    is_queued: bool,
}

impl Bars {
    pub(crate) fn new() -> Self {
        Self {
            is_drawn: std::io::stderr().is_terminal(),
            began: Instant::now(),
            experiment: String::new(),
            total: 0,
            ended: 0,
            stages: BTreeMap::new(),
            drawn: None,
        }
    }

    fn print(&mut self, event: &RunEvent) {
        if let Some(line) = plain::line(event) {
            self.clear();
            visible::note(&line);
        }
    }

    fn clear(&mut self) {
        if self.drawn.take().is_some() {
            write(CLEAR);
        }
    }

    fn draw(&mut self) {
        if !self.is_drawn || self.stages.is_empty() {
            return self.clear();
        }
        let lines = self.lines(screen::of_errors());
        self.drawn = Some(Instant::now());
        let mut text =
            format!("{NO_WRAP}\r{}{CLEAR_LINE}", lines.join(&format!("{CLEAR_LINE}\r\n")));
        // What earlier, longer drawings left.
        text.push_str("\u{1b}[J");
        if lines.len() > 1 {
            text.push_str(&format!("\u{1b}[{}A", lines.len() - 1));
        }
        text.push_str(&format!("\r{WRAP}"));
        write(&text);
    }

    /// All lines, none of them wider than the terminal, and not more than fit on it.
    fn lines(&self, size: Size) -> Vec<String> {
        // The cursor is never in the last column: some terminals would begin a new line.
        let room = Size {
            width: size.width.saturating_sub(1),
            height: size.height.saturating_sub(1).max(1),
        };
        let names: Vec<&str> = self.stages.keys().map(StageName::as_str).collect();
        let shown = match self.stages.len() {
            all if all < room.height => all,
            _ => room.height.saturating_sub(2),
        };
        let mut names = names;
        names.truncate(shown);
        let most = Layout::most_of_a_name(room.width);
        let short = width::names(&names, most);
        let experiment = width::cut_end(&visible::line(&self.experiment), most);
        let all = short.iter().chain([&experiment]).map(|name| width::of(name));
        let layout = Layout::of(room.width, all.max().unwrap_or(0));
        let parts: Vec<_> =
            self.stages.values().take(shown).map(|stage| stage.parts(layout)).collect();
        let layout = layout.with_room_for(&parts);
        let stages = short.iter().zip(self.stages.values()).zip(parts);
        let mut lines: Vec<String> = stages
            .map(|((name, stage), parts)| line(name, stage.share(), parts, layout, Paint::Stage))
            .collect();
        let others = self.stages.len() - shown;
        if others > 0 && room.height > 1 {
            let text =
                if shown == 0 { format!("{others} run") } else { format!("and {others} more") };
            lines.push(width::cut_end(&format!("{}{text}", " ".repeat(layout.indent)), room.width));
        }
        let counts = format!("{}/{} stages", self.ended, self.total);
        let whole = vec![counts, elapsed(self.began)];
        let share = Some((self.ended as u64, self.total as u64));
        lines.push(line(&experiment, share, whole, layout, Paint::Whole));
        lines
    }
}

impl Shown {
    /// How much of how much is done.
    fn share(&self) -> Option<(u64, u64)> {
        let progress = self.course.progress.as_ref()?;
        Some((progress.done, progress.total?))
    }

    /// What is known of it, the most important first.
    fn parts(&self, layout: Layout) -> Vec<String> {
        let mut parts = self.course.by_importance();
        if self.share().is_none() {
            parts.insert(0, elapsed(self.began));
            parts.extend(self.is_queued.then(|| "queued".to_owned()));
        } else if layout.bar == 0 {
            // The time left comes first, where it is known.
            let place = usize::from(self.course.left().is_some());
            parts.splice(place..place, self.course.percent());
        }
        parts
    }
}

/// How the width of a line is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    width: usize,
    indent: usize,
    name: usize,
    bar: usize,
}

impl Layout {
    /// How wide a name may be: the numbers need room first.
    fn most_of_a_name(width: usize) -> usize {
        (width / 3).max(NAME).min(width)
    }

    /// For names of this width.
    fn of(width: usize, name: usize) -> Self {
        let bar = if width < NARROW { 0 } else { (width / 6).min(BAR) };
        Self { width, indent: (width.saturating_sub(NARROW) / 8).min(INDENT), name, bar }
    }

    /// The same with a bar that leaves room for the first parts of each line, as far as a narrower one makes room for them.
    fn with_room_for(self, lines: &[Vec<String>]) -> Self {
        let least = self.bar.min(LEAST_BAR);
        let most = Self { bar: least, ..self }.room();
        let first = |parts: &Vec<String>| -> Vec<String> {
            parts.iter().take(BEFORE_BAR).cloned().collect()
        };
        let widths = lines.iter().map(|parts| width::of(&fitting(first(parts), most)));
        let free = most.saturating_sub(widths.max().unwrap_or(0));
        Self { bar: self.bar.min(least + free), ..self }
    }

    /// How wide the parts may be.
    fn room(self) -> usize {
        let bar = if self.bar == 0 { 0 } else { self.bar + 1 };
        self.width.saturating_sub(self.indent + self.name + bar + 1)
    }
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paint {
    Stage,
    Whole,
}

/// A name, a bar, and as many of the parts as fit.
fn line(
    name: &str,
    share: Option<(u64, u64)>,
    parts: Vec<String>,
    layout: Layout,
    paint: Paint,
) -> String {
    let missing = layout.name.saturating_sub(width::of(name));
    let start = format!("{}{name}{}", " ".repeat(layout.indent), " ".repeat(missing));
    let bar = match share {
        Some((done, total)) => bar(done, total, layout.bar, paint),
        None => spinner(layout.bar),
    };
    let bar_width = if layout.bar == 0 { 0 } else { layout.bar + 1 };
    let text = fitting(parts, layout.room());
    let gap = if layout.bar == 0 { "" } else { " " };
    let line = format!("{start}{gap}{bar} {text}");
    match width::of(&start) + bar_width > layout.width {
        true => width::cut_end(&start, layout.width),
        false => line.trim_end().to_owned(),
    }
}

/// As many of the parts as fit into this width.
fn fitting(parts: Vec<String>, room: usize) -> String {
    let mut text = String::new();
    for part in parts {
        let gap = if text.is_empty() { "" } else { ", " };
        if width::of(&text) + gap.len() + width::of(&part) > room {
            // A shorter one may fit.
            continue;
        }
        text.push_str(gap);
        text.push_str(&part);
    }
    text
}

/// A bar of this width.
fn bar(done: u64, total: u64, width: usize, paint: Paint) -> String {
    if width == 0 {
        return String::new();
    }
    let share = if total == 0 { 1.0 } else { (done as f64 / total as f64).clamp(0.0, 1.0) };
    let full = (share * width as f64) as usize;
    let (head, rest) = if full < width { ("╸", width - full - 1) } else { ("", 0) };
    let (done, rest) = (format!("{}{head}", "━".repeat(full)), "─".repeat(rest));
    if !colour::is_for_errors() {
        return format!("{done}{rest}");
    }
    let colour = match paint {
        Paint::Stage => anstyle::AnsiColor::Cyan.on_default(),
        Paint::Whole => anstyle::AnsiColor::Green.on_default(),
    };
    let dimmed = anstyle::Style::new().dimmed();
    format!("{colour}{done}{colour:#}{dimmed}{rest}{dimmed:#}")
}

/// How long ago something was, in whole seconds.
fn elapsed(began: Instant) -> String {
    match began.elapsed().as_secs() {
        seconds @ ..60 => format!("{seconds} s"),
        seconds => format::seconds(seconds as f64),
    }
}

/// What moves where nobody knows how much there is to do.
fn spinner(width: usize) -> String {
    if width == 0 {
        return String::new();
    }
    let frame = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let frame = frame.map_or(0, |since| since.as_millis() / INTERVAL.as_millis()) as usize;
    format!("{}{}", SPINNER[frame % SPINNER.len()], " ".repeat(width - 1))
}

/// A terminal that is gone does not end a run.
fn write(text: &str) {
    let mut errors = std::io::stderr().lock();
    let _ = errors.write_all(text.as_bytes()).and_then(|()| errors.flush());
}

impl Reporter for Bars {
    fn event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Begin { experiment, stages } => {
                self.experiment.clone_from(experiment);
                (self.total, self.began) = (*stages, Instant::now());
            }
            RunEvent::Start { stage, .. } | RunEvent::Again { stage, .. } => {
                self.print(event);
                let owner = match event {
                    RunEvent::Start { owner, .. } => owner.as_ref(),
                    _ => None,
                };
                // A job may have begun long before this run has found it.
                let began = owner.map_or_else(Instant::now, Owner::began);
                let course = Course::default();
                let shown = Shown { began, course, is_queued: false };
                self.stages.insert(stage.clone(), shown);
                self.draw();
            }
            RunEvent::Queued { stage, .. } => {
                self.print(event);
                let course = Course::default();
                let shown = Shown { began: Instant::now(), course, is_queued: true };
                self.stages.insert(stage.clone(), shown);
            }
            RunEvent::Progress { stage, progress } => {
                self.stages
                    .entry(stage.clone())
                    .and_modify(|shown| shown.course.progress(progress));
            }
            RunEvent::Measured { stage, measured } => {
                self.stages
                    .entry(stage.clone())
                    .and_modify(|shown| shown.course.measured(measured));
            }
            RunEvent::End { stage, .. } => {
                self.stages.remove(stage);
                self.ended += 1;
                self.print(event);
            }
            RunEvent::Attempt { stage, .. } => {
                self.stages.remove(stage);
                self.print(event);
            }
            RunEvent::Done { .. } => {
                self.stages.clear();
                self.clear();
            }
            RunEvent::Same { .. }
            | RunEvent::Wait { .. }
            | RunEvent::Note { .. }
            | RunEvent::Remark { .. }
            | RunEvent::Stopping { .. } => self.print(event),
        }
        self.tick();
    }

    fn tick(&mut self) {
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= INTERVAL) {
            self.draw();
        }
    }
}

impl Drop for Bars {
    /// A run that cannot continue does not leave its bars.
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use pipeline_stages::ArtifactType;
    use pipeline_stages::message::{Measured, Progress, Unit};

    use super::super::rate::Rate;
    use super::*;
    use crate::cache::now;
    use crate::events::Setup;
    use crate::key::StageKey;
    use crate::reason::Reason;

    /// Bars of these trainings, each at half of its work.
    fn bars(names: &[&str]) -> Bars {
        let mut bars = Bars::new();
        bars.is_drawn = false;
        bars.event(&RunEvent::Begin { experiment: "noise".to_owned(), stages: 12 });
        for name in names {
            let mut course = Course { rate: Rate::Known(Some(512.4)), ..Course::default() };
            let (total, phase) = (Some(240_000), Some("epoch 60/120".to_owned()));
            course.progress(&Progress { done: 120_000, total, unit: Unit::Images, phase });
            for (name, value) in [("train-accuracy", 0.8731), ("loss", 0.4312)] {
                course.measured(&Measured { step: 1, name: name.to_owned(), value });
            }
            let shown = Shown { began: Instant::now(), course, is_queued: false };
            bars.stages.insert(name.parse().expect("a name"), shown);
        }
        bars
    }

    fn shown(bars: &Bars, width: usize, height: usize) -> String {
        let lines = bars.lines(Size { width, height });
        lines.iter().map(|line| visible::without_colours(line)).collect::<Vec<_>>().join("\n")
    }

    const TWO: [&str; 2] = [
        "train@init=simclr,method=ce,rate=0.5,seed=220",
        "train@init=simclr,method=ce,rate=0.9,seed=220",
    ];

    #[test]
    fn the_time_left_the_loss_and_the_rate_come_first() {
        insta::assert_snapshot!(shown(&bars(&TWO), 150, 24), @r"
        train@init=simclr,method=ce,rate=0.5,seed=220 ━━━━━━━━━━━━╸─────────── 3 min 54 s left, loss 0.4312, 512 images/s, epoch 60/120
        train@init=simclr,method=ce,rate=0.9,seed=220 ━━━━━━━━━━━━╸─────────── 3 min 54 s left, loss 0.4312, 512 images/s, epoch 60/120
        noise                                         ╸─────────────────────── 0/12 stages, 0 s
        ");
        insta::assert_snapshot!(shown(&bars(&TWO), 100, 24), @r"
        train@…,rate=0.5,… ━━━━━━━━╸─────── 3 min 54 s left, loss 0.4312, 512 images/s, epoch 60/120
        train@…,rate=0.9,… ━━━━━━━━╸─────── 3 min 54 s left, loss 0.4312, 512 images/s, epoch 60/120
        noise              ╸─────────────── 0/12 stages, 0 s
        ");
        insta::assert_snapshot!(shown(&bars(&TWO), 60, 24), @r"
        train@…,rate=0.5,… ━━━━╸──── 3 min 54 s left, loss 0.4312
        train@…,rate=0.9,… ━━━━╸──── 3 min 54 s left, loss 0.4312
        noise              ╸──────── 0/12 stages, 0 s
        ");
        insta::assert_snapshot!(shown(&bars(&TWO), 30, 24), @r"
        tra…@…,0.5,… 3 min 54 s left
        tra…@…,0.9,… 3 min 54 s left
        noise        0/12 stages, 0 s
        ");
        insta::assert_snapshot!(shown(&bars(&["evaluate"]), 80, 24), @r"
        evaluate ━━━━━━╸────── 3 min 54 s left, loss 0.4312, 512 images/s
        noise    ╸──────────── 0/12 stages, 0 s
        ");
    }

    #[test]
    fn a_bar_is_narrower_before_a_rate_is_left_out() {
        let one = ["train@init=simclr,rate=0.5"];
        for width in [70, 80, 100, 120] {
            let shown = shown(&bars(&one), width, 24);
            assert!(shown.contains("s left, loss 0.4312, 512 images/s"), "{width}: {shown}");
        }
        insta::assert_snapshot!(shown(&bars(&one), 80, 24), @r"
        train@init=simclr,rate=0.5 ━━╸── 3 min 54 s left, loss 0.4312, 512 images/s
        noise                      ╸──── 0/12 stages, 0 s
        ");
        // A narrower bar would not make room for the rate here.
        insta::assert_snapshot!(shown(&bars(&one), 60, 24), @r"
        train@simclr,0.5 ━━━━╸──── 3 min 54 s left, loss 0.4312
        noise            ╸──────── 0/12 stages, 0 s
        ");
    }

    #[test]
    fn more_stages_than_lines_are_counted() {
        let names: Vec<String> = (0..9).map(|number| format!("train@seed={number}")).collect();
        let bars = bars(&names.iter().map(String::as_str).collect::<Vec<_>>());
        insta::assert_snapshot!(shown(&bars, 60, 6), @r"
        train@seed=0 ━━━━╸──── 3 min 54 s left, loss 0.4312
        train@seed=1 ━━━━╸──── 3 min 54 s left, loss 0.4312
        train@seed=2 ━━━━╸──── 3 min 54 s left, loss 0.4312
        and 6 more
        noise        ╸──────── 0/12 stages, 0 s
        ");
        insta::assert_snapshot!(shown(&bars, 60, 3), @r"
        9 run
        noise ╸──────── 0/12 stages, 0 s
        ");
        let one = shown(&bars, 60, 2);
        assert!(one.starts_with("  noise ╸──────── 0/12 stages, ") && !one.contains('\n'), "{one}");
    }

    #[test]
    fn the_clock_of_a_job_counts_from_its_own_beginning() {
        let mut bars = bars(&[]);
        let owner = |since| Some(Owner { pid: 7, host: "node3".to_owned(), since });
        let named = [("ahead", owner(now() + 3600)), ("found", owner(now() - 600)), ("own", None)];
        for (name, owner) in named {
            bars.event(&RunEvent::Start {
                stage: name.parse().expect("a name"),
                kind: "train",
                key: StageKey::of(&[]),
                why: Reason::NeverRan,
                resumes: false,
                owner,
                setup: Setup {
                    output: ArtifactType::Weights,
                    seed: None,
                    parameters: serde_json::Map::new(),
                },
            });
        }
        let clocks = bars.stages.values().map(|shown| elapsed(shown.began));
        let clocks: Vec<String> = clocks.collect();
        let [ahead, found, own] = &clocks[..] else { panic!("{clocks:?}") };
        assert!(ahead.len() == 3 && own.len() == 3, "a few seconds: {clocks:?}");
        assert!(found.starts_with("10 min 0"), "{found}");
    }

    #[test]
    fn nothing_is_larger_than_the_terminal() {
        for count in [1, 2, 9] {
            let names: Vec<String> =
                (0..count).map(|number| format!("train@seed={number}")).collect();
            let bars = bars(&names.iter().map(String::as_str).collect::<Vec<_>>());
            for (width, height) in
                (1..160).flat_map(|width| (1..12).map(move |height| (width, height)))
            {
                let lines = bars.lines(Size { width, height });
                assert!(lines.len() < height.max(2), "{width}x{height}");
                for line in lines {
                    let own = width::of(&visible::without_colours(&line));
                    assert!(own < width.max(2), "{width}x{height}: {line:?}");
                }
            }
        }
    }
}
