//! A user's mistakes, each shown at the user's own line.
//!
//! Knows sources (a manifest, what was given with `--set`) and places in them. Does not know what a
//! manifest means, and prints nothing: it produces text. Takes time in proportion to the sources and the
//! mistakes, however many there are.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, normalize_untrusted_str};
use pipeline_stages::url::blanked;

use crate::visible;

/// A range of bytes in [`Sources`], counted through all of them.
pub(crate) type Span = Range<usize>;

/// How many mistakes are shown. Nobody reads more, and the rest often follows from these.
pub(crate) const MOST_SHOWN: usize = 100;

/// Whether text is coloured with ANSI escape codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    /// It is: for a terminal.
    Always,
    /// It is not: for files, pipes and tests.
    Never,
}

/// The texts that a command reads. Each has its own range of positions, so that a [`Span`] alone says
/// in which text it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sources {
    /// What the mistakes are in, for the last line: `pipelines/quickstart.toml`.
    subject: String,
    all: Vec<Source>,
}

#[derive(Debug, Clone, PartialEq)]
struct Source {
    origin: Origin,
    text: String,
    start: usize,
    /// Where its lines end, in bytes: a manifest of a thousand stages asks for a thousand lines.
    ends: Vec<usize>,
    /// What is not shown, in order.
    hidden: Vec<Range<usize>>,
}

/// Where a text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file: its lines have numbers.
    File(String),
    /// The command line: one argument.
    CommandLine,
}

impl Sources {
    /// Without texts yet. `subject` is named in the last line of a report: the mistakes are in it.
    pub(crate) fn new(subject: impl Into<String>) -> Self {
        Self { subject: visible::line(&subject.into()).into_owned(), all: Vec::new() }
    }

    /// Adds a text and returns the position at which it starts. The first one starts at zero.
    pub(crate) fn add(&mut self, origin: Origin, text: impl Into<String>) -> usize {
        // One position is between two texts, so that the end of one is not the start of the next.
        let start = self.all.last().map_or(0, |last| last.start + last.text.len() + 1);
        let origin = match origin {
            Origin::File(name) => Origin::File(visible::line(&name).into_owned()),
            Origin::CommandLine => origin,
        };
        let text = text.into();
        let ends = text.match_indices('\n').map(|(end, _)| end).collect();
        self.all.push(Source { origin, text, start, ends, hidden: Vec::new() });
        start
    }

    /// Hides these parts of the text that was added last: they are shown as `***`. Each is a range of whole
    /// characters, counted from the start of that text, and they are in order.
    pub(crate) fn hide(&mut self, parts: Vec<Range<usize>>) {
        if let Some(last) = self.all.last_mut() {
            last.hidden = parts;
        }
    }

    /// Also hides what is at `span`.
    fn hide_at(&mut self, span: &Span) {
        let Some((found, place)) = self.locate(span) else { return };
        let start = found.start;
        let Some(source) = self.all.iter_mut().find(|source| source.start == start) else { return };
        source.hidden.retain(|hidden| hidden.start < place.start || hidden.end > place.end);
        source.hidden.push(place);
        source.hidden.sort_by_key(|hidden| (hidden.start, hidden.end));
    }

    /// The number of the line, from 1, on which `span` starts.
    pub(crate) fn line(&self, span: &Span) -> usize {
        self.locate(span).map_or(1, |(source, local)| source.line_of(local.start) + 1)
    }

    /// The file, line and column (from 1, in characters) at which `span` starts: `experiment.toml:12:3`.
    pub(crate) fn place(&self, span: &Span) -> String {
        let Some((source, local)) = self.locate(span) else { return self.subject.clone() };
        let name = match &source.origin {
            Origin::File(name) => name,
            Origin::CommandLine => "the command line",
        };
        let before = &source.text[..local.start];
        let column = before.chars().rev().take_while(|&letter| letter != '\n').count() + 1;
        format!("{name}:{}:{column}", source.line_of(local.start) + 1)
    }

    /// Whether `span` is in a file, not on the command line.
    pub(crate) fn is_in_file(&self, span: &Span) -> bool {
        self.file_of(span).is_some()
    }

    /// The name of the file that `span` is in. `None` on the command line.
    pub(crate) fn file_of(&self, span: &Span) -> Option<&str> {
        match &self.locate(span)?.0.origin {
            Origin::File(name) => Some(name),
            Origin::CommandLine => None,
        }
    }

    /// The name and the text of every file, with as many stars in place of what is secret.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        self.all.iter().filter_map(|source| match &source.origin {
            Origin::File(name) => Some((name.as_str(), source.shown(0..source.text.len()))),
            Origin::CommandLine => None,
        })
    }

    /// The text of every file, as it is.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        let is_file = |source: &&Source| matches!(source.origin, Origin::File(_));
        self.all.iter().filter(is_file).map(|source| &*source.text)
    }

    /// What was added on the command line, each with its option, and without what is secret.
    pub(crate) fn options(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let given = self.all.iter().filter(|source| source.origin == Origin::CommandLine);
        given.map(|source| source.shown(0..source.text.len()))
    }

    /// The text at `span`.
    pub(crate) fn text(&self, span: &Span) -> &str {
        self.locate(span).map_or("", |(source, local)| &source.text[local])
    }

    /// The text that holds `span`, and the span within it, widened to whole characters.
    fn locate(&self, span: &Span) -> Option<(&Source, Range<usize>)> {
        let after = self.all.partition_point(|source| source.start <= span.start);
        let source = self.all.get(after.checked_sub(1)?)?;
        let local = |position: usize| position.saturating_sub(source.start).min(source.text.len());
        let start = source.text.floor_char_boundary(local(span.start));
        let end = source.text.ceil_char_boundary(local(span.end)).max(start);
        Some((source, start..end))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    span: Option<Span>,
    title: String,
    label: Option<String>,
    others: Vec<(Span, Other)>,
    helps: Vec<String>,
}

/// What a mistake says of another place.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Other {
    /// The words beside it.
    Related(String),
    /// No message shows it, this one or another.
    Hidden,
}

impl Mistake {
    /// Whether it is at the place of another one.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        self.span.is_some() && self.span == other.span
    }

    pub(crate) fn at(span: Span, title: impl Into<String>) -> Self {
        Self { span: Some(span), ..Self::general(title) }
    }

    /// A mistake that has no place: a file that cannot be read.
    pub(crate) fn general(title: impl Into<String>) -> Self {
        Self { span: None, title: title.into(), label: None, others: Vec::new(), helps: Vec::new() }
    }

    /// Adds to the title: `unknown key 'epoch'` and `did you mean 'epochs'?`.
    pub(crate) fn and(mut self, more: &str) -> Self {
        self.title.push_str(", ");
        self.title.push_str(more);
        self
    }

    /// Adds the words beside the caret.
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Adds a related place, and the words beside it.
    pub(crate) fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.others.push((span, Other::Related(label.into())));
        self
    }

    /// Adds a line about what to do. An empty one is left out.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.helps.extend(Some(help.into()).filter(|help| !help.is_empty()));
        self
    }

    /// Without the lines about what to do that start with this text.
    pub(crate) fn without_help(mut self, start: &str) -> Self {
        self.helps.retain(|help| !help.starts_with(start));
        self
    }

    /// Hides what is at this place, in all messages: it may be a password.
    pub(crate) fn hiding(mut self, place: Span) -> Self {
        self.others.push((place, Other::Hidden));
        self
    }

    /// The same mistake, `by` bytes further on.
    pub(crate) fn moved(mut self, by: usize) -> Self {
        let spans = self.span.iter_mut().chain(self.others.iter_mut().map(|(span, _)| span));
        spans.for_each(|span| *span = span.start + by..span.end + by);
        self
    }

    /// Where it is.
    pub(crate) fn span(&self) -> Option<&Span> {
        self.span.as_ref()
    }

    /// What is wrong, in one line.
    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// The lines about what to do.
    pub(crate) fn helps(&self) -> &[String] {
        &self.helps
    }
}

/// All mistakes in some [`Sources`].
#[derive(Debug, Clone)]
pub(crate) struct Mistakes {
    sources: Sources,
    list: Vec<Mistake>,
}

impl Mistakes {
    /// The mistakes of `list`, by position and each once.
    pub(crate) fn new(mut sources: Sources, mut list: Vec<Mistake>) -> Self {
        let others = list.iter().flat_map(|mistake| &mistake.others);
        let hidden = others.filter(|(_, other)| *other == Other::Hidden);
        hidden.for_each(|(place, _)| sources.hide_at(place));
        list.sort_by_key(|mistake| mistake.span.as_ref().map(|span| (span.start, span.end)));
        let mut seen = HashSet::new();
        list.retain(|mistake| seen.insert((mistake.span.clone(), mistake.title.clone())));
        Self { sources, list }
    }

    /// The mistakes, by position.
    #[cfg(test)]
    pub(crate) fn list(&self) -> &[Mistake] {
        &self.list
    }

    /// The first [`MOST_SHOWN`] of them as text: per mistake its title, its place, a caret and what to
    /// do, then the number of all. Ends with a newline.
    pub(crate) fn render(&self, colour: Colour) -> String {
        // The file could not be read: there is no place to show, and no mistake in it.
        if self.sources.all.is_empty() {
            let words = |mistake: &Mistake| {
                let parts = std::iter::once(&mistake.title).chain(&mistake.helps);
                let line = parts.map(String::as_str).collect::<Vec<_>>().join("; ");
                let line = Group::with_title(Level::ERROR.primary_title(line));
                colour.renderer().render(&[line]) + "\n"
            };
            return self.list.iter().map(words).collect();
        }
        let shown = self.list.get(..MOST_SHOWN).unwrap_or(&self.list);
        let mut text = self.sources.show(Level::ERROR, shown, colour);
        let count = match self.list.len() {
            1 => "1 mistake".to_owned(),
            count => format!("{count} mistakes"),
        };
        let rest = match self.list.len() - shown.len() {
            0 => String::new(),
            _ => format!("; the first {} are shown", shown.len()),
        };
        let summary = format!("{count} in {}{rest}; nothing was run", self.sources.subject);
        let summary = Group::with_title(Level::ERROR.primary_title(summary));
        text.push_str(&colour.renderer().render(&[summary]));
        text.push('\n');
        text
    }
}

/// What is probably unintended in some [`Sources`], but not a mistake.
#[derive(Debug, Clone)]
pub(crate) struct Warnings(Mistakes);

impl Warnings {
    /// The warnings of `list`, by position and each once.
    pub(crate) fn new(sources: Sources, list: Vec<Mistake>) -> Self {
        Self(Mistakes::new(sources, list))
    }

    /// The first [`MOST_SHOWN`] of them as text, each as a mistake is shown. Empty if there are none.
    pub(crate) fn render(&self, colour: Colour) -> String {
        let Mistakes { sources, list } = &self.0;
        sources.show(Level::WARNING, list.get(..MOST_SHOWN).unwrap_or(list), colour)
    }
}

impl Colour {
    fn renderer(self) -> Renderer {
        match self {
            Self::Always => Renderer::styled(),
            Self::Never => Renderer::plain(),
        }
    }
}

/// A title that repeats a long value: its beginning and its end.
fn in_short(title: String) -> String {
    const END: usize = 200;
    let length = title.chars().count();
    if length <= 4 * END {
        return title;
    }
    let start: String = title.chars().take(2 * END).collect();
    let end: String = title.chars().skip(length - END).collect();
    format!("{start} … {end}")
}

/// A place to be shown, in its text, and the words beside it.
type Annotation<'a> = (AnnotationKind, Range<usize>, Option<&'a str>);

impl Sources {
    /// Each of the mistakes with its lines, and an empty line after it.
    fn show(&self, level: Level<'static>, mistakes: &[Mistake], colour: Colour) -> String {
        let renderer = colour.renderer();
        let mut text = String::new();
        for mistake in mistakes {
            let title = in_short(self.without_secrets(mistake, &mistake.title));
            let title = level.clone().primary_title(title);
            let mut group = title.elements(self.snippets(mistake));
            for help in &mistake.helps {
                let help = self.without_secrets(mistake, help);
                group = group.element(Level::HELP.message(normalize_untrusted_str(&help)));
            }
            // A title may repeat a value.
            for line in blanked(&renderer.render(&[group])).lines() {
                text.push_str(line.trim_end());
                text.push('\n');
            }
            text.push('\n');
        }
        text
    }

    /// A text of a mistake, which may repeat the value that it is about, without what is hidden there.
    fn without_secrets(&self, mistake: &Mistake, text: &str) -> String {
        let mut text = text.to_owned();
        let Some((source, place)) = mistake.span.as_ref().and_then(|span| self.locate(span)) else {
            return text;
        };
        let touches =
            |hidden: &&Range<usize>| hidden.start <= place.end && place.start <= hidden.end;
        for hidden in source.hidden.iter().filter(touches) {
            let secret = source.text.get(hidden.clone()).unwrap_or_default();
            let secret = secret
                .trim_matches(|letter: char| "\"'".contains(letter) || letter.is_whitespace());
            // What does not have a user or a query is an example, too: `localhost:5000`.
            if secret.contains(['@', '?']) {
                text = text.replace(secret, "***");
            }
        }
        text
    }

    /// The lines of a mistake: those of its own place, then those of related places in other texts.
    fn snippets<'a>(
        &'a self,
        mistake: &'a Mistake,
    ) -> Vec<Snippet<'a, annotate_snippets::Annotation<'a>>> {
        let own = mistake.span.iter().map(|span| (AnnotationKind::Primary, span, &mistake.label));
        let own = own.map(|(kind, span, label)| (kind, span, label.as_deref()));
        let related = mistake.others.iter().filter_map(|(span, other)| match other {
            Other::Related(label) => Some((AnnotationKind::Context, span, Some(label.as_str()))),
            Other::Hidden => None,
        });
        let mut places: Vec<(&Source, Vec<Annotation<'_>>)> = Vec::new();
        for (kind, span, label) in own.chain(related) {
            let Some((source, local)) = self.locate(span) else { continue };
            match places.iter_mut().find(|(other, _)| other.start == source.start) {
                Some((_, annotations)) => annotations.push((kind, local, label)),
                None => places.push((source, vec![(kind, local, label)])),
            }
        }
        places.into_iter().map(|(source, annotations)| source.snippet(annotations)).collect()
    }
}

impl Source {
    /// The lines from the first of these places to the last: a snippet of the whole text would cost as
    /// much as the text is long, for every mistake.
    fn snippet<'a>(
        &'a self,
        annotations: Vec<Annotation<'a>>,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let start = annotations.iter().map(|(_, span, _)| span.start).min().unwrap_or(0);
        let end = annotations.iter().map(|(_, span, _)| span.end).max().unwrap_or(0);
        let first = self.line_of(start);
        let start = if first == 0 { 0 } else { self.ends[first - 1] + 1 };
        let end = self.ends.get(self.line_of(end)).map_or(self.text.len(), |end| end + 1);
        let snippet = Snippet::source(self.shown(start..end)).line_start(first + 1);
        let annotations = annotations.into_iter().map(|(kind, span, label)| {
            kind.span(span.start - start..span.end - start).label(label)
        });
        let snippet = snippet.annotations(annotations);
        match &self.origin {
            Origin::File(name) => snippet.path(name.as_str()),
            // The line starts with the option, which shows where it comes from.
            Origin::CommandLine => snippet.line_numbering(false),
        }
    }

    /// The text at `place`, with as many bytes in place of what is secret.
    fn shown(&self, place: Range<usize>) -> Cow<'_, str> {
        let mut shown = blanked(&self.text[place.clone()]);
        let first = self.hidden.partition_point(|hidden| hidden.end <= place.start);
        for hidden in self.hidden[first..].iter().take_while(|hidden| hidden.start < place.end) {
            let start = hidden.start.max(place.start) - place.start;
            let end = hidden.end.min(place.end) - place.start;
            let stars: String =
                shown[start..end].bytes().map(|b| if b == b'\n' { '\n' } else { '*' }).collect();
            shown.to_mut().replace_range(start..end, &stars);
        }
        shown
    }

    /// The line of a position, from 0.
    fn line_of(&self, position: usize) -> usize {
        self.ends.partition_point(|&end| end < position)
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(Colour::Never).trim_end())
    }
}

impl std::error::Error for Mistakes {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sources() -> Sources {
        let mut sources = Sources::new("x.toml");
        sources.add(Origin::File("x.toml".to_owned()), "one = 1\r\nzwölf = 12\n");
        sources
    }

    #[test]
    fn a_span_identifies_its_text() {
        let mut sources = sources();
        let second = sources.add(Origin::CommandLine, "--set a=1");
        assert_eq!(sources.text(&(0..3)), "one");
        assert_eq!(sources.text(&(second + 6..second + 7)), "a");
        assert_eq!((sources.line(&(0..3)), sources.line(&(9..10))), (1, 2));
        // One within a letter is widened to it; one beyond the end is cut.
        assert_eq!(sources.text(&(12..13)), "ö");
        assert_eq!(sources.text(&(second + 8..second + 99)), "1");
    }

    #[test]
    fn mistakes_are_sorted_by_position_and_shown_once() {
        let list = vec![
            Mistake::at(9..14, "second"),
            Mistake::general("general"),
            Mistake::at(0..3, "first"),
            Mistake::at(9..14, "second").help("the same again"),
        ];
        let mistakes = Mistakes::new(sources(), list);
        let titles: Vec<_> = mistakes.list().iter().map(Mistake::title).collect();
        assert_eq!(titles, ["general", "first", "second"]);
        assert!(mistakes.to_string().ends_with("error: 3 mistakes in x.toml; nothing was run"));
    }

    #[test]
    fn the_first_hundred_are_shown_and_the_rest_is_counted() {
        for (count, summary) in [
            (100, "error: 100 mistakes in x.toml; nothing was run"),
            (101, "error: 101 mistakes in x.toml; the first 100 are shown; nothing was run"),
        ] {
            let list = (0..count).map(|number| Mistake::at(0..3, format!("mistake {number}")));
            let mistakes = Mistakes::new(sources(), list.collect());
            assert_eq!(mistakes.list().len(), count);
            let shown = mistakes.to_string();
            assert!(shown.ends_with(summary), "{shown}");
            assert_eq!(shown.matches("error: mistake ").count(), 100);
        }
    }

    #[test]
    fn a_password_in_a_url_is_never_shown() {
        let mut sources = Sources::new("x.toml");
        let text = format!("{}url = \"http://ann:s3cret@h/a\"", "long, ".repeat(30));
        let (at, end) = (text.find("url").expect("it has a URL"), text.len());
        sources.add(Origin::File("x.toml".to_owned()), text);
        for start in at..end {
            let mistake =
                Mistake::at(start..start + 1, "in 'x://ann:s3cret@h'").help("not y://s3cret@h");
            let shown = Mistakes::new(sources.clone(), vec![mistake]).render(Colour::Always);
            assert!(!shown.contains("s3") && !shown.contains("ann"), "{shown}");
        }
    }

    #[test]
    fn there_is_colour_only_when_it_is_asked_for() {
        let mistake = Mistake::at(0..3, "a\u{1b}[31m title").help("do \u{1b}[31m this");
        let mistakes = Mistakes::new(sources(), vec![mistake]);
        assert!(!mistakes.render(Colour::Never).contains('\u{1b}'));
        let coloured = mistakes.render(Colour::Always);
        assert!(coloured.contains('\u{1b}') && !coloured.contains("\u{1b}[31m"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The mistake is shown, regardless of its span.
        #[test]
        fn every_span_can_be_shown(text in any::<String>(), start in 0_usize..80, length in 0_usize..80, other in 0_usize..80) {
            let mut sources = Sources::new("x.toml");
            sources.add(Origin::File("x.toml".to_owned()), text.clone());
            sources.add(Origin::CommandLine, text);
            let mistake = Mistake::at(start..start + length, "wrong").label("here").related(other..other, "there");
            let shown = Mistakes::new(sources, vec![mistake]).render(Colour::Always);
            prop_assert!(shown.contains("wrong"));
        }
    }
}
