//! Tables of comma-separated values that stages write into their artifacts, for a page: of bounded size, and lenient.

use serde::Serialize;

/// A table with more columns is something else.
const MOST_COLUMNS: usize = 100;

/// A table of numbers. NaN and what is not a number are `None`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Numbers {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<Option<f64>>>,
    /// How many rows the file has, where not all of them are here.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<usize>,
}

impl Numbers {
    /// The numbers of a text with a line of names; at most about `most` rows, at even distances, with the first and the last.
    pub(super) fn read(text: &str, most: usize) -> Option<Self> {
        let mut lines = text.lines();
        let columns = fields(lines.next()?);
        if columns.len() > MOST_COLUMNS {
            return None;
        }
        let lines: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
        let step = lines.len().div_ceil(most.max(1)).max(1);
        let last = lines.len().saturating_sub(1);
        let kept =
            lines.iter().enumerate().filter(|(index, _)| index % step == 0 || *index == last);
        let rows = kept.map(|(_, line)| {
            let mut row: Vec<Option<f64>> =
                fields(line).iter().map(|field| number(field)).collect();
            row.resize(columns.len(), None);
            row
        });
        let rows: Vec<_> = rows.collect();
        let is_table = rows.iter().flatten().any(Option::is_some);
        is_table.then(|| Self {
            of: (rows.len() < lines.len()).then_some(lines.len()),
            columns,
            rows,
        })
    }
}

/// A finite number, with six digits: what a plot can show.
fn number(field: &str) -> Option<f64> {
    let value: f64 = field.trim().parse().ok().filter(|value: &f64| value.is_finite())?;
    rounded(value)
}

/// A finite number with six digits.
pub(super) fn rounded(value: f64) -> Option<f64> {
    format!("{value:.5e}").parse().ok()
}

/// Counts by true class (rows) and by predicted class (columns).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    pub(super) classes: Vec<String>,
    pub(super) rows: Vec<Vec<u64>>,
}

impl Counts {
    /// The counts in a `confusion.csv`. `None` if the text is something else.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let classes = fields(lines.next()?).split_off(1);
        let row = |line: &str| -> Option<Vec<u64>> {
            let row: Vec<u64> = fields(line)
                .iter()
                .skip(1)
                .map(|field| field.parse().ok())
                .collect::<Option<_>>()?;
            (row.len() == classes.len()).then_some(row)
        };
        let rows: Vec<Vec<u64>> =
            lines.filter(|line| !line.is_empty()).map(row).collect::<Option<_>>()?;
        (!classes.is_empty() && rows.len() == classes.len()).then_some(Self { classes, rows })
    }
}

/// The fields of a line (RFC 4180, without line breaks in fields). At least one.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field) = (Vec::new(), String::new());
    let mut letters = line.chars().peekable();
    let mut is_quoted = false;
    while let Some(letter) = letters.next() {
        match letter {
            '"' if is_quoted && letters.peek() == Some(&'"') => {
                field.push('"');
                letters.next();
            }
            '"' if is_quoted || field.is_empty() => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(std::mem::take(&mut field)),
            letter => field.push(letter),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_read_as_trainings_write_them() {
        let table = Numbers::read("epoch,loss,clean\n1,2.2222222222222223,NaN\n2,inf,0.5\n", 10)
            .expect("a table");
        assert_eq!(table.columns, ["epoch", "loss", "clean"]);
        assert_eq!(table.rows, [[Some(1.0), Some(2.22222), None], [Some(2.0), None, Some(0.5)]]);
        assert_eq!(table.of, None);
        assert_eq!(Numbers::read("", 10), None);
        assert_eq!(Numbers::read(&format!("a{}\n1\n", ",a".repeat(MOST_COLUMNS)), 10), None);
        assert_eq!(Numbers::read("a,b\nx,y\n", 10), None);
    }

    #[test]
    fn long_tables_are_thinned_with_both_ends() {
        let text: String =
            (0..1000).fold("epoch\n".to_owned(), |text, row| text + &format!("{row}\n"));
        let table = Numbers::read(&text, 100).expect("a table");
        assert!((90..=102).contains(&table.rows.len()), "{}", table.rows.len());
        assert_eq!(
            (table.rows.first(), table.rows.last()),
            (Some(&vec![Some(0.0)]), Some(&vec![Some(999.0)]))
        );
        assert_eq!(table.of, Some(1000));
    }

    #[test]
    fn counts_are_read_as_evaluations_write_them() {
        let counts = Counts::read("true class,a,\"b, \"\"c\"\"\"\na,2,0\n\"b, \"\"c\"\"\",1,3\n")
            .expect("counts");
        assert_eq!(counts.classes, ["a", "b, \"c\""]);
        assert_eq!(counts.rows, [[2, 0], [1, 3]]);
        for text in
            ["", "x", "true class,a\na,-1\n", "true class,a\n", "true class,a,b\na,1\nb,1\n"]
        {
            assert_eq!(Counts::read(text), None, "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_makes_it_panic(text in "[\"\\n,a0-9.e<-]*", most in 0_usize..5) {
            let _ = Numbers::read(&text, most);
            let _ = Counts::read(&text);
        }
    }
}
