//! What a remote has, as its server has it: read and changed behind the back of the program.

use std::fs;
use std::path::Path;

use crate::support::walk;

/// The contents of a remote.
pub trait There {
    /// The names below a folder of it, sorted.
    fn names(&self, folder: &str) -> Vec<String>;

    /// The content of a name.
    fn get(&self, name: &str) -> Vec<u8>;

    /// Gives a name this content, or none.
    fn set(&self, name: &str, content: Option<&[u8]>);
}

/// A folder of this machine, whoever serves it.
impl<F: AsRef<Path>> There for F {
    fn names(&self, folder: &str) -> Vec<String> {
        let below = |path: &Path| path.strip_prefix(self).expect("below").display().to_string();
        let files = walk(&self.as_ref().join(folder)).into_iter().filter(|path| path.is_file());
        let mut names: Vec<String> = files.map(|path| below(&path)).collect();
        names.sort();
        names
    }

    fn get(&self, name: &str) -> Vec<u8> {
        fs::read(self.as_ref().join(name)).expect("readable")
    }

    fn set(&self, name: &str, content: Option<&[u8]>) {
        let path = self.as_ref().join(name);
        let removed = fs::remove_file(&path);
        match content {
            Some(content) => fs::write(&path, content).expect("ours"),
            None => removed.expect("it exists"),
        }
    }
}

/// What may be there in place of what should be.
pub struct Damage {
    pub what: &'static str,
    /// Nothing, where it is missing.
    pub content: Option<Vec<u8>>,
}

impl Damage {
    /// Each that a content may have of which another one of the same kind is there.
    fn of(sound: &[u8], other: &[u8]) -> [Self; 5] {
        let middle = sound.len() / 2;
        let mut flipped = sound.to_vec();
        flipped[middle] ^= 1;
        let damage = |what, content| Self { what, content };
        [
            damage("a bit that is wrong", Some(flipped)),
            damage("cut off", Some(sound[..middle].to_vec())),
            damage("empty", Some(Vec::new())),
            damage("another one", Some(other.to_vec())),
            damage("missing", None),
        ]
    }

    /// Whether it may do no harm: there are bits that a decoder does not need.
    pub fn may_do_nothing(&self) -> bool {
        self.what == "a bit that is wrong"
    }
}

/// Does something with each damage of each of these contents, one at a time. Each has another one in its folder.
pub fn with_each_damage(there: &dyn There, names: &[String], act: impl Fn(&str, &Damage)) {
    for name in names {
        let (folder, _) = name.split_once('/').expect("it is in a folder");
        let other = there.names(folder).into_iter().find(|other| other != name);
        let (sound, other) = (there.get(name), there.get(&other.expect("there are several")));
        for damage in Damage::of(&sound, &other) {
            there.set(name, damage.content.as_deref());
            act(name, &damage);
            there.set(name, Some(&sound));
        }
    }
}
