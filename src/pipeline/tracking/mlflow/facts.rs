//! The tags of a run: what it is a run of, and where it comes from.

use pipeline_stages::url::blanked;

use super::body::Words;
use super::server::{ARTIFACT, CACHE, KEY};
use crate::digest::FieldHasher;
use crate::history::Commit;
use crate::key::KeyPart;
use crate::stage_name::StageName;
use crate::tracking::result::StageResult;
use crate::tracking::tracker::Scene;

/// What is the same for all stages.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    experiment: String,
    manifest: String,
    user: Option<String>,
    host: String,
    /// A word for the cache: the same for the same folder on the same machine.
    pub(super) cache: String,
}

impl Facts {
    pub(super) fn of(scene: &Scene<'_>) -> Self {
        let host = crate::cache::Owner::this_process().host;
        let root = scene.cache.layout().root();
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let cache =
            FieldHasher::new("pipeline cache").text(&host).text(&root.to_string_lossy()).finish();
        Self {
            experiment: scene.experiment.to_owned(),
            manifest: scene.manifest.clone(),
            user: std::env::var("USER").ok().filter(|user| !user.is_empty()),
            host,
            cache: cache.short(),
        }
    }

    /// The tags of a stage that starts.
    pub(super) fn tags(&self, stage: &StageName, kind: &str, commit: Option<&Commit>) -> Words {
        let mut tags = Words::new();
        let mut add =
            |name: &str, value: &str| drop(tags.insert(name.to_owned(), value.to_owned()));
        add("mlflow.source.name", &blanked(&self.manifest));
        add("mlflow.source.type", "LOCAL");
        add("pipeline.experiment", &self.experiment);
        add("pipeline.stage", stage.as_str());
        add("pipeline.template", stage.template());
        add("pipeline.kind", kind);
        add("pipeline.host", &self.host);
        if let Some(user) = &self.user {
            add("mlflow.user", user);
        }
        if let Some(Commit { commit, dirty }) = commit {
            add("mlflow.source.git.commit", commit);
            if let Some(dirty) = dirty {
                add("pipeline.git-dirty", if *dirty { "true" } else { "false" });
            }
        }
        for (axis, value) in stage.point() {
            add(&format!("pipeline.axis.{axis}"), value);
        }
        tags
    }

    /// The tags of a stage that has a result.
    pub(super) fn tags_of(&self, result: &StageResult) -> Words {
        let mut tags = self.tags(&result.stage, result.kind(), result.commit.as_ref());
        let record = &result.record;
        let mut add = |name: &str, value: String| drop(tags.insert(name.to_owned(), value));
        add(KEY, record.key.to_string());
        add(CACHE, self.cache.clone());
        add(ARTIFACT, record.output.digest.to_string());
        add("pipeline.version", record.version.clone());
        add("pipeline.host", record.host.clone());
        if let Some(ran_on) = &record.ran_on {
            add("pipeline.device", ran_on.to_string());
        }
        for part in &record.parts {
            if let KeyPart::Input { port, from, digest } = part {
                add(&format!("pipeline.input.{port}"), format!("{from} {digest}"));
            }
        }
        tags
    }
}
