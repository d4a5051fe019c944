//! The body of `download`: one mirror after the other, until one has the right file.
//!
//! [`http`] and [`local`] read a mirror, [`retry`] decides when to try again, [`partial`] keeps interrupted
//! transfers, [`checksum`] verifies the file.

mod checksum;
mod http;
mod local;
mod partial;
mod retry;
#[cfg(test)]
mod server;
mod stream;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use anyhow::anyhow;
use pipeline_stages::kinds::Download;
use pipeline_stages::message::{Metrics, Progress, Unit};
use pipeline_stages::url::masked;
use pipeline_stages::worker::{Context, Stopped};

use crate::body::Body;
use crate::credentials::Credentials;
use crate::web_page::is_web_page;
use checksum::Checksums;
use http::Client;
use partial::{Origin, Partial};
use retry::DownloadFailure;

pub use retry::retry_after;

impl Body for Download {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let (credentials, note) = Credentials::of_the_user(|name| std::env::var_os(name));
        if let Some(note) = note {
            context.note(note);
        }
        let client = Client::new(self, credentials, Box::new(|name| std::env::var_os(name)))?;
        Downloader { stage: self, context, client, pause: &pause }.run()
    }
}

/// Waits, at most until the stage is asked to stop.
fn pause(context: &Context, time: Duration) -> Result<(), Stopped> {
    let started = Instant::now();
    while let Some(left) = time.checked_sub(started.elapsed()) {
        context.stop_point()?;
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
    context.stop_point()
}

/// One stage of the kind, and what it works with.
struct Downloader<'a> {
    stage: &'a Download,
    context: &'a Context,
    client: Client,
    /// How to wait. Tests do not wait.
    pause: &'a dyn Fn(&Context, Duration) -> Result<(), Stopped>,
}

impl Downloader<'_> {
    fn run(&self) -> anyhow::Result<Metrics> {
        let mut failures = Vec::new();
        for (index, url) in self.stage.url.0.iter().enumerate() {
            let mirrors = self.stage.url.0.len();
            let phase = (mirrors > 1).then(|| format!("mirror {}/{mirrors}", index + 1));
            match self.fetch(url, phase.as_deref()) {
                Ok(metrics) => return Ok(metrics),
                Err(DownloadFailure::Stopped) => return Err(Stopped.into()),
                Err(DownloadFailure::Ours(error)) => return Err(error),
                Err(
                    DownloadFailure::Passing { reason, .. } | DownloadFailure::Lasting { reason },
                ) => {
                    if index + 1 < mirrors {
                        self.context
                            .note(format!("{}: {reason}; trying the next mirror", masked(url)));
                    }
                    failures.push(format!("{}: {reason}", masked(url)));
                }
            }
        }
        Err(self.all_failed(&failures))
    }

    /// Downloads the file from one mirror to the output folder.
    fn fetch(&self, url: &str, phase: Option<&str>) -> Result<Metrics, DownloadFailure> {
        let (context, most) = (self.context, self.stage.max_bytes);
        let checking = self.progress(Some("checking the partial file"));
        let mut partial = Partial::open(context, url, most, &checking)?;
        let mut started_over = false;
        loop {
            self.transfer(url, phase, &mut partial)?;
            let digests = partial.digests();
            match Checksums::of(self.stage).check(&digests, partial.len(), partial.beginning()) {
                Ok(()) => {
                    self.note_unverified(&digests.blake3, &partial);
                    let bytes = partial.len();
                    let to = context.output.join(self.stage.file_name());
                    partial.finish(&to, context, &self.progress(Some("copying")))?;
                    self.stage
                        .url
                        .0
                        .iter()
                        .try_for_each(|url| partial::forget(&context.checkpoint, url))?;
                    let mut metrics = Metrics::new();
                    metrics.insert_count("bytes", bytes);
                    return Ok(metrics);
                }
                // The pieces may be of two versions of the file: again, in one piece.
                Err(_) if partial.origin() == Origin::Pieces && !started_over => {
                    started_over = true;
                    partial.start_over()?;
                }
                Err(reason) => {
                    partial.remove()?;
                    return Err(DownloadFailure::Lasting { reason });
                }
            }
        }
    }

    /// Reports how many bytes of how many are done.
    fn progress<'a>(&'a self, phase: Option<&'a str>) -> impl Fn(u64, Option<u64>) + 'a {
        move |done, total| {
            self.context.progress(Progress {
                done,
                total,
                unit: Unit::Bytes,
                phase: phase.map(str::to_owned),
            });
        }
    }

    /// Transfers the rest of the file, and tries again if that can help. Consecutive failures count: a transfer that
    /// got further than all before it resets the count, unless it was too slow for that.
    fn transfer(
        &self,
        url: &str,
        phase: Option<&str>,
        partial: &mut Partial,
    ) -> Result<(), DownloadFailure> {
        let mut failures_in_a_row = 0;
        let mut furthest = partial.len();
        let mut paused = Duration::ZERO;
        let progress = self.progress(phase);
        loop {
            let started = Instant::now();
            let result = match Download::local_path(url) {
                Some(path) => {
                    local::copy(&self.context.folder.join(path), partial, self.context, &progress)
                }
                None => {
                    self.client.get(url, !self.stage.unverified, partial, self.context, &progress)
                }
            };
            let Err(DownloadFailure::Passing { reason, wait }) = result else { return result };
            let came = partial.len().saturating_sub(furthest);
            if came > 0 {
                furthest = partial.len();
                // The time includes the pause: otherwise a server that sends one byte per connection would be asked forever.
                if self.client.least_speed().is_reached(came, started.elapsed() + paused) {
                    failures_in_a_row = 0;
                }
            }
            if failures_in_a_row >= self.stage.retries {
                return Err(DownloadFailure::Lasting {
                    reason: retry::gave_up(&reason, self.stage.retries),
                });
            }
            paused = retry::delay(failures_in_a_row).max(wait.unwrap_or_default());
            failures_in_a_row += 1;
            self.context.note(format!(
                "{}: {reason}; trying again in {} s",
                masked(url),
                paused.as_secs()
            ));
            (self.pause)(self.context, paused)?;
        }
    }

    fn note_unverified(&self, blake3: &str, partial: &Partial) {
        if !self.stage.unverified {
            return;
        }
        self.context.note(format!("not verified; to pin the content, set blake3 = \"{blake3}\""));
        if is_web_page(partial.beginning()) && !self.stage.file_name().ends_with("html") {
            self.context.note("the file is a web page: a login page, or an error?");
        }
    }

    fn all_failed(&self, failures: &[String]) -> anyhow::Error {
        let name = self.stage.file_name();
        let mut message = match failures {
            [only] => format!("cannot download '{name}' from {only}"),
            several => format!(
                "cannot download '{name}' from any of {} mirrors:\n  {}",
                several.len(),
                several.join("\n  ")
            ),
        };
        if let Some(instructions) = &self.stage.instructions {
            message.push('\n');
            message.push_str(instructions);
        }
        anyhow!(message)
    }
}
