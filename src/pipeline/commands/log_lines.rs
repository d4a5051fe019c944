//! What was read of a log and is not shown yet: lines are shown whole, as far as that is possible.

use std::time::{Duration, Instant};

/// How much of a log is read at once, and the most that is kept of a line that has not come to its end, in bytes.
pub(super) const BLOCK: u64 = 1 << 20;

/// A line that has not come to its end is shown after this time: it may be a question, or a bar that is drawn again and again.
const PATIENCE: Duration = Duration::from_millis(700);

/// The beginning of a line that has not come to its end.
#[derive(Default)]
pub(super) struct Unfinished {
    bytes: Vec<u8>,
    /// Since when there is some of it.
    since: Option<Instant>,
}

impl Unfinished {
    /// Adds what was read at this time. Returns what can be shown: whole lines, or a part of one that is too long to be kept.
    pub(super) fn add(&mut self, block: &[u8], at: Instant) -> Vec<u8> {
        let end = block.iter().rposition(|byte| *byte == b'\n').map(|last| last + 1);
        let is_long = (self.bytes.len() + block.len()) as u64 >= BLOCK;
        let (lines, rest) = block.split_at(end.unwrap_or(if is_long { block.len() } else { 0 }));
        let mut shown = if lines.is_empty() { Vec::new() } else { self.take() };
        shown.extend(lines);
        if !rest.is_empty() {
            self.bytes.extend(rest);
            self.since.get_or_insert(at);
        }
        shown
    }

    /// Whether it is there for so long that its end is not waited for.
    pub(super) fn is_late(&self, at: Instant) -> bool {
        self.since.is_some_and(|since| at.duration_since(since) > PATIENCE)
    }

    /// All of it.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.since = None;
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_written_again_and_again_is_shown_after_a_while() {
        let (mut rest, began) = (Unfinished::default(), Instant::now());
        let at = |tenths: u64| began + Duration::from_millis(100 * tenths);
        assert_eq!(rest.add(b"a\nb\nc", at(0)), b"a\nb\n");
        assert_eq!(rest.add(b"d\n\r 0 %", at(5)), b"cd\n");
        for tenths in 6..=12 {
            assert_eq!(rest.add(b"\r 9 %", at(tenths)), b"");
            assert!(!rest.is_late(at(tenths)), "since the line before has ended");
        }
        assert_eq!(rest.add(b"", at(13)), b"");
        assert!(rest.is_late(at(13)), "since it has begun, whenever it grew last");
        assert!(rest.take().starts_with(b"\r 0 %\r 9 %"));
        assert!(!rest.is_late(at(99)), "nothing is left");
    }

    #[test]
    fn a_line_without_an_end_is_not_kept() {
        let (mut rest, now) = (Unfinished::default(), Instant::now());
        let half = vec![b'x'; BLOCK as usize / 2];
        assert_eq!(rest.add(&half, now), b"");
        assert_eq!(rest.add(&half, now).len() as u64, BLOCK);
        assert_eq!(rest.take(), b"");
    }
}
