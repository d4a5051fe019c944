//! What a `.libtorch` folder is: absent, made by another recipe, damaged or complete. Reads only.

use crate::platform::{Platform, Umbrella};
use std::fmt::Write;
use std::path::Path;

/// The file in a finished libtorch that says how it was made. It is written last.
pub const RECIPE_FILE: &str = "recipe.txt";

/// Counts changes of how a libtorch is put together that the platform table does not show.
const RECIPE_VERSION: u32 = 1;

/// What is in the place where libtorch belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LibtorchState {
    /// Nothing.
    Absent,
    /// Something that was not made by this version of the recipe.
    OtherRecipe,
    /// It was made by this recipe, but has lost a library since; holds its name.
    Damaged(&'static str),
    /// All there.
    Complete,
}

impl LibtorchState {
    /// Looks at a folder. Costs a few file lookups, so that it can be asked before every build.
    pub fn of(folder: &Path, platform: &'static Platform) -> Self {
        if folder.symlink_metadata().is_err() {
            return Self::Absent;
        }
        if std::fs::read_to_string(folder.join(RECIPE_FILE)).ok() != Some(recipe(platform)) {
            return Self::OtherRecipe;
        }
        let lost = |library: &&&str| {
            std::fs::metadata(folder.join("lib").join(library)).map_or(0, |file| file.len()) == 0
        };
        platform
            .libraries
            .iter()
            .find(lost)
            .map_or(Self::Complete, |library| Self::Damaged(library))
    }
}

/// Everything that decides what a finished folder holds, as text.
pub fn recipe(platform: &Platform) -> String {
    let mut text = format!("recipe {RECIPE_VERSION}, {platform}\n");
    // Writing to a String cannot fail.
    for wheel in platform.wheels {
        let _ = writeln!(text, "{} sha256:{}", wheel.file, wheel.sha256);
        for part in wheel.parts {
            let _ = writeln!(text, "    {} <- {}", part.to, part.from);
        }
    }
    if platform.umbrella == Umbrella::Made {
        text.push_str("libtorch: empty, needs libtorch_cpu\n");
    }
    for (name, target) in platform.links {
        let _ = writeln!(text, "lib/{name} -> {target}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::PLATFORMS;

    #[test]
    fn a_libtorch_is_complete_only_with_this_recipe_and_all_its_libraries() {
        let folder = tempfile::tempdir().unwrap();
        let (libtorch, platform) = (folder.path().join(".libtorch"), &PLATFORMS[0]);
        assert_eq!(LibtorchState::of(&libtorch, platform), LibtorchState::Absent);
        std::fs::create_dir_all(libtorch.join("lib")).unwrap();
        assert_eq!(LibtorchState::of(&libtorch, platform), LibtorchState::OtherRecipe);
        std::fs::write(libtorch.join(RECIPE_FILE), recipe(platform)).unwrap();
        assert_eq!(
            LibtorchState::of(&libtorch, platform),
            LibtorchState::Damaged(platform.libraries[0])
        );
        for library in platform.libraries {
            std::fs::write(libtorch.join("lib").join(library), "x").unwrap();
        }
        assert_eq!(LibtorchState::of(&libtorch, platform), LibtorchState::Complete);
        std::fs::write(libtorch.join("lib/libc10.so"), "").unwrap();
        assert_eq!(LibtorchState::of(&libtorch, platform), LibtorchState::Damaged("libc10.so"));
        std::fs::write(libtorch.join(RECIPE_FILE), recipe(&PLATFORMS[1])).unwrap();
        assert_eq!(LibtorchState::of(&libtorch, platform), LibtorchState::OtherRecipe);
    }
}
