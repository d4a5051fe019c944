//! A noise matrix from a text file of the user: a line for each true class, a number for each label.

use std::path::Path;

use crate::text::shortened;
use crate::text_file;
use anyhow::anyhow;

/// A thousand classes need 26 MB with all digits.
const MOST_BYTES: u64 = 64 << 20;
/// How far a row may be from a sum of one: its numbers may be rounded.
const ROUNDING: f64 = 1e-3;

/// The matrix over this many classes in a file: a row of probabilities, which sum to 1, for each true class.
///
/// # Errors
/// With the file, the line and what is wrong.
pub fn read(path: &Path, classes: usize) -> anyhow::Result<Vec<Vec<f64>>> {
    let text = text_file::read(path, MOST_BYTES)?;
    parse(&text, Some(classes)).map_err(|wrong| at_line(path, wrong))
}

/// Over how many classes the matrix in a file is: for when it is not known how many there are.
///
/// # Errors
/// As [`read`].
pub fn check(path: &Path) -> anyhow::Result<usize> {
    let text = text_file::read(path, MOST_BYTES)?;
    parse(&text, None).map(|rows| rows.len()).map_err(|wrong| at_line(path, wrong))
}

fn at_line(path: &Path, (line, wrong): (usize, String)) -> anyhow::Error {
    anyhow!("{}, line {line}: {wrong}", path.display())
}

/// Of as many classes as the first row has numbers, where it is not known how many there are.
fn parse(text: &str, classes: Option<usize>) -> Result<Vec<Vec<f64>>, (usize, String)> {
    let mut lines =
        (1..).zip(text.lines()).filter(|(_, line)| fields(line).next().is_some()).peekable();
    let is_header = |line| fields(line).all(|field| field.parse::<f64>().is_err());
    let header = lines.next_if(|(_, line)| is_header(line)).map(|(line, _)| line);
    let (classes, why) = match (classes, lines.peek()) {
        (Some(classes), _) => (classes, format!("the data set has {classes} classes")),
        (None, Some((line, first))) => {
            let numbers = fields(first).count();
            (numbers, format!("line {line} has {numbers} numbers, one for each class"))
        }
        (None, None) => return Err((1, "it has no rows of numbers".to_owned())),
    };
    let mut rows = Vec::new();
    let mut last = 1;
    for (line, text) in lines {
        if rows.len() == classes {
            let names =
                if header.is_some() { "" } else { "; names in a first line must not be numbers" };
            return Err((line, format!("a row too many: {why}{names}")));
        }
        rows.push(row(text, classes, &why).map_err(|wrong| (line, wrong))?);
        last = line;
    }
    if rows.len() < classes {
        let found = rows.len();
        let names = |line| format!("; line {line} was taken for names: none of them is a number");
        let names = header.map(names).unwrap_or_default();
        return Err((last, format!("it ends after {found} rows, but {why}{names}")));
    }
    Ok(rows)
}

/// What is between commas and spaces, before a comment.
fn fields(line: &str) -> impl Iterator<Item = &str> {
    let line = line.split_once('#').map_or(line, |(line, _)| line);
    let between = |letter: char| letter == ',' || letter.is_whitespace();
    line.split(between).filter(|field| !field.is_empty())
}

/// A row over this many classes; `why` says why there are as many.
fn row(line: &str, classes: usize, why: &str) -> Result<Vec<f64>, String> {
    let found = fields(line).count();
    if found != classes {
        return Err(format!("it has {found} numbers, but {why}"));
    }
    let probability = |field: &str| {
        let number = field.parse().ok().filter(|number| (0.0..=1.0).contains(number));
        number.ok_or_else(|| format!("'{}' is not a probability from 0 to 1", shortened(field)))
    };
    let row = fields(line).map(probability).collect::<Result<Vec<f64>, _>>()?;
    let sum: f64 = row.iter().sum();
    if sum == 0.0 {
        return Err("it is all zeros: put 1 on the diagonal to keep the class clean".to_owned());
    }
    if (sum - 1.0).abs() > ROUNDING {
        return Err(format!("its numbers sum to {sum}, not to 1: divide each of them by the sum"));
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_of_other_programs() {
        let expected = Ok(vec![vec![0.75, 0.25], vec![0.0, 1.0]]);
        for text in [
            "0.75,0.25\n0,1\n",
            "0.75, 0.25\r\n\r\n0, 1",
            // numpy.savetxt, with a header of its own.
            "# two classes\n7.500000e-01 2.500000e-01\n0.0e+00 1.0e+00\n",
            // The transition.csv of a training.
            "given-0,given-1\n0.75,0.25\n0,1\n",
            "\t.75\t.25 # a cat\n0 1\n\n",
        ] {
            assert_eq!(parse(text, Some(2)), expected, "{text}");
            assert_eq!(parse(text, None), expected, "{text}");
        }
        assert!(parse("0.333 0.333 0.333\n0 0 1\n1 0 0", Some(3)).is_ok(), "rounded");
    }

    #[test]
    fn a_file_is_checked_before_the_classes_are_known() {
        for (text, line, words) in [
            ("", 1, "it has no rows of numbers"),
            ("cat dog\n", 1, "it has no rows of numbers"),
            ("1 0\n", 1, "it ends after 1 rows, but line 1 has 2 numbers, one for each class"),
            ("cat dog\n1 0\n0.5 0.5\n0 1", 4, "a row too many: line 2 has 2 numbers"),
            ("1 0\n0 0.5 0.5", 2, "it has 3 numbers, but line 1 has 2 numbers"),
            ("1 0\n0.5 0.4", 2, "its numbers sum to 0.9, not to 1"),
        ] {
            let (found, wrong) = parse(text, None).unwrap_err();
            assert!(found == line && wrong.starts_with(words), "{text}: {found}, {wrong}");
        }
    }

    #[test]
    fn mistakes_are_shown_at_their_line() {
        for (text, line, words) in [
            ("", 1, "ends after 0 rows, but the data set has 2 classes"),
            ("1 0\n\n", 1, "ends after 1 rows"),
            ("1 0\n0 1\n\n0 1\n", 4, "a row too many: the data set has 2 classes"),
            ("1 0\n0.2 0.3 0.5", 2, "it has 3 numbers, but the data set has 2 classes"),
            ("1,0\n0.2,,", 2, "it has 1 numbers"),
            ("1 0\n0 x", 2, "'x' is not a probability from 0 to 1"),
            ("1 0\na b", 2, "'a' is not a probability"),
            ("1 0\n-0.5 1.5", 2, "'-0.5' is not a probability"),
            ("1 0\nnan 1", 2, "'nan' is not a probability"),
            ("1 0\ninf 1", 2, "'inf' is not a probability"),
            ("1;0\n0;1", 2, "it has 1 numbers"),
            ("# a\n0.5 0.4\n0 1", 2, "sum to 0.9, not to 1"),
            ("1 0\n0.6 0.6", 2, "sum to 1.2"),
            ("1 0\n0 0", 2, "it is all zeros: put 1 on the diagonal"),
            ("0,1\n1,0\n0,1", 3, "has 2 classes; names in a first line must not be numbers"),
            ("O.9 O.1\n0 1", 2, "2 classes; line 1 was taken for names: none of them is a number"),
        ] {
            let (found, wrong) = parse(text, Some(2)).unwrap_err();
            assert_eq!(found, line, "{text}: {wrong}");
            assert!(wrong.contains(words), "{text}: {wrong}");
        }
        for text in ["1 0\n", "a b\n1 0\n0 1\n0 1"] {
            let (_, wrong) = parse(text, Some(2)).unwrap_err();
            assert!(wrong.ends_with("2 classes"), "{text}: {wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_numpy_would_write_reads_back(
            weights in proptest::collection::vec(proptest::collection::vec(0.01..1.0_f64, 5), 5),
        ) {
            let row = |row: &Vec<f64>| {
                let sum: f64 = row.iter().sum();
                row.iter().map(|weight| weight / sum).collect::<Vec<f64>>()
            };
            let rows: Vec<_> = weights.iter().map(row).collect();
            let line = |row: &Vec<f64>| {
                row.iter().map(|number| format!("{number:e}")).collect::<Vec<_>>().join(" ")
            };
            let text = rows.iter().map(line).collect::<Vec<_>>().join("\n");
            prop_assert_eq!(parse(&text, Some(5)), Ok(rows));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9.e ,#\n-]*", classes in 0_usize..4) {
            if let Ok(rows) = parse(&text, Some(classes)) {
                prop_assert_eq!(rows.len(), classes);
            }
            if let Ok(rows) = parse(&text, None) {
                prop_assert!(rows.iter().all(|row| row.len() == rows.len()));
            }
        }
    }
}
