//! What a failure means, and how long to wait before the next try.
//!
//! Pure. Does not depend on the network.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use pipeline_stages::worker::Stopped;

/// The longest pause if the server does not ask for one.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// If the server asks to wait for longer, there is no further try.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Why a transfer failed.
#[derive(Debug)]
pub(super) enum DownloadFailure {
    /// It may be temporary: try again.
    Passing {
        /// What happened, for people.
        reason: String,
        /// How long the server asked to wait.
        wait: Option<Duration>,
    },
    /// This mirror does not have the file.
    Lasting {
        /// What happened, for people.
        reason: String,
    },
    /// The problem is on this machine, such as a full disk.
    Ours(anyhow::Error),
    /// The stage was asked to stop.
    Stopped,
}

impl DownloadFailure {
    /// A failure that may be temporary.
    pub(super) fn passing(reason: impl Into<String>) -> Self {
        Self::Passing { reason: reason.into(), wait: None }
    }

    /// A permanent failure.
    pub(super) fn lasting(reason: impl Into<String>) -> Self {
        Self::Lasting { reason: reason.into() }
    }
}

impl From<Stopped> for DownloadFailure {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// The pause after this many consecutive failures: 1 s, 2 s, 4 s, ... up to a minute.
pub(super) fn delay(failures_before: u32) -> Duration {
    let seconds =
        1_u64.checked_shl(failures_before).filter(|&seconds| seconds > 0).unwrap_or(u64::MAX);
    Duration::from_secs(seconds).min(LONGEST_DELAY)
}

/// The reason, with the number of tries.
pub(super) fn gave_up(reason: &str, retries: u32) -> String {
    match retries {
        0 => reason.to_owned(),
        _ => format!("{reason} (tried {} times)", u64::from(retries) + 1),
    }
}

/// The pause that an HTTP `Retry-After` header asks for (RFC 9110, section 10.2.3): seconds, or a date.
pub fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = httpdate::parse_http_date(header).ok()?;
    Some(then.duration_since(now).unwrap_or_default())
}

/// Reports a failure of this machine's disk, which another mirror would not fix.
pub(super) fn ours<T>(
    result: std::io::Result<T>,
    doing: &str,
    path: &Path,
) -> Result<T, DownloadFailure> {
    result
        .with_context(|| format!("cannot {doing} {}", path.display()))
        .map_err(DownloadFailure::Ours)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn delays_double_up_to_a_minute() {
        let delays = [0, 1, 2, 3, 5, 6, 63, 64, u32::MAX].map(|failures| delay(failures).as_secs());
        assert_eq!(delays, [1, 2, 4, 8, 32, 60, 60, 60, 60]);
    }

    #[test]
    fn servers_ask_for_seconds_or_a_date() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        // The dates are those of RFC 9110, section 5.6.7, and of `date -u -d @951782400` (a leap day).
        for (header, now, expected) in [
            ("120", at(0), Some(120)),
            (" 0 ", at(0), Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", at(784_111_777 - 5), Some(5)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", at(784_111_777 + 5), Some(0)),
            ("Tue, 29 Feb 2000 00:00:00 GMT", at(951_782_400 - 1), Some(1)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", at(0), Some(0)),
            ("-1", at(0), None),
            ("soon", at(0), None),
            ("Sun, 06 Nov 1994 08:49:37 CET", at(0), None),
            ("Sun, 06 Nov 1994 25:49:37 GMT", at(0), None),
        ] {
            assert_eq!(retry_after(header, now).map(|wait| wait.as_secs()), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(header in ".*", day in any::<u64>(), year in any::<u64>()) {
            let _ = retry_after(&header, SystemTime::now());
            let _ = retry_after(&format!("Sun, {day} Jan {year} 08:49:37 GMT"), SystemTime::now());
        }
    }
}
