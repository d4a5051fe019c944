//! The runs of an experiment on an MLflow server: found by the key of their stage, so that none is made twice, and
//! completed from results.
//!
//! A run is complete if it is `FINISHED`, is of the artifact of the result, and nothing of it is missing: that is said last.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline_stages::url::WebUrl;
use serde_json::{Value, json};

use super::body::{self, Metric, Words};
use super::client::{Client, REQUEST, RequestFailure, RequestFailureKind};
use crate::tracking::result::StageResult;

/// The tag that has the key of the stage.
pub(super) const KEY: &str = "pipeline.key";
/// The tag that says which cache a run is of. A run that seems to be running can only be continued for the same one: there, only
/// one process works on a key.
pub(super) const CACHE: &str = "pipeline.cache";
/// The tag that has the digest of the artifact whose numbers a run has.
pub(super) const ARTIFACT: &str = "pipeline.artifact";
/// The tag that says whether a result has arrived: `false` before anything is sent of it, and `true` after everything.
const COMPLETE: &str = "pipeline.complete";

/// A server, and an experiment on it.
pub(super) struct Server {
    client: Client,
    name: String,
    /// Its number on the server, once it is known.
    experiment: Option<String>,
    /// How long the next request may take.
    limit: Duration,
}

/// A run to which something can be added.
#[derive(Debug, Default)]
pub(super) struct OpenRun {
    id: String,
    /// Where its files are put, where that is possible through the server.
    artifacts: Option<String>,
    /// The parameters that it has, which cannot be changed.
    parameters: BTreeSet<String>,
    /// The last value of each metric: its step, and when it was measured.
    last: HashMap<String, (u64, u64)>,
    /// Why some of what it was begun with did not arrive. A result brings it again.
    refusal: Option<RequestFailure>,
}

/// The files of a result on their way.
pub(super) struct Files {
    run: OpenRun,
    left: VecDeque<(String, PathBuf)>,
    /// Those that the server refused, with the reasons.
    pub(super) refused: Vec<String>,
}

/// What a run is begun with.
pub(super) struct NewRun<'a> {
    pub(super) name: &'a str,
    pub(super) key: String,
    /// The artifact, where there is one already.
    pub(super) artifact: Option<String>,
    pub(super) cache: &'a str,
    /// Milliseconds since 1970, UTC.
    pub(super) start: u64,
    pub(super) parameters: Words,
    pub(super) tags: Words,
}

/// What is on the server of a key, and of an artifact.
#[derive(Debug)]
enum OnServer {
    /// A complete run.
    Complete,
    /// A run that can be continued.
    Incomplete(OpenRun),
    /// None, or those of other artifacts, or of others that may still be running.
    Nothing,
}

impl Server {
    pub(super) fn new(server: &WebUrl, experiment: &str) -> Result<Self, RequestFailure> {
        let client = Client::new(server)?;
        Ok(Self { client, name: experiment.to_owned(), experiment: None, limit: REQUEST })
    }

    /// Sets how long requests may take from now on.
    pub(super) fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, RequestFailure> {
        self.client.post(&format!("mlflow/{path}"), body, self.limit)
    }

    /// The number of the experiment, which is made if there is none of its name.
    fn experiment(&mut self) -> Result<String, RequestFailure> {
        if let Some(known) = &self.experiment {
            return Ok(known.clone());
        }
        let found = match self.experiment_by_name()? {
            Some(found) => found,
            None => match self.post("experiments/create", &json!({"name": self.name})) {
                Ok(made) => text(&made, &["experiment_id"])?,
                // Somebody else made it meanwhile.
                Err(failure) if failure.code == "RESOURCE_ALREADY_EXISTS" => {
                    self.experiment_by_name()?.ok_or(failure)?
                }
                Err(failure) => return Err(failure),
            },
        };
        self.experiment = Some(found.clone());
        Ok(found)
    }

    fn experiment_by_name(&self) -> Result<Option<String>, RequestFailure> {
        let path = "mlflow/experiments/get-by-name";
        match self.client.get(path, ("experiment_name", &self.name), self.limit) {
            Ok(found) => {
                let id = text(&found, &["experiment", "experiment_id"])?;
                if text(&found, &["experiment", "lifecycle_stage"]).is_ok_and(|it| it == "deleted")
                {
                    let reason = format!(
                        "its experiment '{}' was deleted: restore it (mlflow experiments restore --experiment-id {id}), \
                         delete it for good (mlflow gc), or rename the experiment in the manifest",
                        self.name
                    );
                    return Err(RequestFailure::new(RequestFailureKind::ForAll, reason));
                }
                Ok(Some(id))
            }
            Err(failure) if failure.code == "RESOURCE_DOES_NOT_EXIST" => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Looks for the runs of a key.
    fn find(&mut self, new: &NewRun<'_>) -> Result<OnServer, RequestFailure> {
        let experiment = self.experiment()?;
        let found = self.post("runs/search", &body::search(&experiment, KEY, &new.key))?;
        choose(runs_of(&found), new)
    }

    /// Continues the incomplete run of a key, or begins a new one. Repeated after a failure, it does not make two. `None` where
    /// the artifact has a complete run.
    pub(super) fn open(&mut self, new: &NewRun<'_>) -> Result<Option<OpenRun>, RequestFailure> {
        let mut run = match self.find(new)? {
            OnServer::Complete => return Ok(None),
            OnServer::Incomplete(run) => {
                self.update(&run, "RUNNING", None)?;
                run
            }
            OnServer::Nothing => {
                let experiment = self.experiment()?;
                let key = Words::from([
                    (KEY.to_owned(), new.key.clone()),
                    (CACHE.to_owned(), new.cache.to_owned()),
                ]);
                let made = body::create_run(&experiment, new.name, new.start, &key);
                let made = self.post("runs/create", &made)?;
                OpenRun::read(made.get("run").unwrap_or(&Value::Null))?
            }
        };
        let parameters = run.new_parameters(&new.parameters);
        let mut refusal = None;
        later(self.log(&run, &parameters, &new.tags), &mut refusal)?;
        if refusal.is_none() {
            run.parameters.extend(parameters.into_keys());
        }
        run.refusal = refusal;
        Ok(Some(run))
    }

    /// Sends all this. A request that the server refuses does not hold up the others.
    fn log(&self, run: &OpenRun, parameters: &Words, tags: &Words) -> Result<(), RequestFailure> {
        let mut refusal = None;
        for request in body::words_requests(&run.id, parameters, tags) {
            later(self.post("runs/log-batch", &request).map(drop), &mut refusal)?;
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Sends these values. A request that the server refuses holds up only later values of the metrics in it: what a run has of a
    /// metric is everything up to its last step.
    fn log_metrics(
        &self,
        run: &mut OpenRun,
        mut metrics: Vec<Metric>,
    ) -> Result<(), RequestFailure> {
        let mut refusal = None;
        while !metrics.is_empty() {
            let (request, count) = body::metrics_request(&run.id, &metrics);
            let mut rest = metrics.split_off(count);
            let sent = self.post("runs/log-batch", &request).map(drop);
            match sent {
                Ok(()) => run.now_has(&metrics),
                Err(_) => {
                    let refused: BTreeSet<&str> =
                        metrics.iter().map(|metric| metric.name.as_str()).collect();
                    rest.retain(|metric| !refused.contains(metric.name.as_str()));
                }
            }
            later(sent, &mut refusal)?;
            metrics = rest;
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Adds what was measured. What the run has already, from before it was interrupted, is left out.
    pub(super) fn add(&self, run: &mut OpenRun, metrics: &[Metric]) -> Result<(), RequestFailure> {
        let new: Vec<Metric> =
            metrics.iter().filter(|metric| run.is_new(metric)).cloned().collect();
        self.log_metrics(run, new)
    }

    fn tag(&self, run: &OpenRun, tags: &Words) -> Result<(), RequestFailure> {
        self.log(run, &Words::new(), tags)
    }

    fn update(&self, run: &OpenRun, status: &str, end: Option<u64>) -> Result<(), RequestFailure> {
        let mut request = json!({"run_id": run.id, "status": status});
        if let Some(end) = end {
            request["end_time"] = end.into();
        }
        self.post("runs/update", &request).map(drop)
    }

    /// Says how a run without a result ended.
    pub(super) fn end(
        &self,
        run: &OpenRun,
        tags: &Words,
        status: &str,
        at: u64,
    ) -> Result<(), RequestFailure> {
        let mut refusal = run.refusal.clone();
        later(self.tag(run, tags), &mut refusal)?;
        self.update(run, status, Some(at))?;
        refusal.map_or(Ok(()), Err)
    }

    /// Adds what a result has, but for its files, and says that the run is finished. What the server refuses does not hold up
    /// the rest.
    pub(super) fn finish(
        &self,
        run: &mut OpenRun,
        result: &StageResult,
        mut tags: Words,
    ) -> Result<(), RequestFailure> {
        let record = &result.record;
        // The end of that second: after what was measured in it.
        let at = record.finished.saturating_mul(1000).saturating_add(999);
        let series = result.series();
        let texts = series.iter().map(|series| &series.name).chain(record.metrics.keys());
        let names = body::names(texts.map(String::as_str));
        let mut curves = Vec::new();
        for series in &series {
            curves.extend(series.points.iter().map(|&(step, value)| Metric {
                name: names[series.name.as_str()].clone(),
                step,
                value,
                at,
            }));
        }
        let mut refusal = None;
        tags.insert(COMPLETE.to_owned(), "false".to_owned());
        let parameters = run.new_parameters(&result.parameters());
        later(self.log(run, &parameters, &tags), &mut refusal)?;
        later(self.add(run, &curves), &mut refusal)?;
        // The value that MLflow shows is that of the last step.
        let last = record.metrics.iter().map(|(name, value)| {
            let name = names[name.as_str()].clone();
            let step = run.last.get(&name).map_or(0, |(step, _)| *step);
            Metric { name, step, value: *value, at }
        });
        let is_new = |metric: &Metric| run.last.get(&metric.name) != Some(&(metric.step, at));
        let last: Vec<Metric> = last.filter(|metric| is_new(metric)).collect();
        later(self.log_metrics(run, last), &mut refusal)?;
        self.update(run, "FINISHED", Some(at))?;
        refusal.map_or(Ok(()), Err)
    }

    /// Sends the next of these files, and says last that the run is complete. Returns whether it is. A file that the server
    /// does not take, whoever sends it, is left out.
    pub(super) fn put_next(&self, files: &mut Files) -> Result<bool, RequestFailure> {
        let Some((name, path)) = files.left.front() else {
            let complete = Words::from([(COMPLETE.to_owned(), "true".to_owned())]);
            return self.tag(&files.run, &complete).map(|()| true);
        };
        match self.put(&files.run, name, path) {
            Err(RequestFailure { kind: RequestFailureKind::Content, reason, .. }) => {
                files.refused.push(format!("the file '{name}': {reason}"));
            }
            put => put?,
        }
        files.left.pop_front();
        Ok(false)
    }

    fn put(&self, run: &OpenRun, name: &str, path: &Path) -> Result<(), RequestFailure> {
        let Some(place) = &run.artifacts else { return Ok(()) };
        let bytes = std::fs::read(path).map_err(|error| {
            let reason = format!("cannot read {}: {error}", path.display());
            RequestFailure::new(RequestFailureKind::Lasting, reason)
        })?;
        let path = format!("mlflow-artifacts/artifacts/{place}/{}", encoded(name));
        self.client.put(&path, bytes, self.limit)
    }
}

impl Files {
    /// Those of a result, for its run.
    pub(super) fn new(run: OpenRun, result: &StageResult) -> Self {
        let left = if run.artifacts.is_some() { result.files().into() } else { VecDeque::new() };
        Self { run, left, refused: Vec::new() }
    }
}

/// Keeps the first failure of one request for later. Others are returned.
fn later(
    sent: Result<(), RequestFailure>,
    refusal: &mut Option<RequestFailure>,
) -> Result<(), RequestFailure> {
    match sent {
        Err(failure) if failure.is_of_one_request() => {
            refusal.get_or_insert(failure);
            Ok(())
        }
        sent => sent,
    }
}

/// The runs in what a server answers to a search.
fn runs_of(found: &Value) -> &[Value] {
    found.get("runs").and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
}

/// What these runs of a key, the newest first, mean for a new one.
fn choose(runs: &[Value], new: &NewRun<'_>) -> Result<OnServer, RequestFailure> {
    let status = |run: &Value| text(run, &["info", "status"]).unwrap_or_default();
    let is_of_artifact =
        |run: &Value| tag(run, ARTIFACT).is_some() && tag(run, ARTIFACT) == new.artifact;
    let is_complete =
        |run: &Value| status(run) == "FINISHED" && tag(run, COMPLETE).as_deref() != Some("false");
    if runs.iter().any(|run| is_complete(run) && is_of_artifact(run)) {
        return Ok(OnServer::Complete);
    }
    let is_own =
        |run: &Value| status(run) != "RUNNING" || tag(run, CACHE).as_deref() == Some(new.cache);
    let is_free = |run: &Value| tag(run, ARTIFACT).is_none() || is_of_artifact(run);
    let found = runs.iter().find(|run| is_own(run) && is_free(run));
    found.map_or(Ok(OnServer::Nothing), |run| OpenRun::read(run).map(OnServer::Incomplete))
}

impl OpenRun {
    fn read(run: &Value) -> Result<Self, RequestFailure> {
        let uri = text(run, &["info", "artifact_uri"]).unwrap_or_default();
        let list = |name: &str| {
            let list = run.get("data").and_then(|data| data.get(name)).and_then(Value::as_array);
            list.cloned().unwrap_or_default()
        };
        let parameters = list("params").into_iter();
        let metrics = list("metrics").into_iter().filter_map(|metric| {
            // A number beyond what JavaScript can say is a text in such answers.
            let number = |name: &str| {
                let number = metric.get(name)?;
                number.as_u64().or_else(|| number.as_str()?.parse().ok())
            };
            let last = (number("step")?, number("timestamp").unwrap_or(0));
            Some((text(&metric, &["key"]).ok()?, last))
        });
        Ok(Self {
            id: text(run, &["info", "run_id"])?,
            artifacts: artifact_path(&uri),
            parameters: parameters.filter_map(|one| text(&one, &["key"]).ok()).collect(),
            last: metrics.collect(),
            refusal: None,
        })
    }

    fn new_parameters(&self, parameters: &Words) -> Words {
        let mut names = body::names(parameters.keys().map(String::as_str));
        let new = parameters
            .iter()
            .filter_map(|(name, value)| Some((names.remove(name.as_str())?, value.clone())));
        new.filter(|(name, _)| !self.parameters.contains(name)).collect()
    }

    fn is_new(&self, metric: &Metric) -> bool {
        self.last.get(&metric.name).is_none_or(|(last, _)| metric.step > *last)
    }

    fn now_has(&mut self, metrics: &[Metric]) {
        for metric in metrics {
            let new = (metric.step, metric.at);
            let last = self.last.entry(metric.name.clone()).or_insert(new);
            *last = (*last).max(new);
        }
    }
}

/// Where the server stores the files of a run, if it does that itself: `mlflow-artifacts:/1/<run>/artifacts`. Others are in a store of
/// their own, to which only its client can write.
fn artifact_path(uri: &str) -> Option<String> {
    let rest = uri.strip_prefix("mlflow-artifacts:")?;
    let path = match rest.strip_prefix("//") {
        Some(rest) => rest.split_once('/')?.1,
        None => rest,
    };
    let path = path.trim_matches('/');
    let is_plain = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    path.split('/').all(is_plain).then(|| path.to_owned())
}

/// A name as a part of a URL.
fn encoded(name: &str) -> String {
    let encode = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    name.bytes().map(encode).collect()
}

/// A text in an answer.
fn text(value: &Value, path: &[&str]) -> Result<String, RequestFailure> {
    let found = path.iter().try_fold(value, |value, name| value.get(name)).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| {
        let reason = format!("the answer does not have '{}': is this MLflow?", path.join("."));
        RequestFailure::new(RequestFailureKind::ForAll, reason)
    })
}

fn tag(run: &Value, name: &str) -> Option<String> {
    let tags = run.get("data")?.get("tags")?.as_array()?;
    let tag = tags.iter().find(|tag| text(tag, &["key"]).is_ok_and(|key| key == name))?;
    text(tag, &["value"]).ok()
}

/// Whether a text is what a server answers that has found or made a run. For fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn is_answer(text: &str) -> bool {
    use super::client::{LONGEST_MESSAGE, read_answer};

    for status in [400, 401, 403, 404, 500, 503] {
        let failure = read_answer(status, text, true, "").expect_err("a failure");
        assert!(failure.reason.chars().count() < LONGEST_MESSAGE + 200);
    }
    let Ok(answer) = read_answer(200, text, true, "") else { return false };
    let has = |path: &[&str]| self::text(&answer, path).is_ok();
    let is_experiment = has(&["experiment_id"]) || has(&["experiment", "experiment_id"]);
    let new = NewRun {
        name: "train",
        key: "k".to_owned(),
        artifact: Some("a".to_owned()),
        cache: "c",
        start: 0,
        parameters: Words::new(),
        tags: Words::new(),
    };
    let mut runs = Vec::new();
    match choose(runs_of(&answer), &new) {
        Ok(OnServer::Incomplete(run)) => runs.push(run),
        Ok(OnServer::Complete) => return true,
        Ok(OnServer::Nothing) | Err(_) => {}
    }
    runs.extend(answer.get("run").and_then(|run| OpenRun::read(run).ok()));
    for run in &mut runs {
        run.check();
    }
    is_experiment || !runs.is_empty()
}

#[cfg(any(test, feature = "fuzzing"))]
impl OpenRun {
    /// That what is sent after this answer is not sent again, and goes where the server said. For fuzzing.
    fn check(&mut self) {
        let at =
            |(name, step): (&String, u64)| Metric { name: name.clone(), step, value: 0.0, at: 1 };
        let known: Vec<Metric> =
            self.last.iter().map(|(name, (step, _))| at((name, *step))).collect();
        self.now_has(&known);
        assert!(!known.iter().any(|metric| self.is_new(metric)));
        let sent = self.parameters.iter().map(|name| (name.clone(), String::new())).collect();
        let new = self.new_parameters(&sent);
        assert!(new.keys().all(|name| !self.parameters.contains(name)));
        let Some(place) = &self.artifacts else { return };
        let path = format!("/artifacts/{place}/{}", encoded("a b"));
        let url: ureq::http::Uri = path.parse().expect("a path");
        assert_eq!(url.path(), path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_put_only_where_the_server_stores_them() {
        for (uri, expected) in [
            ("mlflow-artifacts:/1/ab/artifacts", Some("1/ab/artifacts")),
            ("mlflow-artifacts://host:5000/1/ab/artifacts", Some("1/ab/artifacts")),
            ("mlflow-artifacts:/1/../../artifacts", None),
            ("mlflow-artifacts:", None),
            ("s3://bucket/1/ab/artifacts", None),
            ("/srv/mlruns/1/ab/artifacts", None),
            ("", None),
        ] {
            assert_eq!(artifact_path(uri).as_deref(), expected, "{uri}");
        }
        assert_eq!(encoded("a b/ü?.csv"), "a%20b%2F%C3%BC%3F.csv");
    }

    #[test]
    fn what_a_run_has_is_not_sent_again() {
        let answer = json!({
            "info": {"run_id": "r", "artifact_uri": "file:///x", "status": "KILLED"},
            "data": {
                "metrics": [{"key": "loss", "value": 1.0, "step": 3}, {"key": "big", "step": "9"}],
                "params": [{"key": "rate", "value": "1"}],
                "tags": [{"key": CACHE, "value": "c"}],
            },
        });
        let mut run = OpenRun::read(&answer).expect("a run");
        assert_eq!(tag(&answer, CACHE).as_deref(), Some("c"));
        let metric = |name: &str, step| Metric { name: name.to_owned(), step, value: 0.0, at: 0 };
        assert!(!run.is_new(&metric("loss", 3)) && run.is_new(&metric("loss", 4)));
        assert!(!run.is_new(&metric("big", 9)) && run.is_new(&metric("other", 0)));
        run.now_has(&[metric("loss", 7), metric("loss", 5)]);
        assert!(!run.is_new(&metric("loss", 7)));
        let words =
            Words::from([("rate".to_owned(), "2".to_owned()), ("a@b".to_owned(), "c".to_owned())]);
        assert_eq!(run.new_parameters(&words).into_keys().collect::<Vec<_>>(), ["a_b"]);
        assert!(OpenRun::read(&json!({})).is_err());
    }

    #[test]
    fn a_run_is_of_one_artifact() {
        let run = |id: &str, status: &str, tags: &[(&str, &str)]| {
            let tags = tags.iter().map(|(key, value)| json!({"key": key, "value": value}));
            let tags = tags.collect::<Vec<_>>();
            json!({"info": {"run_id": id, "status": status}, "data": {"tags": tags}})
        };
        let old = run("old", "FINISHED", &[(ARTIFACT, "1")]);
        let part = run("part", "FINISHED", &[(ARTIFACT, "1"), (COMPLETE, "false")]);
        let whole = run("whole", "FINISHED", &[(ARTIFACT, "1"), (COMPLETE, "true")]);
        let killed = run("killed", "KILLED", &[]);
        let other = run("other", "RUNNING", &[(CACHE, "d")]);
        let own = run("own", "RUNNING", &[(CACHE, "c")]);
        let sent = run("sent", "RUNNING", &[(CACHE, "c"), (ARTIFACT, "1")]);
        for (runs, artifact, expected) in [
            (vec![&old], Some("1"), "complete"),
            (vec![&part, &whole], Some("1"), "complete"),
            (vec![&old], Some("2"), "nothing"),
            (vec![&whole], None, "nothing"),
            (vec![&part], Some("1"), "part"),
            (vec![&part], Some("2"), "nothing"),
            (vec![&part], None, "nothing"),
            (vec![&whole, &killed], None, "killed"),
            (vec![&other, &own], None, "own"),
            (vec![&other], None, "nothing"),
            (vec![&sent], Some("1"), "sent"),
            (vec![&sent], None, "nothing"),
        ] {
            let new = NewRun {
                name: "a",
                key: String::new(),
                artifact: artifact.map(str::to_owned),
                cache: "c",
                start: 0,
                parameters: Words::new(),
                tags: Words::new(),
            };
            let runs: Vec<Value> = runs.into_iter().cloned().collect();
            let found = match choose(&runs, &new).expect("runs") {
                OnServer::Complete => "complete".to_owned(),
                OnServer::Nothing => "nothing".to_owned(),
                OnServer::Incomplete(run) => run.id,
            };
            assert_eq!(found, expected, "{runs:?} {artifact:?}");
        }
    }
}
