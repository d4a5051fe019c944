//! No modules of this crate import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

type Module = Vec<String>;

/// The text of every module below a folder, without comments and tests.
fn read(folder: &Path, module: &Module, all: &mut BTreeMap<Module, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if module.is_empty() && ["tests", "benches", "examples", "build", "main"].contains(&&*name)
        {
            continue;
        }
        let mut child = module.clone();
        child.extend((name != "mod" && name != "lib").then_some(name));
        if path.is_dir() {
            read(&path, &child, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            all.insert(child, text.lines().filter_map(|line| line.split("//").next()).collect());
        }
    }
}

/// The modules that a module names, by `crate`, `super` or `self` or, of its own children, `use`.
fn imports(module: &Module, all: &BTreeMap<Module, String>) -> BTreeSet<Module> {
    let (text, parent) = (&all[module], module[..module.len().saturating_sub(1)].to_vec());
    let mut found = BTreeSet::new();
    for (word, base) in [
        ("crate::", vec![]),
        ("super::", parent),
        ("self::", module.clone()),
        ("use ", module.clone()),
    ] {
        for (place, _) in text.match_indices(word) {
            let rest = &text[place + word.len()..];
            let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let (path, rest) = rest.split_at(rest.find(|c| !is_path(c)).unwrap_or(rest.len()));
            let items = rest.strip_prefix('{').and_then(|rest| rest.split('}').next());
            for item in items.unwrap_or_default().split(',') {
                let (mut target, path) = (base.clone(), format!("{path}{}", item.trim()));
                for name in path.split("::") {
                    let child = [&target[..], &[name.to_owned()]].concat();
                    if name == "super" {
                        target.pop();
                    } else if all.contains_key(&child) {
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
    found
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let mut all = BTreeMap::new();
    read(Path::new(env!("CARGO_MANIFEST_DIR")), &vec![], &mut all);
    let mut left: BTreeMap<_, _> =
        all.keys().map(|one| (one.clone(), imports(one, &all))).collect();
    assert!(left.values().map(BTreeSet::len).sum::<usize>() > 200, "hardly any import was found");
    // Without those that import nothing that is left, until there are none.
    while let Some(done) = left.iter().find(|(_, imports)| imports.is_empty()) {
        let done = done.0.clone();
        left.remove(&done);
        for imports in left.values_mut() {
            imports.remove(&done);
        }
    }
    assert!(left.is_empty(), "in circles, or importing such: {:?}", left.keys());
}
