//! The precision that the learning kinds compute in.

choices! {
    /// The number format of the network's matrix products and convolutions.
    pub enum Precision {
        /// 32-bit floats throughout, on a GPU too: TF32 is off.
        F32,
        /// As `f32`, but a GPU may round the factors of convolutions to TF32, which has 10 bits after the leading one instead of 23. For NVIDIA's GPUs since Ampere; on others, and on a CPU, it is `f32`.
        Tf32,
        /// Convolutions and linear layers in bfloat16; weights, statistics, losses and the optimizer stay in 32-bit floats. For GPUs and for CPUs with bfloat16 instructions; slow on others.
        Bf16,
    }
}

impl Precision {
    /// The version of results in this precision, where it is not that of the kind, which is `version`: matrix products
    /// were rounded to TF32 too, in that version.
    pub(super) fn newer_than(self, version: u32) -> Option<u32> {
        (self == Self::Tf32).then_some(version + 1)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn matrix_products_are_exact_in_newer_versions_alone() {
        let version = |kind: &str, precision: &str| {
            let parameters = json!({"precision": precision});
            crate::KindConfig::read(kind, parameters).unwrap().unwrap().version()
        };
        for (kind, expected) in
            [("train", 6), ("pretrain-simclr", 6), ("pretrain-supervised", 5), ("probe", 4)]
        {
            let versions = ["f32", "bf16", "tf32"].map(|precision| version(kind, precision));
            assert_eq!(versions, [expected, expected, expected + 1], "{kind}");
        }
    }
}
