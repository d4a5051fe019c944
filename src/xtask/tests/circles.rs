//! No files of a room import each other in a circle. Rooms are read as text: this needs none of them to be built.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The crates below `src`.
const ROOMS: [&str; 5] = ["learn", "pipeline", "prepare", "stages", "xtask"];

/// The circles that stay.
const EXCEPTIONS: [&[&str]; 1] = [
    // An arena: values have items, entries and NumPy's numbers, and these are made of values.
    &["prepare/pickle/numpy.rs", "prepare/pickle/parts.rs", "prepare/pickle/value.rs"],
];

type Module = Vec<String>;

/// The files of a crate.
type Room = BTreeMap<Module, File>;

/// What each file imports.
type Imports<'r> = BTreeMap<&'r str, BTreeSet<&'r str>>;

struct File {
    /// Below `src`.
    path: String,
    /// Without comments and tests.
    text: String,
}

/// Reads a folder of a room, with what is below it.
fn read(folder: &Path, path: &str, module: &Module, room: &mut Room) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let place = entry.unwrap().path();
        let name = place.file_stem().unwrap().to_str().unwrap();
        let is_root = name == "lib" || name == "main" && !folder.join("lib.rs").exists();
        let is_other = ["benches", "examples", "build", "main"].contains(&name) && !is_root;
        if name == "tests" || module.is_empty() && is_other {
            continue;
        }
        let path = format!("{path}/{}", place.file_name().unwrap().to_str().unwrap());
        let mut child = module.clone();
        child.extend((name != "mod" && !is_root).then(|| name.to_owned()));
        if place.is_dir() {
            read(&place, &path, &child, room);
        } else if path.ends_with(".rs") {
            let text = std::fs::read_to_string(&place).unwrap();
            room.insert(child, File { path, text: without_tests(&text) });
        }
    }
}

/// A text without comments and tests. What is above a module within the file is that file.
fn without_tests(text: &str) -> String {
    let (mut read, mut is_within) = (String::new(), false);
    let mut lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    while let Some(line) = lines.next() {
        let is_module =
            line.starts_with("mod ") || line.starts_with("pub") && line.contains(" mod ");
        if is_module && line.ends_with("mod tests {") {
            lines.find(|line| *line == "}");
        } else if is_module && line.ends_with('{') {
            is_within = true;
        } else {
            is_within &= line != "}";
            read +=
                &if is_within { line.replacen("super::", "self::", 1) } else { line.to_owned() };
            read += "\n";
        }
    }
    read
}

/// What follows a word that begins a path. Not within another path or name, nor in `pub(in crate::…)`, which imports nothing; what a
/// macro names with `$crate` is imported where it is used.
fn follows<'t>(text: &'t str, word: &str) -> impl Iterator<Item = &'t str> {
    let begins = |before: &str| {
        let is_within = |c: char| c.is_alphanumeric() || "_:$".contains(c);
        !before.ends_with(is_within) && !before.ends_with("(in ")
    };
    let places = text.match_indices(word).map(|(place, word)| (place, place + word.len()));
    places.filter(move |(place, _)| begins(&text[..*place])).map(|(_, end)| &text[end..])
}

/// The files that a module names, by `crate`, `super`, `self` or as its own child, with `use` or without.
fn imports<'r>(module: &Module, room: &'r Room) -> BTreeSet<&'r str> {
    let parent = module[..module.len().saturating_sub(1)].to_vec();
    let of_crate = [("crate::".to_owned(), vec![]), ("super::".to_owned(), parent)];
    let children =
        room.keys().filter(|child| child.split_last().is_some_and(|(_, of)| of == module));
    let children = children.map(|child| (format!("{}::", child[module.len()]), child.clone()));
    let words = of_crate.into_iter().chain([("self::".to_owned(), module.clone())]).chain(children);
    let mut found = BTreeSet::new();
    for (word, base) in words {
        for rest in follows(&room[module].text, &word) {
            let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let (path, rest) = rest.split_at(rest.find(|c| !is_path(c)).unwrap_or(rest.len()));
            let items = rest.strip_prefix('{').and_then(|rest| rest.split('}').next());
            let items = items.unwrap_or_default();
            assert!(!items.contains('{'), "{}: one import within another", room[module].path);
            for item in items.split(',') {
                let item = item.split_whitespace().next().unwrap_or_default();
                let (mut target, path) = (base.clone(), format!("{path}{item}"));
                for name in path.split("::") {
                    let child = [&target[..], &[name.to_owned()]].concat();
                    if name == "super" {
                        target.pop();
                    } else if room.contains_key(&child) {
                        target = child;
                    } else {
                        break;
                    }
                }
                found.insert(target);
            }
        }
    }
    found.remove(module);
    found.iter().filter_map(|target| Some(&*room.get(target)?.path)).collect()
}

fn all_imports(room: &Room) -> Imports<'_> {
    room.iter().map(|(module, file)| (&*file.path, imports(module, room))).collect()
}

/// The files to which imports lead from one, directly or not.
fn reached<'r>(from: &'r str, all: &Imports<'r>) -> BTreeSet<&'r str> {
    let (mut open, mut seen) = (vec![from], BTreeSet::new());
    while let Some(file) = open.pop() {
        open.extend(all[file].iter().copied().filter(|next| seen.insert(*next)));
    }
    seen
}

/// The circles of a room: the files of each, with what each of them imports of these.
fn circles<'r>(all: &Imports<'r>) -> BTreeSet<Imports<'r>> {
    let reached: Imports<'_> = all.keys().map(|&file| (file, reached(file, all))).collect();
    let circle = |&file: &&str| -> Imports<'r> {
        let back = |other: &&&str| reached[**other].contains(file);
        let circle: BTreeSet<&str> = reached[file].iter().filter(back).copied().collect();
        circle.iter().map(|&file| (file, &all[file] & &circle)).collect()
    };
    all.keys().map(circle).filter(|circle| !circle.is_empty()).collect()
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (mut count, mut kept, mut wrong) = (0, BTreeSet::new(), String::new());
    for name in ROOMS {
        let mut room = Room::new();
        read(&source.join(name), name, &vec![], &mut room);
        let all = all_imports(&room);
        count += all.values().map(BTreeSet::len).sum::<usize>();
        for circle in circles(&all) {
            let files: Vec<&str> = circle.keys().copied().collect();
            if let Some(exception) = EXCEPTIONS.iter().find(|exception| **exception == files) {
                kept.insert(*exception);
                continue;
            }
            wrong += "\na circle:\n";
            for (file, imported) in circle {
                wrong += &format!("  {file} imports {}\n", Vec::from_iter(imported).join(", "));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_eq!(kept, EXCEPTIONS.into(), "these are circles no longer: take them off the list");
    assert!(count > 1000, "hardly any import was found: {count}");
}

#[test]
fn what_a_file_names_is_imported() {
    let mut room = Room::new();
    for (module, text) in [
        ("", "mod a; mod b; pub use a::A;"),
        ("a", "mod c;\nuse super::b::{B, self};\nfn f() { c::g() }\nmod tests {\n    crate::X\n}"),
        (
            "a/c",
            "pub(in crate::a) struct C;\nmod d {\n    use super::C;\n}\nuse super::super::b as e;\n$crate::a",
        ),
        ("b", "use crate::{X, a::C}; // super::a"),
    ] {
        let names = module.split('/').filter(|name| !name.is_empty()).map(str::to_owned);
        let file = File { path: module.to_owned(), text: without_tests(text) };
        room.insert(names.collect(), file);
    }
    let all = [("", vec!["a"]), ("a", vec!["a/c", "b"]), ("a/c", vec!["b"]), ("b", vec!["", "a"])];
    let all: Imports<'_> = all.map(|(file, found)| (file, found.into_iter().collect())).into();
    assert_eq!(all_imports(&room), all);
    assert_eq!(circles(&all), BTreeSet::from([all]));
}
