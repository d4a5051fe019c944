//! What people and programs write as text: lists of names and labels, noise matrices, published values, metrics.

use std::path::Path;

use pipeline_stages::matrix_file;
use pipeline_stages::metrics::MetricsFile;

use crate::scratch::Scratch;

pub(crate) fn read(bytes: &[u8]) -> bool {
    let scratch = Scratch::new();
    let path = scratch.write("file.txt", bytes);
    let is_list = || {
        let text = std::str::from_utf8(bytes);
        text.is_ok_and(|text| pipeline_prepare::fuzzing::read_list(&path, text))
    };
    is_matrix(&scratch, &path) | is_of_metrics(bytes) | is_list()
}

fn is_matrix(scratch: &Scratch, path: &Path) -> bool {
    let _ = matrix_file::read(path, 3);
    let Ok(classes) = matrix_file::check(path) else { return false };
    let read = |path: &Path| matrix_file::read(path, classes).expect("a matrix of these classes");
    let rows = read(path);
    assert!(rows.len() == classes && rows.iter().all(|row| row.len() == classes));
    let text = |row: &Vec<f64>| row.iter().map(|number| format!("{number:e},")).collect::<String>();
    let lines: Vec<String> = rows.iter().map(text).collect();
    let again = scratch.write("again.txt", lines.join("\n").as_bytes());
    assert_eq!(read(&again), rows);
    true
}

fn is_of_metrics(bytes: &[u8]) -> bool {
    let Ok(file) = MetricsFile::read(bytes) else { return false };
    let json = serde_json::to_string(&file.metrics).expect("numbers");
    let again = MetricsFile::read(json.as_bytes()).expect("it was written");
    assert!(again.left_out.is_empty() && again.instead.is_none());
    assert_eq!(serde_json::to_string(&again.metrics).expect("numbers"), json);
    true
}
