//! What holds for any text: it is read or it is wrong, every mistake can be shown, nothing panics.

use std::path::Path;

use proptest::prelude::*;

use super::super::{Override, parse, read};
use super::matrix::NOISE;
use super::{GOOD, right};
use crate::diagnostic::{Colour, MOST_SHOWN, Mistakes};

/// Reads the text, and shows every mistake as a user would see it.
fn read_and_show(text: &str, overrides: &[Override]) -> Option<Mistakes> {
    let mistakes = parse(Path::new("x.toml"), text, overrides).err()?;
    let shown = mistakes.render(Colour::Never);
    let count = mistakes.list().len().min(MOST_SHOWN);
    assert_eq!(shown.matches("\nerror: ").count(), count, "{shown}");
    for words in ["invalid type", "expected a ", "this is not TOML", ", expected `"] {
        assert!(mistakes.list().iter().all(|mistake| !mistake.title().contains(words)), "{shown}");
    }
    assert!(shown.ends_with("; nothing was run\n"), "{shown}");
    assert!(!shown.contains("bug in `pipeline`"), "{shown}");
    Some(mistakes)
}

/// Pieces that make text look like a manifest.
fn piece() -> impl Strategy<Value = String> {
    let words = vec![
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ".",
        ",",
        "\"",
        "'",
        "\"\"\"",
        "\n",
        "\r\n",
        "\t",
        " ",
        "#",
        "\\",
        "\\u",
        "-",
        "0x",
        "1e",
        "_",
        "nan",
        "inf",
        "true",
        "3",
        "-1",
        "0.5",
        "1979-05-27",
        "99999999999999999999",
        "stages",
        "experiment",
        "execution",
        "kind",
        "name",
        "seed",
        "data",
        "\"train\"",
        "\"split\"",
        "\"data\"",
        "[stages.a]\n",
        "[experiment]\n",
        "kind = \"train\"\n",
        "data = \"a\"\n",
        "inputs",
        "[matrix]\n",
        "[[matrix.exclude]]\n",
        "[defaults.train]\n",
        "x = [1, 2]\n",
        "${x}",
        "${",
        "with = [",
        "train@x=1",
        "@",
        "\u{feff}",
        "é",
        "数",
        "👩‍🔬",
        "\u{0}",
        "\u{1b}[31m",
        "\u{202e}",
    ];
    prop_oneof![8 => proptest::sample::select(words).prop_map(str::to_owned), 1 => any::<String>()]
}

/// The good manifest, or one with a matrix, with some of its letters replaced by other text.
fn edited() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0_usize..12, piece());
    let text = proptest::sample::select(vec![GOOD, NOISE]);
    (text, proptest::collection::vec(edit, 1..6)).prop_map(|(text, edits)| {
        let mut text: Vec<char> = text.chars().collect();
        for (place, length, new) in edits {
            let start = place.index(text.len() + 1);
            let end = (start + length).min(text.len());
            text.splice(start..end, new.chars());
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_wrong(text in any::<String>()) {
        read_and_show(&text, &[]);
    }

    #[test]
    fn any_pieces_are_read_or_wrong(pieces in proptest::collection::vec(piece(), 0..60)) {
        read_and_show(&pieces.concat(), &[]);
    }

    #[test]
    fn any_edit_is_read_or_wrong(text in edited()) {
        read_and_show(&text, &[]);
    }

    #[test]
    fn any_override_is_read_or_wrong(path in "(stages|experiment|execution|matrix|defaults)(\\.(train|data|name|inputs|\"q r\")){0,4}", value in any::<String>()) {
        if let Ok(given) = format!("{path}={value}").parse::<Override>() {
            read_and_show(GOOD, std::slice::from_ref(&given));
        }
    }

    #[test]
    fn any_text_is_an_override_or_none(text in any::<String>()) {
        if let Ok(given) = text.parse::<Override>() {
            prop_assert_eq!(given.to_string(), text);
            read_and_show(GOOD, std::slice::from_ref(&given));
        }
    }

    /// A name with one wrong letter is one mistake, with the right name in its hint.
    #[test]
    fn a_typo_in_a_key_is_one_mistake(line in any::<prop::sample::Index>(), letter in "[a-z]") {
        // What follows are names that the manifest gives to inputs: any would do.
        let end = GOOD.find("[stages.summary.inputs]").expect("it is the last table");
        let lines: Vec<&str> = GOOD[..end].lines().collect();
        let keys: Vec<_> = lines.iter().enumerate().filter_map(|(number, line)| {
            let key = line.split_once(" = ")?.0;
            (key.len() > 4).then_some((number, key))
        }).collect();
        let (number, key) = keys[line.index(keys.len())];
        let typo = format!("{key}{letter}");
        prop_assume!(typo != "outputs");
        let mut edited: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        edited[number] = edited[number].replacen(key, &typo, 1);
        let mistakes = read_and_show(&edited.join("\n"), &[]).expect("the key is wrong");
        prop_assert_eq!(mistakes.list().len(), 1, "{}", mistakes);
        let title = mistakes.list()[0].title();
        prop_assert!(title.contains(&format!("'{typo}'")) && title.contains(&format!("'{key}'")), "{}", title);
    }

    /// Comments and empty lines between lines change nothing but the lines' numbers.
    #[test]
    fn comments_change_nothing(places in proptest::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let mut lines: Vec<&str> = GOOD.lines().collect();
        for place in places {
            lines.insert(place.index(lines.len() + 1), "# a comment: [stages.x] = \"");
        }
        let mut stages = right(&lines.join("\r\n"), &[]).0.stages.to_vec();
        let mut expected = right(GOOD, &[]).0.stages.to_vec();
        stages.iter_mut().chain(&mut expected).for_each(|stage| stage.line = 0);
        prop_assert_eq!(stages, expected);
    }
}

#[test]
fn files_that_cannot_be_read_are_mistakes() {
    let folder = tempfile::tempdir().expect("a folder");
    let show = |path: &Path| match read(path, &[]) {
        Ok(_) => panic!("{} is no manifest", path.display()),
        Err(mistakes) => mistakes.to_string(),
    };
    let missing = show(&folder.path().join("missing.toml"));
    assert!(
        missing.contains("error: cannot read") && missing.contains("pipeline init"),
        "{missing}"
    );
    assert!(show(folder.path()).contains("name the manifest's file"));

    let bytes = folder.path().join("bytes.toml");
    std::fs::write(&bytes, b"[experiment]\nname = \"caf\xe9\"\n").expect("written");
    let bytes = show(&bytes);
    assert!(bytes.contains("not UTF-8") && bytes.contains("bytes.toml:2:12"), "{bytes}");

    let good = folder.path().join("good.toml");
    std::fs::write(&good, GOOD).expect("written");
    let (manifest, _) = read(&good, &[]).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(manifest.folder, folder.path());
}

#[test]
fn overrides_that_are_none_say_how_to_write_one() {
    for text in ["", "epochs", "=3", ".=3", "a b=3", "stages..x=3", "[a]=3", "\"=3", "#=3", "a\n=3"]
    {
        let Err(message) = text.parse::<Override>() else { panic!("{text:?} is an override") };
        assert!(message.ends_with("write it as stages.train.epochs=3"), "{message}");
    }
}
