//! `init --data`: a manifest for a folder of images.

use insta::assert_snapshot;

use crate::support::Sandbox;

#[test]
fn a_manifest_for_a_folder_of_images_runs() {
    let project = Sandbox::new("").with_fake_learn("");
    project.write_photos("my photos (2)", &["cat", "dog"], 24, 4);
    let mut command = project.command("");
    command.args(["init", "new", "--data", "my photos (2)"]);
    assert_snapshot!(project.start_command(command).wait().printed(), @r#"
    wrote new/pipeline.toml, for 48 images of 2 classes for training and 8 for testing

      pipeline run new/pipeline.toml  trains with 40 % of the labels drawn again
      pipeline kinds                  lists what stages can do
    "#);
    project.pipeline("run new/pipeline.toml").success();
    project.write_photos("my photos (2)/val", &[], 0, 0);
    let mut command = project.command("");
    command.args(["init", "new", "--data", "my photos (2)"]);
    assert_snapshot!(project.start_command(command).wait().stderr, @r#"
    error: new/pipeline.toml already exists; `pipeline init FOLDER` writes to another folder
    "#);
    // Images for validation, beside the manifest.
    project.write_photos("photos", &["a", "b", "c"], 300, 4);
    std::fs::rename(project.path("photos/test"), project.path("photos/val")).expect("it exists");
    project.write_photos("photos", &["a", "b", "c"], 300, 4);
    project.pipeline("init --data photos photos").printed();
    assert_snapshot!(project.read("photos/pipeline.toml"), @r#"
    # A classifier for the images of photos, trained with wrong labels.
    #
    #     pipeline run pipeline.toml
    #
    # `pipeline kinds train` lists what a training can do, `pipeline kinds corrupt-labels` other kinds of noise.

    [experiment]
    name = "photos"
    seed = 220

    # 900 images of 3 classes for training, 12 for testing. Each is made 32 pixels square: larger ones show more, and take
    # longer. Photographs for a network with 224 pixels stay files: encoded = true, and architecture = "resnet18-224" below.
    [stages.data]
    kind = "dataset"
    format = "image-folder"
    path = "."
    size = 32

    # The images of val/ (12) keep their labels: they validate, and Meta-Weight-Net would learn from them.
    [stages.split]
    kind = "split"
    data = "data"
    from = "val-folder"

    # Of the other labels, 40 % are drawn again from all classes. Drop `labels` from `train` to train with the labels as they are.
    [stages.noisy]
    kind = "corrupt-labels"
    data = "data"
    split = "split"
    noise = "symmetric"
    rate = 0.4

    # A small network, for a CPU. With a GPU: architecture = "resnet18" or "resnet50", epochs = 120.
    [stages.train]
    kind = "train"
    data = "data"
    split = "split"
    labels = "noisy"
    architecture = "resnet8-fast"
    epochs = 20
    batch-size = 100
    learning-rate = 0.05

    [stages.evaluate]
    kind = "evaluate"
    model = "train"
    data = "data"
    "#);
    // The cache in the same folder is not one of the images.
    project.pipeline("run photos/pipeline.toml --cache photos/cache").success();
    let fresh = project.pipeline("plan photos/pipeline.toml --cache photos/cache --exit-code");
    assert_eq!(fresh.code(), Some(0), "{fresh}");
}

#[test]
fn other_layouts_are_explained() {
    let project = Sandbox::new("");
    project.write_photos("photos", &["cat", "dog"], 2, 1);
    let refused = |folder: &str| project.pipeline(&format!("init new --data {folder}")).stderr;
    assert_snapshot!(refused("nowhere"), @r#"
    error: nowhere is not a folder
    "#);
    assert_snapshot!(refused("photos/train"), @r#"
    error: photos/train has 2 folders with images, but no train/ and test/: the images go into train/CLASS/ and test/CLASS/, and into val/CLASS/ where there are some for validation; set a part of each class aside for testing
    "#);
    // As it is written elsewhere.
    project.write_photos("capital", &["cat", "dog"], 2, 1);
    for (from, to) in [("train", "Train"), ("test", "Test")] {
        let [from, to] = [from, to].map(|name| project.path(&format!("capital/{name}")));
        std::fs::rename(from, to).expect("it exists");
    }
    let capital = refused("capital");
    let either = ["has Train/, which must be train/", "has Test/, which must be test/"];
    assert!(either.iter().any(|words| capital.contains(words)), "{capital}");
    std::fs::rename(project.path("capital/Train"), project.path("capital/train"))
        .expect("it exists");
    assert_snapshot!(refused("capital"), @r#"
    error: capital has Test/, which must be test/, in small letters: the images go into train/CLASS/ and test/CLASS/, and into val/CLASS/ where there are some for validation
    "#);
    // Not all of it is there.
    std::fs::rename(project.path("capital/Test"), project.path("capital/test")).expect("it exists");
    std::fs::rename(project.path("capital/train"), project.path("trained")).expect("it exists");
    assert_snapshot!(refused("capital"), @r#"
    error: capital has no images in train/CLASS/: the images go into train/CLASS/ and test/CLASS/, and into val/CLASS/ where there are some for validation
    "#);
    std::fs::rename(project.path("trained/cat"), project.path("capital/cat")).expect("it exists");
    assert_snapshot!(refused("capital"), @r#"
    error: capital has 1 folder with images, but no train/: the images go into train/CLASS/ and test/CLASS/, and into val/CLASS/ where there are some for validation
    "#);
    std::fs::create_dir(project.path("capital/train")).expect("ours");
    assert_snapshot!(refused("capital"), @r#"
    error: capital has 1 folder with images, but none in train/CLASS/: the images go into train/CLASS/ and test/CLASS/, and into val/CLASS/ where there are some for validation
    "#);
    assert_snapshot!(refused("photos/train/cat"), @r#"
    error: photos/train/cat has no images in train/CLASS/: the images go into train/CLASS/ and test/CLASS/, and into val/CLASS/ where there are some for validation
    "#);
    std::fs::remove_dir_all(project.path("photos/test/cat")).expect("it exists");
    std::fs::remove_dir_all(project.path("photos/test/dog")).expect("it exists");
    assert_snapshot!(refused("photos"), @r#"
    error: photos has no images in test/CLASS/: the images go into train/CLASS/ and test/CLASS/, and into val/CLASS/ where there are some for validation
    "#);
    for (folder, name) in [("test", "cat"), ("val", "bird")] {
        project.write(&format!("photos/{folder}/{name}/1.png"), "x");
    }
    assert_snapshot!(refused("photos"), @r#"
    error: photos/val/bird is not a class of train/: the images go into train/CLASS/ and test/CLASS/, and into val/CLASS/ where there are some for validation
    "#);
    project.write("photos/test/bird/1.png", "x");
    assert_snapshot!(refused("photos"), @r#"
    error: photos/test/bird is not a class of train/: the images go into train/CLASS/ and test/CLASS/, and into val/CLASS/ where there are some for validation
    "#);
    std::fs::create_dir(project.path("photos/train/empty")).expect("ours");
    assert_snapshot!(refused("photos"), @r#"
    error: photos/train/empty has no images: remove this folder, or add some
    "#);
    std::fs::remove_dir(project.path("photos/train/empty")).expect("ours");
    for link in ["a", "b", "c"] {
        std::os::unix::fs::symlink(".", project.path(&format!("photos/train/cat/{link}")))
            .expect("a link");
    }
    let looped = refused("photos");
    assert!(looped.contains("is a link to a folder that contains it: remove the link"), "{looped}");
    assert!(!project.path("new/pipeline.toml").exists());
}

#[test]
fn a_link_to_a_folder_of_images_counts_as_in_a_data_set() {
    let project = Sandbox::new("").with_fake_learn("");
    project.write_photos("photos", &["cat", "dog"], 24, 4);
    project.write_photos("more", &["cat"], 3, 1);
    std::os::unix::fs::symlink(
        project.path("more/train/cat"),
        project.path("photos/train/cat/more"),
    )
    .expect("a link");
    let written = project.pipeline("init new --data photos").printed();
    assert!(written.contains("51 images of 2 classes for training"), "{written}");
    let ended = project.pipeline("run new/pipeline.toml data");
    assert!(ended.stdout.contains("train-samples 51"), "{ended}");
}
