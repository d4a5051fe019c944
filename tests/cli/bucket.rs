//! A real object store, by its own protocol and by the shell of its administrators.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use ureq::http::Request;

use crate::there::There;

/// The address of the server.
pub fn server() -> String {
    std::env::var("PIPELINE_TEST_S3").expect("cargo xtask test-remotes sets PIPELINE_TEST_S3")
}

/// What the shell of the administrators says to these commands.
pub fn administrate(commands: &str) -> String {
    let shell = std::env::var("PIPELINE_TEST_S3_SHELL");
    let mut command = Command::new("sh");
    command.arg("-c").arg(shell.expect("cargo xtask test-remotes sets PIPELINE_TEST_S3_SHELL"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut shell = command.spawn().expect("the shell starts");
    let mut input = shell.stdin.take().expect("a pipe");
    input.write_all(commands.as_bytes()).expect("it reads them");
    drop(input);
    let said = shell.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&said.stdout).into_owned()
}

/// A place in the store, for whoever has a key.
pub struct Place {
    bucket: Bucket,
    credentials: Credentials,
    prefix: String,
}

impl Place {
    /// For somebody who may do everything.
    pub fn new(bucket: &str, place: &str) -> Self {
        Self::of(bucket, place, "writer", "writers-secret")
    }

    pub fn of(bucket: &str, place: &str, key: &str, secret: &str) -> Self {
        let server = server().parse().expect("an address");
        let bucket = Bucket::new(server, UrlStyle::Path, bucket.to_owned(), "us-east-1");
        let credentials = Credentials::new(key, secret);
        Self { bucket: bucket.expect("an address"), credentials, prefix: format!("{place}/") }
    }

    /// The status and what comes with it.
    fn ask<'a>(&self, method: &str, action: &impl S3Action<'a>, content: &[u8]) -> (u16, Vec<u8>) {
        let address = action.sign(Duration::from_secs(60));
        let request = Request::builder().method(method).uri(address.as_str()).body(content);
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut answer = agent.run(request.expect("a request")).expect("the store answers");
        let content = answer.body_mut().read_to_vec().expect("it ends");
        (answer.status().as_u16(), content)
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// What it says when somebody reads a name: its content, or why there is none.
    pub fn read(&self, name: &str) -> (u16, Vec<u8>) {
        let key = self.key(name);
        self.ask("GET", &self.bucket.get_object(Some(&self.credentials), &key), b"")
    }

    /// What it says when somebody writes.
    pub fn write(&self, name: &str, content: &[u8]) -> (u16, Vec<u8>) {
        let key = self.key(name);
        self.ask("PUT", &self.bucket.put_object(Some(&self.credentials), &key), content)
    }
}

impl There for Place {
    fn names(&self, folder: &str) -> Vec<String> {
        let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
        action.with_prefix(self.key(&format!("{folder}/")));
        let (status, listed) = self.ask("GET", &action, b"");
        assert_eq!(status, 200, "{folder}");
        let listed = ListObjectsV2::parse_response(&String::from_utf8_lossy(&listed));
        let listed = listed.expect("a list");
        let name = |key: &str| key.strip_prefix(&self.prefix).expect("asked for").to_owned();
        listed.contents.iter().map(|content| name(&content.key)).collect()
    }

    fn get(&self, name: &str) -> Vec<u8> {
        let (status, content) = self.read(name);
        assert_eq!(status, 200, "{name}");
        content
    }

    fn set(&self, name: &str, content: Option<&[u8]>) {
        let key = self.key(name);
        let remove =
            || self.ask("DELETE", &self.bucket.delete_object(Some(&self.credentials), &key), b"");
        let (status, _) = content.map_or_else(remove, |content| self.write(name, content));
        assert!(matches!(status, 200 | 204), "{name}: {status}");
    }
}
