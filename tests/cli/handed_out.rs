//! A manifest with a file that one must ask somebody for.

use crate::support::Sandbox;

const MANIFEST: &str = r#"
[experiment]
name = "handed-out"

[stages.pretrained]
kind = "download"
url = "file:data/pretrained.txt"
unverified = true
instructions = "Ask the authors for pretrained.txt, and put it at data/pretrained.txt."

[stages.count]
kind = "command"
inputs = { archive = "pretrained" }
shell = 'wc -c < "$PIPELINE_INPUT_ARCHIVE/pretrained.txt" > "$PIPELINE_OUTPUT/size"'
"#;

#[test]
fn it_plans_without_the_file_and_says_where_to_get_it_when_it_runs() {
    let project = Sandbox::new(MANIFEST);
    project.pipeline("plan experiment.toml").success();
    let failed = project.pipeline("run experiment.toml");
    assert!(!failed.status.success());
    let told = failed.to_string();
    assert!(told.contains("does not exist"), "{told}");
    assert!(told.contains("Ask the authors for pretrained.txt"), "{told}");

    std::fs::create_dir(project.path("data")).unwrap();
    project.write("data/pretrained.txt", "12345");
    project.pipeline("run experiment.toml").success();
    let size = project.path("cache/latest/handed-out/count/size");
    assert_eq!(std::fs::read_to_string(size).unwrap().trim(), "5");

    // Another file is another content, as without instructions.
    project.write("data/pretrained.txt", "123456789");
    project.pipeline("run experiment.toml").success();
    let size = project.path("cache/latest/handed-out/count/size");
    assert_eq!(std::fs::read_to_string(size).unwrap().trim(), "9");
}
