//! The precision that the learning kinds compute in.

choices! {
    /// The number format of the network's matrix products and convolutions.
    pub enum Precision {
        /// 32-bit floats throughout.
        F32,
        /// Convolutions and linear layers in bfloat16; weights, statistics, losses and the optimizer stay in 32-bit floats. For GPUs and for CPUs with bfloat16 instructions; slow on others.
        Bf16,
    }
}
