//! Passwords: where they are taken from, and that they are in nothing that is kept or shown.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use crate::support::{Ended, Sandbox, walk};

const SECRET: &str = "s3cret";

/// A server that sends a file to every client with a login, and its port.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
            // "ann:s3cret".
            let known = head.iter().any(|line| {
                line.to_ascii_lowercase().starts_with("authorization: basic ")
                    && line.ends_with("YW5uOnMzY3JldA==")
            });
            let status = if known { "200 OK" } else { "401 Unauthorized" };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
            );
        }
    });
    port
}

fn manifest(url: &str) -> String {
    format!(
        "[experiment]\nname = \"secret\"\n\n[stages.data]\nkind = \"download\"\nurl = \"{url}\"\nunverified = true\n"
    )
}

fn assert_no_secret(project: &Sandbox, ended: &Ended) {
    for text in [&ended.stdout, &ended.stderr] {
        assert!(!text.contains(SECRET) && !text.contains("YW5uOnMzY3JldA"), "{ended}");
    }
    for path in walk(&project.path("cache")) {
        let bytes = std::fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(SECRET), "{}", path.display());
    }
}

#[test]
fn a_password_in_a_url_is_a_mistake_that_is_not_repeated() {
    let url = format!("http://ann:{SECRET}@127.0.0.1:1/auth");
    let project = Sandbox::new(&manifest(&url));
    for command in ["run", "plan", "why", "graph", "status"] {
        let stage = if command == "why" { " data" } else { "" };
        let ended = project.pipeline(&format!("{command} experiment.toml{stage}"));
        assert_eq!(ended.code(), Some(2), "{ended}");
        assert!(ended.stderr.contains("--> experiment.toml:6:7"), "{ended}");
        assert!(ended.stderr.contains("machine 127.0.0.1 login"), "{ended}");
        assert_no_secret(&project, &ended);
    }
    project.write("experiment.toml", manifest("http://127.0.0.1:1/auth"));
    for given in [
        format!("stages.data.url=\"{url}\""),
        format!("stages.data.url={url}"),
        format!("stages.dat.url={url}"),
        format!("stages.data.name={url}"),
        format!("stages.data.url:{url}"),
    ] {
        let ended = project.pipeline(&format!("plan experiment.toml --set {given}"));
        assert_eq!(ended.code(), Some(2), "{given}: {ended}");
        assert_no_secret(&project, &ended);
    }
}

#[test]
fn an_address_of_a_tracker_is_not_repeated() {
    let plain = "[experiment]\nname = \"x\"\n[stages.a]\nkind = \"command\"\nshell = \"true\"\n";
    let project = Sandbox::new(plain);
    for address in [
        format!("u:{SECRET}@host"),
        format!("http://host/?token={SECRET}"),
        format!("http://ann:{SECRET}@host"),
        format!("http//ann:{SECRET}@host"),
    ] {
        for given in [format!("tracking.mlflow={address}"), format!("tracking.mflow={address}")] {
            let mut command = project.command("plan experiment.toml");
            let ended = project.start_command({
                command.arg("--set").arg(&given);
                command
            });
            let ended = ended.wait();
            assert_eq!(ended.code(), Some(2), "{given}: {ended}");
            assert_no_secret(&project, &ended);
        }
        for table in [
            format!("[tracking]\nmlflow = \"{address}\"\n"),
            format!("[tracking]\nmflow = \"{address}\"\n"),
            format!("[tracking]\nmlflow = [\n\"{address}\"]\n"),
            format!("[tracking]\nmlflow = {address}\n"),
            format!("[tracking]\nmlflow = \"{address}\n"),
            format!("[tracking]\nmlflow = \"\"\"\n{address}\"\"\"\n"),
            format!("[lint]\n[tracking]\ntensorboard = 3\nmlflow = \"{address}\" x\n"),
        ] {
            project.write("experiment.toml", format!("{plain}{table}"));
            let ended = project.pipeline("plan experiment.toml");
            assert_eq!(ended.code(), Some(2), "{table}: {ended}");
            assert_no_secret(&project, &ended);
        }
        let inline = plain.replace("[stages", "[x]\n[stages");
        project.write("experiment.toml", format!("tracking = \"{address}\"\n{inline}"));
        let ended = project.pipeline("plan experiment.toml");
        assert_eq!(ended.code(), Some(2), "{ended}");
        assert_no_secret(&project, &ended);
        project.write("experiment.toml", plain);
    }
    let ended = project.pipeline("plan experiment.toml --set tracking.mlflow=u:s3cret@host");
    assert!(ended.stderr.contains("--set tracking.mlflow=*************\n"), "{ended}");
}

#[test]
fn a_password_in_the_line_of_a_program_is_a_mistake() {
    let project = Sandbox::new(&format!(
        "[experiment]\nname = \"x\"\n[stages.a]\nkind = \"command\"\nshell = 'curl http://ann:{SECRET}@h/x'\n"
    ));
    for command in ["plan", "run"] {
        let ended = project.pipeline(&format!("{command} experiment.toml"));
        assert_eq!(ended.code(), Some(2), "{ended}");
        assert!(ended.stderr.contains("a URL with a password"), "{ended}");
        assert_no_secret(&project, &ended);
    }
}

#[test]
fn a_login_comes_from_a_netrc_file_or_the_environment() {
    let url = format!("http://127.0.0.1:{}/auth", server());
    let project = Sandbox::new(&manifest(&url));
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(ended.stderr.contains("access denied (status 401)"), "{ended}");

    project.write("home/.netrc", format!("machine 127.0.0.1 login ann password {SECRET}\n"));
    let home = project.path("home").to_string_lossy().into_owned();
    let project = project.set("HOME", home);
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.success(), "data ran");
    assert_no_secret(&project, &ended);

    let other = Sandbox::new(&manifest(&url)).set("PIPELINE_LOGIN_127_0_0_1", "ann:s3cret");
    let ended = other.pipeline("run experiment.toml");
    assert_eq!(ended.success(), "data ran");
    assert_no_secret(&other, &ended);
}
