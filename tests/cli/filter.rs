//! Blanks what differs from run to run and from machine to machine: paths, digests, times, random names.
//!
//! Knows text only.

use std::path::PathBuf;

/// Blanks what differs from run to run.
#[derive(Clone)]
pub struct Filter {
    /// Paths and other texts, and what stands for each.
    pub paths: Vec<(PathBuf, &'static str)>,
}

impl Filter {
    /// The text with all that blanked.
    pub fn apply(&self, text: &str) -> String {
        let text = self.paths.iter().fold(text.to_owned(), |text, (path, name)| {
            text.replace(&*path.to_string_lossy(), name)
        });
        let text = blank_memory(&blank_shares(&blank_shards(&blank_times(&blank_digests(
            &blank_runs(&blank_processes(&text)),
        )))));
        // The columns beside a time are as wide as the time was long.
        let timed = text.contains("[time]");
        let lines = text.lines().map(|line| if timed { narrow(line) } else { line.to_owned() });
        lines.map(|line| line + "\n").collect()
    }
}

/// Digests in full (64 digits), for people (12) and in file names (16), and random names.
fn blank_digests(text: &str) -> String {
    let is_digit = |letter: char| matches!(letter, '0'..='9' | 'a'..='f');
    let is_digest = |word: &str| matches!(word.len(), 12 | 16 | 64) && word.chars().all(is_digit);
    let mut blanked = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let length = word.max(first.len_utf8());
        let (token, after) = rest.split_at(length);
        let blank = if is_digest(token) && !blanked.ends_with("default: ") {
            "[digest]"
        } else if blanked.ends_with(".new-") {
            "[random]"
        } else {
            token
        };
        blanked.push_str(blank);
        rest = after;
    }
    blanked
}

/// The folders of records and logs: two digits of a key.
fn blank_shards(text: &str) -> String {
    ["/records/", "/logs/"].iter().fold(text.to_owned(), |text, folder| {
        let mut parts = text.split(folder);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| format!("{text}{folder}[..]{}", part.get(2..).unwrap_or("")))
    })
}

/// The names of runs, `20261126-224501`, and moments, `2026-11-26 22:45:01 UTC`.
fn blank_runs(text: &str) -> String {
    let is_like = |text: &str, form: &str| {
        let mut letters = text.chars();
        form.chars().all(|wanted| match (wanted, letters.next()) {
            ('0', Some(letter)) => letter.is_ascii_digit(),
            (wanted, letter) => letter == Some(wanted),
        })
    };
    let forms = [("00000000-000000", "[run]"), ("0000-00-00 00:00:00 UTC", "[moment]")];
    let (mut blanked, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        let form = forms.iter().find(|(form, _)| is_like(rest, form));
        let (length, shown) = match form {
            Some((form, blank)) => (form.len(), *blank),
            None => (first.len_utf8(), &rest[..first.len_utf8()]),
        };
        blanked.push_str(shown);
        rest = &rest[length..];
        if let (Some(_), Some(after)) = (form, rest.strip_prefix('-')) {
            // Another run of the same second.
            rest = after.trim_start_matches(|letter: char| letter.is_ascii_digit());
        }
    }
    blanked
}

/// Times as people read them: `7 ms`, `0.12 s`.
fn blank_times(text: &str) -> String {
    let is_number = |word: &str| {
        word.contains('.') && word.chars().all(|letter| letter.is_ascii_digit() || letter == '.')
    };
    let is_count =
        |word: &str| !word.is_empty() && word.chars().all(|letter| letter.is_ascii_digit());
    let mut blanked = String::new();
    for line in text.split_inclusive('\n') {
        let mut words = line.split(' ').peekable();
        while let Some(word) = words.next() {
            let unit = words.peek().map(|next| next.trim_end_matches(['\n', ':', ';', ',']));
            let in_seconds = is_number(word) && unit == Some("s");
            let in_milliseconds = is_count(word) && unit == Some("ms");
            if in_seconds || in_milliseconds {
                let rest = words.next().unwrap_or_default().trim_start_matches(['m', 's']);
                blanked.push_str("[time]");
                blanked.push_str(rest);
            } else {
                blanked.push_str(word);
            }
            if words.peek().is_some() {
                blanked.push(' ');
            }
        }
    }
    blanked
}

/// Of how much of its work the time of a continued run is: `for its last 39 %`, `(last 39 %)`.
fn blank_shares(text: &str) -> String {
    let mut parts = text.split("last ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let rest = part.trim_start_matches(|letter: char| letter.is_ascii_digit());
        match rest.strip_prefix(" %") {
            Some(rest) if rest.len() + 2 < part.len() => format!("{text}last [share]{rest}"),
            _ => format!("{text}last {part}"),
        }
    })
}

/// The number of a process: `(process 4711 on lab2)`.
fn blank_processes(text: &str) -> String {
    let mut parts = text.split("(process ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let rest = part.trim_start_matches(|letter: char| letter.is_ascii_digit());
        format!("{text}(process [number]{rest}")
    })
}

/// How much memory something took: `data took [time], cpu [time], memory 12 MB`.
fn blank_memory(text: &str) -> String {
    let line = |line: &str| match line.split_once(", memory ") {
        Some((before, after)) if before.contains(" took ") => {
            let size = after.find(',').unwrap_or(after.len());
            format!("{before}, memory [size]{}\n", &after[size..])
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn narrow(line: &str) -> String {
    let margin = line.len() - line.trim_start().len();
    let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
    format!("{}{}", &line[..margin], cells.collect::<Vec<_>>().join("  "))
}
