//! From a folder of one's own images to results.

use insta::assert_snapshot;

use crate::support::Sandbox;

const IMAGE: &[u8] = include_bytes!("../reference/gradient.jpg");

fn with_images(val: bool) -> Sandbox {
    let project = Sandbox::new("").with_fake_learn("");
    for class in ["cat", "dog"] {
        for index in 0..10 {
            project.write(&format!("my photos/train/{class}/{index}.jpg"), IMAGE);
        }
        project.write(&format!("my photos/test/{class}/below/0.JPG"), IMAGE);
    }
    if val {
        project.write("my photos/val/dog/0.jpg", IMAGE);
    }
    project
}

/// `init` with a folder whose name has a space.
fn init(project: &Sandbox) -> String {
    let mut command = project.command("init --data");
    command.arg("my photos");
    project.start_command(command).wait().printed()
}

#[test]
fn a_manifest_for_own_images_runs() {
    for val in [false, true] {
        let project = with_images(val);
        let said = init(&project);
        let found = if val { ", 1 for validation, and 2" } else { ", and 2" };
        let expected = format!(
            "wrote ./pipeline.toml, for 20 training images of 2 classes{found} test images"
        );
        assert!(said.contains(&expected), "{said}");
        let manifest = project.read("pipeline.toml");
        assert!(manifest.contains("path = \"my photos\""), "{manifest}");
        assert_eq!(manifest.contains("holdout = 2 "), !val, "{manifest}");
        assert_eq!(manifest.contains("from = \"val-folder\""), val, "{manifest}");
        assert!(manifest.contains("# The classes: cat, dog\n"), "{manifest}");
        project.pipeline("run").success();
        let data = project.pipeline("path data");
        let data = std::path::Path::new(data.stdout.trim_end());
        let files = std::fs::read_to_string(data.join("files.csv")).expect("a list of the files");
        assert!(files.contains("\n10,train,train/dog/0.jpg,dog\n"), "{files}");
        assert_eq!(files.contains("20,val,val/dog/0.jpg,dog"), val, "{files}");
    }
}

#[test]
fn a_folder_of_another_form_is_refused_with_what_to_do() {
    let project = Sandbox::new("");
    project.write("photos/cat/1.jpg", IMAGE);
    assert_snapshot!(project.pipeline("init --data photos"), @r"
    status 2
    --- stderr
    error: the folder photos/train is missing: put images to train on there, in a folder for each class: photos/train/<class>/
    ");
    project.write("photos/train/cat/1.jpg", IMAGE);
    project.write("photos/train/dog/notes.txt", "");
    project.write("photos/test/cat/1.jpg", IMAGE);
    assert_snapshot!(project.pipeline("init --data photos"), @r"
    status 2
    --- stderr
    error: photos/train/dog has no images (.jpg, .jpeg, .png or .webp): remove it, or put images there
    ");
    project.write("photos/train/dog/1.jpg", "no image");
    assert_snapshot!(project.pipeline("init --data photos"), @r"
    status 2
    --- stderr
    error: photos/train/dog/1.jpg: it is not a JPEG, PNG or WebP file, going by its first bytes
    ");
    assert!(!project.path("pipeline.toml").exists());
    assert_snapshot!(project.pipeline("init --data nowhere"), @r"
    status 2
    --- stderr
    error: nowhere is not a folder
    ");
}
