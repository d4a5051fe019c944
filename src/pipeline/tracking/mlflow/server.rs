//! The runs of an experiment on an MLflow server: found by the key of their stage, so that none is made twice, and
//! completed from results.
//!
//! The state of a run says whether it is complete: `FINISHED` is the last thing that is sent of one.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use pipeline_stages::url::WebUrl;
use serde_json::{Value, json};

use super::body::{self, Metric, Words};
use super::client::{Client, Failure, FailureKind, REQUEST};
use crate::tracking::result::StageResult;

/// The tag that has the key of the stage.
pub(super) const KEY: &str = "pipeline.key";
/// The tag that says which cache a run is of. A run that seems to be running can only be continued for the same one: there, only
/// one process works on a key.
pub(super) const CACHE: &str = "pipeline.cache";

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
    /// The last step of each metric.
    last_steps: HashMap<String, u64>,
}

/// What a run is begun with.
pub(super) struct NewRun<'a> {
    pub(super) name: &'a str,
    pub(super) key: String,
    pub(super) cache: &'a str,
    /// Milliseconds since 1970, UTC.
    pub(super) start: u64,
    pub(super) parameters: Words,
    pub(super) tags: Words,
}

/// What is on the server of a key.
pub(super) enum Found {
    /// A complete run.
    Complete,
    /// A run that can be continued.
    Incomplete(OpenRun),
    /// None, or those of others that may still be running.
    Nothing,
}

impl Server {
    pub(super) fn new(server: &WebUrl, experiment: &str) -> Result<Self, Failure> {
        let client = Client::new(server)?;
        Ok(Self { client, name: experiment.to_owned(), experiment: None, limit: REQUEST })
    }

    /// Sets how long requests may take from now on.
    pub(super) fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.client.post(&format!("mlflow/{path}"), body, self.limit)
    }

    /// The number of the experiment, which is made if there is none of its name.
    fn experiment(&mut self) -> Result<String, Failure> {
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

    fn experiment_by_name(&self) -> Result<Option<String>, Failure> {
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
                    return Err(Failure::new(FailureKind::ForAll, reason));
                }
                Ok(Some(id))
            }
            Err(failure) if failure.code == "RESOURCE_DOES_NOT_EXIST" => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Looks for the runs of a key.
    pub(super) fn find(&mut self, key: &str, cache: &str) -> Result<Found, Failure> {
        let experiment = self.experiment()?;
        let found = self.post("runs/search", &body::search(&experiment, KEY, key))?;
        let runs = found.get("runs").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let status = |run: &Value| text(run, &["info", "status"]).unwrap_or_default();
        if runs.iter().any(|run| status(run) == "FINISHED") {
            return Ok(Found::Complete);
        }
        let own =
            |run: &&Value| status(run) != "RUNNING" || tag(run, CACHE).as_deref() == Some(cache);
        runs.iter()
            .find(own)
            .map_or(Ok(Found::Nothing), |run| OpenRun::read(run).map(Found::Incomplete))
    }

    /// Continues the incomplete run of a key, or begins a new one. Repeated after a failure, it does not make two.
    pub(super) fn open(&mut self, new: &NewRun<'_>) -> Result<OpenRun, Failure> {
        let mut run = match self.find(&new.key, new.cache)? {
            Found::Incomplete(run) => {
                self.update(&run, "RUNNING", None)?;
                run
            }
            // The result is made again, because somebody asked for it.
            Found::Complete | Found::Nothing => {
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
        self.log(&run, &parameters, &new.tags, &[])?;
        run.parameters.extend(parameters.into_keys());
        Ok(run)
    }

    fn log(
        &self,
        run: &OpenRun,
        parameters: &Words,
        tags: &Words,
        metrics: &[Metric],
    ) -> Result<(), Failure> {
        for request in body::log_batches(&run.id, parameters, tags, metrics) {
            self.post("runs/log-batch", &request)?;
        }
        Ok(())
    }

    /// Adds what was measured. What the run has already, from before it was interrupted, is left out.
    pub(super) fn add(&self, run: &mut OpenRun, metrics: &[Metric]) -> Result<(), Failure> {
        let new: Vec<Metric> =
            metrics.iter().filter(|metric| run.is_new(metric)).cloned().collect();
        self.log(run, &Words::new(), &Words::new(), &new)?;
        run.now_has(&new);
        Ok(())
    }

    /// Adds tags.
    pub(super) fn tag(&self, run: &OpenRun, tags: &Words) -> Result<(), Failure> {
        self.log(run, &Words::new(), tags, &[])
    }

    /// Says how a run is.
    pub(super) fn update(
        &self,
        run: &OpenRun,
        status: &str,
        end: Option<u64>,
    ) -> Result<(), Failure> {
        let mut request = json!({"run_id": run.id, "status": status});
        if let Some(end) = end {
            request["end_time"] = end.into();
        }
        self.post("runs/update", &request).map(drop)
    }

    /// Adds what a result has, and says last that the run is complete.
    pub(super) fn complete(
        &self,
        run: &mut OpenRun,
        result: &StageResult,
        tags: &Words,
    ) -> Result<(), Failure> {
        let record = &result.record;
        // The end of that second: after what was measured in it.
        let at = record.finished.saturating_mul(1000).saturating_add(999);
        let mut curves = Vec::new();
        for series in result.series() {
            let name = body::name(&series.name);
            curves.extend(series.points.into_iter().map(|(step, value)| Metric {
                name: name.clone(),
                step,
                value,
                at,
            }));
        }
        let parameters = run.new_parameters(&result.parameters());
        self.log(run, &parameters, tags, &[])?;
        self.add(run, &curves)?;
        // The value that MLflow shows is that of the last step.
        let last: Vec<Metric> = record
            .metrics
            .iter()
            .map(|(name, value)| {
                let name = body::name(name);
                let step = run.last_steps.get(&name).copied().unwrap_or(0);
                Metric { name, step, value: *value, at }
            })
            .collect();
        self.log(run, &Words::new(), &Words::new(), &last)?;
        self.put_files(run, result)?;
        self.update(run, "FINISHED", Some(at))
    }

    fn put_files(&self, run: &OpenRun, result: &StageResult) -> Result<(), Failure> {
        let Some(place) = &run.artifacts else { return Ok(()) };
        for (name, path) in result.files() {
            let bytes = std::fs::read(&path).map_err(|error| {
                Failure::new(
                    FailureKind::Lasting,
                    format!("cannot read {}: {error}", path.display()),
                )
            })?;
            let name = encoded(&name);
            let path = format!("mlflow-artifacts/artifacts/{place}/{name}");
            self.client.put(&path, bytes, self.limit)?;
        }
        Ok(())
    }
}

impl OpenRun {
    fn read(run: &Value) -> Result<Self, Failure> {
        let uri = text(run, &["info", "artifact_uri"]).unwrap_or_default();
        let list = |name: &str| {
            let list = run.get("data").and_then(|data| data.get(name)).and_then(Value::as_array);
            list.cloned().unwrap_or_default()
        };
        let parameters = list("params").into_iter();
        let metrics = list("metrics").into_iter().filter_map(|metric| {
            // A number beyond what JavaScript can say is a text in such answers.
            let step = metric.get("step")?;
            let step = step.as_u64().or_else(|| step.as_str()?.parse().ok())?;
            Some((text(&metric, &["key"]).ok()?, step))
        });
        Ok(Self {
            id: text(run, &["info", "run_id"])?,
            artifacts: artifact_path(&uri),
            parameters: parameters.filter_map(|one| text(&one, &["key"]).ok()).collect(),
            last_steps: metrics.collect(),
        })
    }

    fn new_parameters(&self, parameters: &Words) -> Words {
        let new = parameters.iter().map(|(name, value)| (body::name(name), value.clone()));
        new.filter(|(name, _)| !self.parameters.contains(name)).collect()
    }

    fn is_new(&self, metric: &Metric) -> bool {
        self.last_steps.get(&metric.name).is_none_or(|last| metric.step > *last)
    }

    fn now_has(&mut self, metrics: &[Metric]) {
        for metric in metrics {
            let last = self.last_steps.entry(metric.name.clone()).or_insert(metric.step);
            *last = (*last).max(metric.step);
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
fn text(value: &Value, path: &[&str]) -> Result<String, Failure> {
    let found = path.iter().try_fold(value, |value, name| value.get(name)).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| {
        let reason = format!("the answer does not have '{}': is this MLflow?", path.join("."));
        Failure::new(FailureKind::ForAll, reason)
    })
}

fn tag(run: &Value, name: &str) -> Option<String> {
    let tags = run.get("data")?.get("tags")?.as_array()?;
    let tag = tags.iter().find(|tag| text(tag, &["key"]).is_ok_and(|key| key == name))?;
    text(tag, &["value"]).ok()
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
}
