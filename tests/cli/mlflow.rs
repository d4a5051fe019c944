//! MLflow: a server that says little, one that fails in many ways, and the real one where it is installed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Ended, Sandbox, eventually, skipped, walk};

const SECRET: &str = "s3cret-of-a-test";

/// Two stages that MLflow gets, and one that it does not.
fn manifest(address: &str) -> String {
    format!(
        r#"
[experiment]
name = "tracked"

[tracking]
mlflow = "{address}"

[matrix]
part = [1, 2]

[stages.text]
kind = "command"
shell = "echo text > $PIPELINE_OUTPUT/text"

[stages.score]
kind = "command"
output = "metrics"
inputs.text = "text"
environment.PART = "${{part}}"
shell = '''
printf '{{"accuracy": 0.%s, "auc": NaN}}' "$PART" > "$PIPELINE_OUTPUT/metrics.json"
printf 'epoch,loss\n1,0.5\n2,0.25\n' > "$PIPELINE_OUTPUT/curves.csv"
'''
"#
    )
}

/// What a server does with requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    Works,
    /// Answers every request with this status.
    Status(u16),
    /// Takes requests and never answers.
    Silent,
    /// Answers with something else than MLflow does.
    Other,
    /// Its experiment was deleted.
    Deleted,
    /// Somebody else makes the experiment at the same time.
    Raced,
    /// Answers every file with this status.
    Files(u16),
    /// Answers the files with a `#` in their names as MLflow does.
    Picky,
    /// Always fails at what has this text.
    Poisoned(&'static str),
    /// Has no time for the first request that has this text.
    BusyOnce(&'static str),
}

/// A server with the few paths that are used.
struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

struct State {
    behaviour: Behaviour,
    has_experiment: bool,
    /// Runs by their number.
    runs: BTreeMap<String, Run>,
    /// Every request: its first line and its headers.
    heads: Vec<String>,
}

#[derive(Default)]
struct Run {
    name: String,
    status: String,
    tags: BTreeMap<String, String>,
    params: BTreeMap<String, String>,
    metrics: Vec<Value>,
    files: Vec<String>,
}

impl Server {
    fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let has_experiment = behaviour == Behaviour::Deleted;
        let state = State { behaviour, has_experiment, runs: BTreeMap::new(), heads: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { port, state }
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn set(&self, behaviour: Behaviour) {
        self.state.lock().expect("no panic").behaviour = behaviour;
    }

    /// The runs, in a line each: name, state, number of parameters, metrics with their steps, files.
    fn runs(&self) -> Vec<String> {
        let state = self.state.lock().expect("no panic");
        let run = |run: &Run| {
            let metrics = run.metrics.iter().map(|metric| {
                let name = metric["key"].as_str().unwrap_or_default();
                format!("{name}@{}={}", metric["step"], metric["value"])
            });
            let metrics = metrics.collect::<Vec<_>>().join(" ");
            let (name, status, files) = (&run.name, &run.status, run.files.join(" "));
            format!("{name} {status} [{metrics}] [{files}]")
        };
        let mut runs: Vec<String> = state.runs.values().map(run).collect();
        runs.sort();
        runs
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    loop {
        let mut head = String::new();
        while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
        if head.is_empty() {
            return;
        }
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
        });
        let mut body = vec![0; length.unwrap_or(0)];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let mut state = state.lock().expect("no panic");
        state.heads.push(head.clone());
        let (status, answer) = match state.behaviour {
            Behaviour::Silent => {
                drop(state);
                std::thread::sleep(Duration::from_secs(60));
                return;
            }
            Behaviour::Status(status) => {
                (status, json!({"error_code": "X", "message": "no\u{1b}[2J way"}).to_string())
            }
            Behaviour::Other => (200, "<html>".to_owned()),
            Behaviour::Poisoned(text) if String::from_utf8_lossy(&body).contains(text) => {
                (500, json!({"error_code": "X", "message": "poison"}).to_string())
            }
            Behaviour::BusyOnce(text) if String::from_utf8_lossy(&body).contains(text) => {
                state.behaviour = Behaviour::Works;
                (503, "{}".to_owned())
            }
            _ => {
                let line = head.lines().next().unwrap_or_default();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                state.answer(line, &body)
            }
        };
        drop(state);
        let length = answer.len();
        let written =
            write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{answer}");
        if written.is_err() {
            return;
        }
    }
}

impl State {
    fn answer(&mut self, line: &str, body: &Value) -> (u16, String) {
        let path = line.split(' ').nth(1).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let error =
            |status, code: &str| (status, json!({"error_code": code, "message": code}).to_string());
        if path.contains("experiments/get-by-name") {
            let stage = if self.behaviour == Behaviour::Deleted { "deleted" } else { "active" };
            return match self.has_experiment {
                true => (
                    200,
                    json!({"experiment": {"experiment_id": "7", "lifecycle_stage": stage}})
                        .to_string(),
                ),
                false => error(404, "RESOURCE_DOES_NOT_EXIST"),
            };
        }
        if path.contains("experiments/create") {
            self.has_experiment = true;
            return match self.behaviour {
                Behaviour::Raced => error(400, "RESOURCE_ALREADY_EXISTS"),
                _ => (200, json!({"experiment_id": "7"}).to_string()),
            };
        }
        if path.contains("runs/search") {
            let filter = text(&body["filter"]);
            let key = filter.split('\'').nth(1).unwrap_or_default();
            let of_key = self
                .runs
                .iter()
                .filter(|(_, run)| run.tags.get("pipeline.key").is_some_and(|it| it == key));
            let runs: Vec<Value> = of_key.map(|(id, run)| run.to_json(id)).collect();
            return (200, json!({"runs": runs}).to_string());
        }
        if path.contains("runs/create") {
            let id = format!("run{}", self.runs.len());
            let mut run = Run {
                name: text(&body["run_name"]),
                status: "RUNNING".to_owned(),
                ..Run::default()
            };
            run.add(body);
            let answer = json!({"run": run.to_json(&id)}).to_string();
            self.runs.insert(id, run);
            return (200, answer);
        }
        if let Some(place) = path.split("mlflow-artifacts/artifacts/").nth(1) {
            match self.behaviour {
                Behaviour::Files(status) => return error(status, "NO_STORE"),
                Behaviour::Picky if place.contains("%23") => return error(400, "Invalid path"),
                _ => {}
            }
            let mut parts = place.split('/');
            let (id, name) = (parts.nth(1).unwrap_or_default(), parts.nth(1).unwrap_or_default());
            if let Some(run) = self.runs.get_mut(id) {
                run.files.push(name.to_owned());
            }
            return (200, "{}".to_owned());
        }
        let Some(run) = self.runs.get_mut(&text(&body["run_id"])) else {
            return error(404, "RESOURCE_DOES_NOT_EXIST");
        };
        if path.contains("runs/update") {
            run.status = text(&body["status"]);
        } else {
            run.add(body);
        }
        (200, "{}".to_owned())
    }
}

impl Run {
    fn add(&mut self, body: &Value) {
        let list = |name: &str| body[name].as_array().cloned().unwrap_or_default();
        let pair = |one: Value| {
            let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
            (text("key"), text("value"))
        };
        self.tags.extend(list("tags").into_iter().map(pair));
        self.params.extend(list("params").into_iter().map(pair));
        self.metrics.extend(list("metrics"));
    }

    fn to_json(&self, id: &str) -> Value {
        let words = |words: &BTreeMap<String, String>| {
            let entry = |(key, value)| json!({"key": key, "value": value});
            words.iter().map(entry).collect::<Vec<_>>()
        };
        let uri = format!("mlflow-artifacts:/7/{id}/artifacts");
        json!({
            "info": {"run_id": id, "status": self.status, "artifact_uri": uri},
            "data": {"tags": words(&self.tags), "params": words(&self.params), "metrics": self.metrics},
        })
    }
}

const SCORES: [&str; 2] = [
    "score@part=1 FINISHED [curves/loss@1=0.5 curves/loss@2=0.25 accuracy@0=0.1 auc@0=\"NaN\"] [curves.csv metrics.json]",
    "score@part=2 FINISHED [curves/loss@1=0.5 curves/loss@2=0.25 accuracy@0=0.2 auc@0=\"NaN\"] [curves.csv metrics.json]",
];

fn assert_warned(ended: &Ended, words: &str) {
    assert_eq!(ended.code(), Some(0), "{ended}");
    assert_eq!(ended.stderr.matches("warning: MLflow").count(), 1, "{ended}");
    assert!(ended.stderr.contains(words), "{words}: {ended}");
    let command = "warning: `pipeline track --resend experiment.toml` sends";
    assert!(ended.stderr.contains(command), "{ended}");
    assert!(!ended.stderr.contains('\u{1b}'), "{ended}");
}

#[test]
fn a_run_is_on_the_server_once_whoever_sends_it() {
    let server = Server::start(Behaviour::Raced);
    let project = Sandbox::new(&manifest(&server.address()));
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.success(), "text ran, score@part=1 ran, score@part=2 ran");
    assert!(!ended.stderr.contains("warning"), "{ended}");
    assert_eq!(server.runs(), SCORES);
    {
        let state = server.state.lock().expect("no panic");
        let run = state.runs.values().find(|run| run.name == "score@part=2").expect("a run");
        assert_eq!(run.params["axis.part"], "2");
        assert_eq!(run.params["environment.PART"], "2");
        assert_eq!(run.tags["pipeline.kind"], "command");
        assert_eq!(run.tags["mlflow.source.name"], "experiment.toml");
        assert!(run.tags["pipeline.input.inputs.text"].starts_with("text "), "{:?}", run.tags);
    }
    // Nothing runs, so nothing is asked.
    let before = server.state.lock().expect("no panic").heads.len();
    project.pipeline("run experiment.toml").success();
    assert_eq!(server.state.lock().expect("no panic").heads.len(), before);
    let again = project.pipeline("track --resend experiment.toml");
    assert!(again.stdout.ends_with(": 2 there already\n"), "{again}");
    assert_eq!(server.runs(), SCORES);
    // Made again because somebody asked for it.
    project.pipeline("run experiment.toml --force score@part=1").success();
    assert_eq!(server.runs().len(), 3);
}

#[test]
fn files_that_do_not_arrive_hold_up_nothing() {
    let server = Server::start(Behaviour::Files(500));
    let project = Sandbox::new(&manifest(&server.address()));
    let ended = project.pipeline("run experiment.toml");
    assert_warned(&ended, "the server failed (status 500: NO_STORE)");
    let without_files = SCORES.map(|run| run.replace("[curves.csv metrics.json]", "[]"));
    assert_eq!(server.runs(), without_files);
    let failed = project.pipeline("track --resend experiment.toml");
    assert!(failed.stdout.ends_with(": 2 not sent\n"), "{failed}");
    assert_eq!(failed.stderr.matches("did not get score@part=").count(), 2, "{failed}");
    // A server that takes no files at all may take them later.
    server.set(Behaviour::Files(405));
    let failed = project.pipeline("track --resend experiment.toml score@part=1");
    assert!(failed.stdout.ends_with(": 1 not sent\n"), "{failed}");
    server.set(Behaviour::Files(400));
    let sent = project.pipeline("track --resend experiment.toml score@part=1");
    assert_eq!(sent.code(), Some(0), "{sent}");
    let words = "did not take the file 'curves.csv': the server refused it (status 400: NO_STORE)";
    assert!(sent.stderr.contains(words), "{sent}");
    server.set(Behaviour::Works);
    let sent = project.pipeline("track --resend experiment.toml");
    assert!(sent.stdout.ends_with(": 1 sent, 1 there already\n"), "{sent}");
    assert_eq!(server.runs(), [&without_files[0], SCORES[1]]);
}

#[test]
fn a_curve_has_no_hole_after_a_request_that_was_refused() {
    let manifest = |server: &Server| {
        manifest(&server.address()).replace(
            "printf 'epoch,loss\\n1,0.5\\n2,0.25\\n' >",
            "{ echo epoch,loss,other; seq 2500 | sed 's/.*/&,0.5,0.5/'; } >",
        )
    };
    // The first request of `loss` fails: what comes after it must wait.
    let server = Server::start(Behaviour::Works);
    let project = Sandbox::new(&manifest(&server).replace("mlflow =", "tensorboard ="));
    project.pipeline("run experiment.toml score@part=1").success();
    project.edit("tensorboard =", "mlflow =");
    let steps = || {
        let state = server.state.lock().expect("no panic");
        let metrics = state.runs.values().flat_map(|run| &run.metrics);
        let of = |name: &'static str| {
            let steps = metrics.clone().filter(move |metric| metric["key"] == name);
            steps.filter_map(|metric| metric["step"].as_u64()).collect::<Vec<_>>()
        };
        (of("curves/loss"), of("curves/other"))
    };
    server.set(Behaviour::BusyOnce("\"step\":1100,"));
    let ended = project.pipeline("track --resend experiment.toml score@part=1");
    assert!(ended.stdout.ends_with(": 1 not sent\n"), "{ended}");
    let (loss, _) = steps();
    assert_eq!(loss, (1..=1000).collect::<Vec<_>>());
    let ended = project.pipeline("track --resend experiment.toml score@part=1");
    assert!(ended.stdout.ends_with(": 1 sent\n"), "{ended}");
    let all: Vec<u64> = (1..=2500).collect();
    assert_eq!(steps(), (all.clone(), all.clone()));
    // While it runs, only what was refused is sent again.
    server.set(Behaviour::BusyOnce("\"step\":1100,"));
    project.pipeline("run experiment.toml score@part=1 --force score@part=1").success();
    let (loss, other) = steps();
    assert_eq!((loss.len(), other.len()), (5000, 5000));
}

#[test]
fn a_request_that_always_fails_holds_up_no_other() {
    // A parameter of one stage.
    let server = Server::start(Behaviour::Poisoned("\"value\":\"2\""));
    let project = Sandbox::new(&manifest(&server.address()));
    let ended = project.pipeline("run experiment.toml");
    assert_warned(&ended, "everything of 1 stage: the server failed (status 500: poison)");
    assert_eq!(server.runs(), [SCORES[0], &SCORES[1].replace("[curves.csv metrics.json]", "[]")]);
    let failed = project.pipeline("track --resend experiment.toml");
    assert!(failed.stdout.ends_with(": 1 there already, 1 not sent\n"), "{failed}");
    server.set(Behaviour::Works);
    let sent = project.pipeline("track --resend experiment.toml");
    assert!(sent.stdout.ends_with(": 1 sent, 1 there already\n"), "{sent}");
    assert_eq!(server.runs(), SCORES);
}

#[test]
fn a_result_that_was_made_again_while_the_server_was_down_is_sent() {
    let server = Server::start(Behaviour::Works);
    let project = Sandbox::new(&manifest(&server.address()).replace(
        "printf 'epoch",
        "cp again \"$PIPELINE_OUTPUT/again.json\" 2> /dev/null || true\nprintf 'epoch",
    ));
    project.pipeline("run experiment.toml").success();
    server.set(Behaviour::Status(401));
    project.write("again", "{}");
    project.pipeline("run experiment.toml --force score@part=1").success();
    assert_eq!(server.runs(), SCORES);
    server.set(Behaviour::Works);
    let sent = project.pipeline("track --resend experiment.toml");
    assert!(sent.stdout.ends_with(": 1 sent, 1 there already\n"), "{sent}");
    let again = SCORES[0].replace("[curves.csv", "[again.json curves.csv");
    assert_eq!(server.runs(), [&again, SCORES[0], SCORES[1]]);
    let sent = project.pipeline("track --resend experiment.toml");
    assert!(sent.stdout.ends_with(": 2 there already\n"), "{sent}");
}

#[test]
fn what_mlflow_does_not_take_is_left_out_and_names_stay_apart() {
    let server = Server::start(Behaviour::Picky);
    let project = Sandbox::new(&manifest(&server.address()));
    project.edit(", \"auc\": NaN", ", \"top@1\": 0.1, \"top_1\": 0.2");
    project.edit("2,0.25", "9.3e18,7\\n1e30,8");
    project.edit("printf 'epoch", "echo a > \"$PIPELINE_OUTPUT/a#b.csv\"\nprintf 'epoch");
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.code(), Some(0), "{ended}");
    let words = "did not take the file 'a#b.csv': the server refused it (status 400: Invalid path)";
    assert_eq!(ended.stderr.matches(words).count(), 2, "{ended}");
    assert!(!ended.stderr.contains("did not get"), "{ended}");
    let runs = server.runs();
    assert_eq!(runs.len(), 2, "{runs:?}");
    for run in runs {
        let metrics = "FINISHED [curves/loss@1=0.5 accuracy@0=0.";
        assert!(run.contains(metrics) && run.ends_with(" [curves.csv metrics.json]"), "{run}");
        assert!(run.contains(" top_1@0=0.2") && run.contains(" top_1-"), "{run}");
    }
    let sent = project.pipeline("track --resend experiment.toml");
    assert!(sent.stdout.ends_with(": 2 there already\n"), "{sent}");
}

#[test]
fn a_signal_shortens_the_end_of_a_run() {
    let silent = Server::start(Behaviour::Silent);
    let project = Sandbox::new(&manifest(&silent.address()));
    let running = project.start("run experiment.toml");
    running.wait_for("done  score@part=1");
    running.wait_for("done  score@part=2");
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    running.signal(Signal::INT);
    running.wait();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // Asked to stop while a stage runs: its end is waited for two seconds more.
    let project = Sandbox::new(
        &manifest(&silent.address()).replace("printf 'epoch", "sleep 60\nprintf 'epoch"),
    );
    let running = project.start("run experiment.toml");
    running.wait_for("score@part=1 (command) runs");
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    running.signal(Signal::INT);
    let ended = running.wait();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?} {ended}", start.elapsed());
}

#[test]
fn a_proxy_is_not_asked_for_this_machine_and_a_broken_login_is_named() {
    let server = Server::start(Behaviour::Works);
    let project = Sandbox::new(&manifest(&server.address()))
        .set("HTTPS_PROXY", "http://127.0.0.1:1")
        .set("HTTP_PROXY", "http://127.0.0.1:1");
    let ended = project.pipeline("run experiment.toml");
    assert!(!ended.stderr.contains("warning"), "{ended}");
    assert_eq!(server.runs(), SCORES);
    let project = Sandbox::new(&manifest("http://tracker.invalid"))
        .set("HTTP_PROXY", format!("ftp://ann:{SECRET}@h"));
    let ended = project.pipeline("run experiment.toml");
    assert_warned(&ended, "HTTP_PROXY does not name a proxy: 'ftp://***@h'");
    server.set(Behaviour::Status(407));
    let project =
        Sandbox::new(&manifest("http://tracker.invalid")).set("HTTP_PROXY", server.address());
    let ended = project.pipeline("run experiment.toml");
    assert_warned(&ended, "asks for a login (status 407): write it into HTTP_PROXY");
    server.set(Behaviour::Status(401));
    let project = Sandbox::new(&manifest(&server.address())).set("MLFLOW_TRACKING_USERNAME", "ann");
    let ended = project.pipeline("run experiment.toml");
    let words = "MLFLOW_TRACKING_USERNAME is set, but MLFLOW_TRACKING_PASSWORD is not";
    assert_warned(&ended, words);
}

#[test]
fn what_did_not_arrive_is_one_warning_and_can_be_sent() {
    for (behaviour, words) in [
        (Behaviour::Status(500), "the server failed (status 500: no\\u{1b}[2J way)"),
        (Behaviour::Status(503), "the server is not available (status 503: no\\u{1b}[2J way)"),
        (Behaviour::Status(401), "MLFLOW_TRACKING_USERNAME"),
        (Behaviour::Status(403), "--allowed-hosts"),
        (Behaviour::Status(400), "the server refused it (status 400"),
        (Behaviour::Status(302), "the server redirects to"),
        (Behaviour::Other, "is the address right?"),
        (Behaviour::Deleted, "mlflow experiments restore --experiment-id 7"),
    ] {
        let server = Server::start(behaviour);
        let project = Sandbox::new(&manifest(&server.address()));
        let ended = project.pipeline("run experiment.toml");
        assert_eq!(ended.success(), "text ran, score@part=1 ran, score@part=2 ran");
        assert_warned(&ended, words);
        assert!(ended.stderr.contains("everything of 2 stages"), "{ended}");
        let failed = project.pipeline("track --resend experiment.toml");
        assert_eq!(failed.code(), Some(1), "{failed}");
        assert!(failed.stdout.ends_with(": 2 not sent\n"), "{failed}");
        assert!(failed.stderr.contains(words), "{failed}");
        server.set(Behaviour::Works);
        let one = project.pipeline("track --resend experiment.toml score@part=2");
        assert!(one.stdout.ends_with(": 1 sent\n"), "{one}");
        let rest = project.pipeline("track --resend experiment.toml");
        assert!(rest.stdout.ends_with(": 1 sent, 1 there already\n"), "{rest}");
        assert_eq!(server.runs(), SCORES);
    }
}

#[test]
fn a_server_that_is_down_or_never_answers_does_not_hold_up_a_run_for_long() {
    let silent = Server::start(Behaviour::Silent);
    for (address, words) in
        [("http://127.0.0.1:1".to_owned(), "Connection refused"), (silent.address(), "in time")]
    {
        let project = Sandbox::new(&manifest(&address));
        let start = Instant::now();
        let ended = project.pipeline("run experiment.toml");
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        assert_warned(&ended, words);
    }
}

#[test]
fn a_stage_that_failed_or_was_interrupted_is_continued_in_its_run() {
    let server = Server::start(Behaviour::Works);
    let project = Sandbox::new(&manifest(&server.address()));
    project.edit("printf 'epoch", "test -e ok || exit 3\nprintf 'epoch");
    let ended = project.pipeline("run experiment.toml --keep-going");
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert_eq!(server.runs(), ["score@part=1 FAILED [] []", "score@part=2 FAILED [] []"]);
    project.write("ok", "");
    project.pipeline("run experiment.toml").success();
    assert_eq!(server.runs(), SCORES);
}

#[test]
fn a_login_is_sent_and_shown_nowhere() {
    let server = Server::start(Behaviour::Works);
    let project = Sandbox::new(&manifest(&server.address()))
        .set("MLFLOW_TRACKING_USERNAME", "ann")
        .set("MLFLOW_TRACKING_PASSWORD", SECRET);
    let mut shown = vec![project.pipeline("run experiment.toml")];
    let basic = "authorization: Basic YW5uOnMzY3JldC1vZi1hLXRlc3Q=";
    {
        let state = server.state.lock().expect("no panic");
        let has_login = |head: &String| head.lines().any(|line| line.eq_ignore_ascii_case(basic));
        assert!(state.heads.iter().all(has_login), "{:?}", state.heads);
    }
    server.set(Behaviour::Status(401));
    shown.push(project.pipeline("run experiment.toml --force score"));
    assert!(shown[1].stderr.contains("is not accepted"), "{}", shown[1]);
    shown.push(project.pipeline("track --resend experiment.toml"));
    shown.push(project.pipeline("history --json"));
    let bad = Sandbox::new(&manifest(&server.address()))
        .set("MLFLOW_TRACKING_TOKEN", format!("{SECRET}\nx"));
    shown.push(bad.pipeline("run experiment.toml"));
    assert_warned(&shown[4], "MLFLOW_TRACKING_TOKEN has a letter that a request cannot have");
    let url = manifest(&format!("http://ann:{SECRET}@127.0.0.1:1"));
    let mistake = Sandbox::new(&url).pipeline("run experiment.toml");
    assert_eq!(mistake.code(), Some(2), "{mistake}");
    assert!(mistake.stderr.contains("--> experiment.toml:6:10"), "{mistake}");
    assert!(mistake.stderr.contains("MLFLOW_TRACKING_USERNAME"), "{mistake}");
    shown.push(mistake);
    for ended in &shown {
        assert!(!ended.stdout.contains(SECRET) && !ended.stderr.contains(SECRET), "{ended}");
        assert!(!ended.stderr.contains("YW5u") && !ended.stdout.contains("YW5u"), "{ended}");
    }
    for path in walk(&project.path("cache")).into_iter().filter(|path| path.is_file()) {
        let text = std::fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains(SECRET) && !text.contains("YW5u"), "{}", path.display());
    }
}

#[test]
fn results_of_runs_without_a_tracker_are_sent_to_one_and_no_key_changes() {
    let server = Server::start(Behaviour::Works);
    let tracked = manifest(&server.address());
    let tracking = format!("[tracking]\nmlflow = \"{}\"\n", server.address());
    let project = Sandbox::new(&tracked.replace(&tracking, ""));
    project.pipeline("run experiment.toml").success();
    let ended = project.pipeline("track --resend experiment.toml");
    assert_eq!(ended.code(), Some(2), "{ended}");
    assert!(ended.stderr.contains("does not name a tracker: add [tracking]"), "{ended}");
    project
        .write("experiment.toml", tracked.replace("mlflow =", "tensorboard = \"runs\"\nmlflow ="));
    assert_eq!(project.pipeline("plan experiment.toml --exit-code").code(), Some(0));
    let ended = project.pipeline("track --resend experiment.toml");
    assert_eq!(ended.code(), Some(0), "{ended}");
    assert!(ended.stdout.contains("/runs/tracked: 2 sent\n"), "{ended}");
    assert_eq!(server.runs(), SCORES);
    let files = walk(&project.path("runs")).into_iter().filter(|path| path.is_file()).count();
    let ended = project.pipeline("track --resend experiment.toml");
    assert_eq!(ended.stdout.matches(": 2 there already\n").count(), 2, "{ended}");
    assert_eq!(walk(&project.path("runs")).iter().filter(|path| path.is_file()).count(), files);
    assert_eq!(files, 2);
}

#[test]
fn addresses_that_are_not_of_servers_are_mistakes() {
    for (address, words) in [
        ("localhost:5000", "is not the address of a server"),
        ("file:mlruns", "is not the address of a server"),
        ("http://h/?a=b", "has a query"),
        ("", "is not the address of a server"),
    ] {
        let ended = Sandbox::new(&manifest(address)).pipeline("plan experiment.toml");
        assert_eq!(ended.code(), Some(2), "{ended}");
        assert!(ended.stderr.contains(words), "{ended}");
        assert!(ended.stderr.contains("mlflow = \"http://localhost:5000\""), "{ended}");
    }
    let help = Sandbox::new("").pipeline("track");
    assert!(help.stderr.contains("--resend"), "{help}");
}

/// A real server, which ends with this.
struct Real(Child);

impl Drop for Real {
    fn drop(&mut self) {
        // The server has workers: they are in its group.
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        let _ = self.0.wait();
    }
}

/// `PIPELINE_MLFLOW_PYTHON` names a Python with mlflow; without it, `python3` is tried.
#[test]
fn the_real_server_has_what_was_measured() {
    use std::os::unix::process::CommandExt;

    let python = std::env::var("PIPELINE_MLFLOW_PYTHON").unwrap_or("python3".to_owned());
    let found = Command::new(&python).args(["-c", "import mlflow"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        return skipped("Python's mlflow is not installed, so no real server was asked");
    }
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("an address").port()
    };
    let project = Sandbox::new(&manifest(&format!("http://127.0.0.1:{port}")));
    let store = format!("sqlite:///{}", project.path("mlflow.db").display());
    let files = project.path("mlflow-files");
    let mut server = Command::new(&python);
    server.args(["-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1", "--port"]);
    server.args([&port.to_string(), "--backend-store-uri", &store, "--artifacts-destination"]);
    server.arg(files).current_dir(project.folder()).env("MLFLOW_DISABLE_TELEMETRY", "true");
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let _server = Real(server.spawn().expect("it starts"));
    let deadline = Instant::now() + Duration::from_secs(150);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "the server did not start");
        std::thread::sleep(Duration::from_millis(200));
    }
    // A server that has just started can be too slow for the end of so short a run.
    project.pipeline("run experiment.toml").success();
    eventually("the server takes everything", || {
        project.pipeline("track --resend experiment.toml").code() == Some(0)
    });
    let again = project.pipeline("track --resend experiment.toml");
    assert!(again.stdout.ends_with(": 2 there already\n"), "{again}");
    let script = "
import sys
from mlflow.tracking import MlflowClient
client = MlflowClient(sys.argv[1])
experiment = client.get_experiment_by_name('tracked')
runs = client.search_runs([experiment.experiment_id])
for run in sorted(runs, key=lambda run: run.info.run_name):
    loss = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, 'curves/loss')]
    files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
    print(run.info.run_name, run.info.status, run.data.params['axis.part'], run.data.metrics['accuracy'], loss, files)
";
    let read = Command::new(&python)
        .args(["-c", script, &format!("http://127.0.0.1:{port}")])
        .output()
        .expect("it starts");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    assert_eq!(
        String::from_utf8_lossy(&read.stdout),
        "score@part=1 FINISHED 1 0.1 [(1, 0.5), (2, 0.25)] ['curves.csv', 'metrics.json']\n\
         score@part=2 FINISHED 2 0.2 [(1, 0.5), (2, 0.25)] ['curves.csv', 'metrics.json']\n"
    );
}

#[test]
fn values_on_the_way_arrive_while_a_stage_runs_and_go_on_after_an_interruption() {
    // A program that is killed cannot say so: its run seems to be running.
    for (signal, state) in [(Signal::INT, "KILLED"), (Signal::KILL, "RUNNING")] {
        interrupted_run_is_continued(signal, state);
    }
}

#[test]
fn values_of_an_attempt_that_failed_arrive_and_the_next_one_goes_on() {
    let server = Server::start(Behaviour::Works);
    let text = format!(
        r#"
[experiment]
name = "tracked"
[tracking]
mlflow = "{}"
[stages.data]
kind = "dataset"
format = "idx"
path = "raw"
[stages.train]
kind = "train"
data = "data"
execution = {{ attempts = 2 }}
"#,
        server.address()
    );
    let project = Sandbox::new(&text).with_fake_learn("out-of-memory");
    let beside = project.path("beside").to_string_lossy().into_owned();
    let project = project.set("FAKE_LEARN_BESIDE", beside).set("FAKE_LEARN_STEPS", "20");
    project.write_idx_images("raw", 4, 2);
    let ended = project.pipeline("run experiment.toml");
    assert!(ended.status.success() && ended.stderr.contains("attempt 2 of 2"), "{ended}");
    let runs = server.runs();
    assert!(runs.len() == 1 && runs[0].starts_with("train FINISHED "), "{runs:?}");
    for step in 1..=20 {
        let count = runs[0].matches(&format!("loss@{step}=")).count();
        assert_eq!(count, 1, "{step}: {runs:?}");
    }
}

fn interrupted_run_is_continued(signal: Signal, state: &str) {
    let server = Server::start(Behaviour::Works);
    let text = format!(
        r#"
[experiment]
name = "tracked"
[tracking]
mlflow = "{}"
[stages.data]
kind = "dataset"
format = "idx"
path = "raw"
[stages.train]
kind = "train"
data = "data"
"#,
        server.address()
    );
    let project = Sandbox::new(&text).with_fake_learn("slow").set("FAKE_LEARN_STEPS", "60");
    project.write_idx_images("raw", 4, 2);
    let running = project.start("run experiment.toml");
    eventually("a value on the server", || server.runs().iter().any(|run| run.contains("loss@")));
    running.signal(signal);
    running.wait();
    let interrupted = server.runs();
    let begins = format!("train {state} [loss@1=");
    let is_as_expected = |run: &String| run.starts_with(&begins);
    assert!(interrupted.len() == 1 && interrupted.iter().all(is_as_expected), "{interrupted:?}");
    project.pipeline("run experiment.toml").success();
    let runs = server.runs();
    assert!(runs.len() == 1 && runs[0].starts_with("train FINISHED "), "{runs:?}");
    for step in 1..=60 {
        let count = runs[0].matches(&format!("loss@{step}=")).count();
        // What was not sent yet when the program was killed is lost.
        let may_be_missing = signal == Signal::KILL && step < 60;
        assert!(count == 1 || count == 0 && may_be_missing, "{step}: {runs:?}");
    }
}
