//! The types of artifacts: what a stage produces and what a port takes.

choices! {
    /// What the output directory of a stage holds.
    pub enum ArtifactType {
        /// One file.
        File,
        /// Any folder of files.
        Directory,
        /// Images and labels: `train.safetensors`, `test.safetensors`, `dataset.json`.
        Dataset,
        /// Which training samples train and which are held out: `split.safetensors`.
        Split,
        /// One label per training sample: `labels.safetensors`, `noise.json`.
        Labels,
        /// An encoder: `weights.safetensors`, `model.json`.
        Weights,
        /// An encoder with its classifier: `weights.safetensors`, `model.json`.
        Model,
        /// The features of every sample: `features.safetensors`, `features.json`.
        Features,
        /// Numbers: `metrics.json`, and curves as `*.csv`.
        Metrics,
    }
}
