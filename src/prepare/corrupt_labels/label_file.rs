//! Labels in a CSV file of the user, one for each sample that trains.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use pipeline_stages::formats::Part;
use pipeline_stages::text::{in_short, no_such_class, shortened};
use pipeline_stages::text_file;
use pipeline_stages::worker::Context;

use crate::csv;
use crate::dataset::FILES;
use crate::folder::{Place, entries};

/// A million images of ImageNet with their paths take 60 MB.
const MOST_BYTES: u64 = 1 << 30;
/// How many names a message names.
const NAMED: usize = 5;
/// The file in a folder with several.
const NAME: &str = "labels.csv";

/// Whose labels are read.
pub(super) struct Wanted<'d> {
    /// The artifact of the data set.
    pub(super) data: &'d Path,
    /// The samples that must have a label, in this order.
    pub(super) order: &'d [usize],
    /// The classes of all samples of the training part.
    pub(super) clean: &'d [usize],
    /// The names of the classes.
    pub(super) classes: &'d [String],
}

/// The file with the labels in an artifact: the only file, or the one with this name.
///
/// # Errors
/// When there is none.
pub(super) fn find(artifact: &Path) -> anyhow::Result<PathBuf> {
    let named = artifact.join(NAME);
    if named.is_file() {
        return Ok(named);
    }
    match entries(artifact, Place::Artifact)?.as_slice() {
        [only] if only.is_file() => Ok(only.clone()),
        _ => bail!("the file {NAME} is missing in {}", artifact.display()),
    }
}

/// The classes of the samples of `wanted`, in its order. A note says which rows are of no sample.
///
/// # Errors
/// With the file, the line and what is wrong.
pub(super) fn read(
    file: &Path,
    wanted: &Wanted<'_>,
    context: &Context,
) -> anyhow::Result<Vec<usize>> {
    let text = text_file::read(file, MOST_BYTES)?;
    let files = wanted.data.join(FILES);
    let files = match files.is_file() {
        true => training_files(&text_file::read(&files, MOST_BYTES)?).map(Some),
        false => Ok(None),
    };
    // What a program has written under this name is asked for only where a row needs it.
    let needs_files = |(_, first): (usize, &str)| {
        csv::fields(first).is_some_and(|names| names.contains(&"path".to_owned()))
    };
    let files = match lines(&text, wanted.classes).next().is_some_and(needs_files) {
        true => files?,
        false => files.unwrap_or_default(),
    };
    let found = parse(&text, wanted, files.as_ref())
        .map_err(|(line, wrong)| anyhow!("{}, line {line}: {wrong}", file.display()))?;
    let notes = found.notes(file);
    let classes = found.classes(wanted, files.as_ref());
    let classes = classes.with_context(|| format!("in {}", file.display()));
    notes.into_iter().for_each(|note| context.note(note));
    classes
}

/// The lines with something in them and their numbers, from 1, without the comments before the first and after the last. A comment
/// that names the columns is the first line where no other does: `numpy.savetxt` writes its header as a comment.
fn lines<'t>(text: &'t str, classes: &[String]) -> impl Iterator<Item = (usize, &'t str)> {
    let is_class = |line: &str| {
        let first = csv::fields(line).and_then(|fields| fields.into_iter().next());
        classes.iter().any(|class| class == line.trim() || Some(class) == first.as_ref())
    };
    let is_comment = |line: &str| line.trim_start().starts_with('#') && !is_class(line);
    let text = without_footer(text, is_comment);
    let mut rows = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()).peekable();
    let mut header = None;
    while let Some((number, comment)) = rows.next_if(|(_, line)| is_comment(line)) {
        let names = comment.trim_start().trim_start_matches('#');
        header = if are_names(names) { Some((number, names)) } else { header };
    }
    let is_named = rows.peek().is_some_and(|(_, line)| has_label(line));
    header.filter(|_| !is_named).into_iter().chain(rows)
}

/// A text without the comments at its end.
fn without_footer(mut text: &str, is_comment: impl Fn(&str) -> bool) -> &str {
    loop {
        text = text.trim_end();
        let start = text.rfind('\n').map_or(0, |end| end + 1);
        match is_comment(&text[start..]) {
            true => text = &text[..start],
            false => return text,
        }
    }
}

fn has_label(line: &str) -> bool {
    csv::fields(line).is_some_and(|names| names.contains(&"label".to_owned()))
}

/// Whether a comment has the names of columns, and not a sentence with the word.
fn are_names(comment: &str) -> bool {
    let names = csv::fields(comment).unwrap_or_default();
    let has = |name: &str| names.iter().any(|column| column == name);
    let is_read = has("label") && (names.len() == 1 || has("path") || has("index"));
    is_read || delimiter(&names, true).is_some()
}

/// What is between the names of columns in place of commas. In a comment, one column must name the samples.
fn delimiter(names: &[String], in_comment: bool) -> Option<char> {
    let [line] = names else { return None };
    let is_between = |by: &char| {
        let has = |name: &str| line.split(*by).any(|column| column.trim() == name);
        // A class can have spaces in its name.
        let needs_key = in_comment || *by == ' ';
        has("label") && (!needs_key || has("path") || has("index"))
    };
    [';', '\t', '|', ' '].into_iter().find(is_between).filter(|_| line != "label")
}

/// The place in the training part of each file of a data set; `None` for those of the test part.
type Files = HashMap<String, Option<usize>>;

fn training_files(text: &str) -> anyhow::Result<Files> {
    let test = Part::Test.name();
    let file = |line: &str| {
        let fields = csv::fields(line)?;
        let [index, part, path, _class] = <[String; 4]>::try_from(fields).ok()?;
        let place = (part != test).then(|| index.parse().ok());
        place.map_or(Some((path.clone(), None)), |place| Some((path, Some(place?))))
    };
    let files = text.lines().skip(1).map(file).collect::<Option<Files>>();
    files.with_context(|| format!("{FILES} of the data set cannot be read"))
}

/// What a file says of the samples that it knows.
struct Found {
    /// The class of each sample of the training part that has a row.
    classes: Vec<Option<usize>>,
    /// Rows whose file is not one of the data set: how many, and the first.
    others: usize,
    first_other: Option<String>,
}

/// Which sample a row is of.
#[derive(Clone, Copy)]
enum Key {
    Path(usize),
    Index(usize),
    /// The rows are in the order of the training part.
    Order,
}

/// What is in the columns.
struct Columns {
    key: Key,
    label: usize,
    count: usize,
    has_names: bool,
}

fn columns(first: &[String], files: Option<&Files>) -> Result<Columns, String> {
    let place = |name: &str| first.iter().position(|column| column == name);
    let count = first.len();
    let found = || in_short(first.iter().map(|name| format!("'{}'", shortened(name))), NAMED);
    let is_twice = |name: &&str| first.iter().filter(|column| column == name).count() > 1;
    if let Some(name) = ["label", "path", "index"].iter().find(|name| is_twice(name)) {
        return Err(format!("there are two columns '{name}'; they are {}", found()));
    }
    let Some(label) = place("label") else {
        if let Some(by) = delimiter(first, false) {
            return Err(format!("its columns have {by:?} between them: write commas"));
        }
        if count == 1 {
            return Ok(Columns { key: Key::Order, label: 0, count, has_names: false });
        }
        return Err(format!("the names of the columns need 'label'; they are {}", found()));
    };
    let key = match (place("path"), place("index")) {
        (Some(path), _) if files.is_some() => Key::Path(path),
        (_, Some(index)) => Key::Index(index),
        (Some(_), None) => {
            return Err("'path' is for the data sets of an image-folder: this one does not know the files of its samples; \
                        use 'index', the place of a sample in the training part, from 0"
                .to_owned());
        }
        (None, None) if count == 1 => Key::Order,
        (None, None) => {
            return Err(format!(
                "the names of the columns need 'path' or 'index', for the sample of a row; they are {}",
                found()
            ));
        }
    };
    Ok(Columns { key, label, count, has_names: true })
}

/// Whether a text has labels of two of three samples. What is before an empty line says which files they are. For fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn are_labels(text: &str) -> bool {
    let classes = ["cat", "dog"].map(str::to_owned);
    let wanted =
        Wanted { data: Path::new(""), order: &[2, 0], clean: &[0, 0, 1], classes: &classes };
    let (files, labels) = text.split_once("\n\n").unwrap_or(("", text));
    let files = training_files(files).ok();
    let found = match parse(labels, &wanted, files.as_ref()) {
        Ok(found) => found,
        Err((line, wrong)) => {
            assert!((1..=labels.lines().count().max(1)).contains(&line) && !wrong.is_empty());
            return false;
        }
    };
    let _ = found.notes(Path::new("labels.csv"));
    found.classes(&wanted, files.as_ref()).is_ok_and(|labels| {
        assert!(labels.len() == 2 && labels.iter().all(|label| *label < classes.len()));
        true
    })
}

fn parse(text: &str, wanted: &Wanted<'_>, files: Option<&Files>) -> Result<Found, (usize, String)> {
    let mut lines = lines(text, wanted.classes).peekable();
    let fields = |line, text| {
        csv::fields(text)
            .ok_or((line, "a quote is not closed, or is in the middle of a field".to_owned()))
    };
    let (first, names) = *lines.peek().ok_or((1, "the file is empty".to_owned()))?;
    let columns = columns(&fields(first, names)?, files).map_err(|wrong| (first, wrong))?;
    if columns.has_names {
        lines.next();
    }
    let samples = wanted.clean.len();
    let mut rows: Vec<Option<(usize, String)>> = vec![None; samples];
    let (mut others, mut first_other) = (0, None);
    let (mut count, mut last) = (0, first);
    for (line, text) in lines {
        let mut fields = fields(line, text)?;
        if fields.len() != columns.count {
            let is_spaced = text.split_whitespace().count() == columns.count;
            let remedy = match fields.len() == 1 && is_spaced {
                true => ": write commas between them (delimiter=\",\" of numpy.savetxt)",
                false => "",
            };
            let (own, named) = (fields.len(), columns.count);
            let wrong = format!("it has {own} fields, and the first line {named}{remedy}");
            return Err((line, wrong));
        }
        let sample = match columns.key {
            Key::Path(place) => {
                let path = &fields[place];
                let Some(sample) = files.and_then(|files| files.get(path)) else {
                    others += 1;
                    first_other.get_or_insert_with(|| path.clone());
                    continue;
                };
                let Some(sample) = sample else { continue };
                *sample
            }
            Key::Index(place) => {
                let index = &fields[place];
                index.parse().ok().filter(|&index| index < samples).ok_or_else(|| {
                    let index = shortened(index);
                    (
                        line,
                        format!(
                            "'{index}' is not a whole number from 0 to {}",
                            samples.saturating_sub(1)
                        ),
                    )
                })?
            }
            Key::Order => count,
        };
        (count, last) = (count + 1, line);
        // A row too many in a file without a column for the sample is counted below.
        let Some(row) = rows.get_mut(sample) else { continue };
        if let Some((other, _)) = row {
            return Err((line, format!("the same sample as in line {other}: drop one of them")));
        }
        *row = Some((line, fields.swap_remove(columns.label)));
    }
    if matches!(columns.key, Key::Order) && count != samples {
        let name = match count == samples + 1 && !columns.has_names {
            true => "; if the first line has the name of a column, it must be 'label'",
            false => "",
        };
        let wrong = format!(
            "it ends after {count} labels, but the data set has {samples} training samples{name}"
        );
        return Err((last, wrong));
    }
    let mut trains = vec![false; samples];
    wanted.order.iter().for_each(|&sample| trains[sample] = true);
    rows.iter_mut().zip(trains).filter(|(_, trains)| !trains).for_each(|(row, _)| *row = None);
    Ok(Found { classes: classes(&rows, wanted.classes)?, others, first_other })
}

/// Labels as classes: all of them are names, or all of them are numbers. Where names of classes are other numbers than those of their
/// places, they are names: one that is wrong must not change what all others mean.
fn classes(
    rows: &[Option<(usize, String)>],
    names: &[String],
) -> Result<Vec<Option<usize>>, (usize, String)> {
    let places: HashMap<&str, usize> = names.iter().map(String::as_str).zip(0..).collect();
    let named = |label: &str| places.get(label).copied();
    let labels = || rows.iter().flatten();
    let Some((line, other)) = labels().find(|(_, label)| named(label).is_none()) else {
        return Ok(rows
            .iter()
            .map(|row| row.as_ref().and_then(|(_, label)| named(label)))
            .collect());
    };
    let is_elsewhere = |(place, name): (usize, &String)| {
        name.parse().is_ok_and(|number: i64| usize::try_from(number) != Ok(place))
    };
    let are_names = names.iter().enumerate().any(is_elsewhere);
    let is_fraction = |label: &str| {
        label.parse::<i64>().is_err() && label.parse::<f64>().is_ok_and(f64::is_finite)
    };
    if !are_names && let Some((line, label)) = labels().find(|(_, label)| is_fraction(label)) {
        let label = shortened(label);
        let wrong = format!(
            "'{label}' is not a whole number: write classes as 0, 1, 2 (fmt=\"%d\" of numpy.savetxt), or by name"
        );
        return Err((*line, wrong));
    }
    if are_names || labels().any(|(_, label)| label.parse::<i64>().is_err()) {
        return Err((*line, no_such_class(&shortened(other), names)));
    }
    let number = |(line, label): &(usize, String)| {
        label.parse().ok().filter(|&class| class < names.len()).ok_or_else(|| {
            let last = names.len().saturating_sub(1);
            (*line, format!("the label is {label}, but the classes are numbered from 0 to {last}"))
        })
    };
    rows.iter().map(|row| row.as_ref().map(number).transpose()).collect()
}

impl Found {
    fn notes(&self, file: &Path) -> Option<String> {
        let first = shortened(self.first_other.as_ref()?);
        let (others, file) = (self.others, file.display());
        Some(format!(
            "{file}: rows of other files than those of the data set: {others}, such as '{first}'"
        ))
    }

    /// The classes of the samples that must have one.
    fn classes(&self, wanted: &Wanted<'_>, files: Option<&Files>) -> anyhow::Result<Vec<usize>> {
        let missing = wanted.order.iter().filter(|&&sample| self.classes[sample].is_none());
        let mut missing = missing.copied().peekable();
        let Some(&first) = missing.peek() else {
            return Ok(wanted.order.iter().filter_map(|&sample| self.classes[sample]).collect());
        };
        let mut files = files.into_iter().flatten();
        let file = files.find(|(_, sample)| **sample == Some(first)).map(|(path, _)| path);
        let file = file.map(|path| format!(" ('{}')", shortened(path))).unwrap_or_default();
        let (missing, all) = (missing.count(), wanted.order.len());
        bail!("{missing} of the {all} samples that train have no row, such as sample {first}{file}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// The classes that a text has for three training samples of two classes, of which the first and the last train.
    fn read(text: &str, files: Option<&Files>) -> Result<Vec<usize>, String> {
        let classes = names(&["cat", "dog"]);
        let wanted =
            Wanted { data: Path::new(""), order: &[2, 0], clean: &[0, 0, 1], classes: &classes };
        let found =
            parse(text, &wanted, files).map_err(|(line, wrong)| format!("line {line}: {wrong}"))?;
        found.classes(&wanted, files).map_err(|error| error.to_string())
    }

    fn files() -> Files {
        let text = "index,split,path,class\n0,train,train/cat/1.png,cat\n1,train,\"train/cat/2,b.png\",cat\n\
                    2,val,val/dog/1.png,dog\n0,test,test/cat/1.png,cat\n";
        training_files(text).unwrap()
    }

    #[test]
    fn a_sample_has_the_label_of_its_row() {
        let files = files();
        for text in [
            "path,label\nval/dog/1.png,cat\ntrain/cat/1.png,dog\n",
            // With rows of a sample that does not train, of a test sample and of no sample; in other columns and order.
            "label, by ,path\ndog,a,train/cat/1.png\r\ncat,,val/dog/1.png\n\ncat,,test/cat/1.png\n\
             wolf,,other.png\ncat,,\"train/cat/2,b.png\"\n",
            "index,label\n2,0\n0,1\n",
            "index,path,label\n7,val/dog/1.png,0\n7,train/cat/1.png,1\n",
            // numpy.savetxt, and pandas.
            "1\n0\n0\n",
            "label\ndog\ncat\ncat\n",
            // numpy.savetxt with a header.
            "# label\n1\n0\n0\n",
            "# by hand,\n# in spring\n# index,label\n2,0\n0,1\n",
            "# by hand\n1\n0\n0\n",
            // A comment with the word above the names, and one below the rows.
            "# path, label, and who wrote it\nindex,label\n2,0\n0,1\n# end\n\n# of it\n",
            "# label; by hand\n1\n0\n0\n",
            "# label, by hand\n1\n0\n0\n# end\n",
            "# label\n# by hand\n1\n0\n0\n",
            "# index,label,by\n2,0,a\n0,1,b\n",
        ] {
            assert_eq!(read(text, Some(&files)), Ok(vec![0, 1]), "{text}");
        }
        let classes = names(&["#cat", "dog"]);
        let found = |text: &'static str| lines(text, &classes).collect::<Vec<_>>();
        assert_eq!(found("\n#cat\ndog\n"), [(2, "#cat"), (3, "dog")], "a class");
        assert_eq!(found("dog\n#cat\n# a\n"), [(1, "dog"), (2, "#cat")], "a class");
        assert_eq!(found("label,path\n#cat,a.png"), [(1, "label,path"), (2, "#cat,a.png")]);
        assert_eq!(found("# a\n\n#label\ndog\n#b"), [(3, "label"), (4, "dog")]);
        assert_eq!(found("# a\n#label\n"), []);
        assert_eq!(read("index,path,label\n2,a,0\n0,b,1\n", None), Ok(vec![0, 1]));
    }

    #[test]
    fn numbers_are_names_where_all_of_them_are() {
        let label = |text: &str, names: &[&str]| {
            let row = |(line, label): (usize, &str)| Some((line, label.to_owned()));
            let rows: Vec<_> = text.split(' ').enumerate().map(row).collect();
            let found = classes(&rows, &self::names(names)).map_err(|(line, _)| line)?;
            Ok::<Vec<usize>, usize>(found.into_iter().flatten().collect())
        };
        assert_eq!(label("1 10 2", &["1", "10", "2"]), Ok(vec![0, 1, 2]));
        // One wrong name does not make numbers of all others.
        assert_eq!(label("1 2 0", &["1", "10", "2"]), Err(2));
        assert_eq!(label("1 2", &["01", "02", "03"]), Err(0));
        assert_eq!(label("2 0 1", &["cat", "dog", "owl"]), Ok(vec![2, 0, 1]));
        assert_eq!(label("2 0 1", &["0", "1", "2"]), Ok(vec![2, 0, 1]));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(index|path|label|cat|[0-3a,\" ]|\n)*") {
            let _ = read(&text, Some(&files()));
        }
    }

    #[test]
    fn mistakes_are_shown_at_their_line() {
        let files = files();
        for (text, files, words) in [
            ("", None, "line 1: the file is empty"),
            ("file,label\n", None, "line 1: the names of the columns need 'path' or 'index'"),
            (
                "index,noisy\n0,1",
                None,
                "line 1: the names of the columns need 'label'; they are 'index', 'noisy'",
            ),
            ("path,label\na,cat", None, "line 1: 'path' is for the data sets of an image-folder"),
            ("index,label\n3,0", None, "line 2: '3' is not a whole number from 0 to 2"),
            ("index,label\n-1,0", None, "line 2: '-1' is not a whole number"),
            ("index,label\n0,0\n0,1", None, "line 3: the same sample as in line 2"),
            ("index,label\n0,0,1", None, "line 2: it has 3 fields, and the first line 2"),
            ("index,label\n0,\"0", None, "line 2: a quote is not closed"),
            (
                "index,label\n0,2\n2,1",
                None,
                "line 2: the label is 2, but the classes are numbered from 0 to 1",
            ),
            (
                "index,label\n0,cat\n2,dgo",
                None,
                "line 3: the class 'dgo' does not exist; did you mean 'dog'?",
            ),
            ("index,label\n0,cat\n2,1", None, "line 3: the class '1' does not exist"),
            ("path;label\na;cat", None, "line 1: its columns have ';' between them: write commas"),
            ("index\tlabel\n0\tcat", None, "line 1: its columns have '\\t' between them"),
            ("# index label\n0 1", None, "line 1: its columns have ' ' between them: write commas"),
            (
                "# index,label\n0 1",
                None,
                "line 2: it has 1 fields, and the first line 2: write commas between them",
            ),
            ("0\n1.0e+00\n1.0e+00\n", None, "line 3: '1.0e+00' is not a whole number"),
            ("index,label\n0,\n2,1", None, "line 2: the class '' does not exist"),
            (
                "0\n1\n",
                None,
                "line 2: it ends after 2 labels, but the data set has 3 training samples",
            ),
            ("0\n1\n1\n0\n", None, "line 4: it ends after 4 labels"),
            (
                "index,label\n0,0",
                None,
                "1 of the 2 samples that train have no row, such as sample 2",
            ),
            ("path,label\nval/dog/1.png,cat", Some(&files), "such as sample 0 ('train/cat/1.png')"),
        ] {
            let wrong = read(text, files).unwrap_err();
            assert!(wrong.contains(words), "{text}: {wrong}");
        }
    }
}
