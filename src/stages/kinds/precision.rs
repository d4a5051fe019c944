//! The precision that the learning kinds compute in.

choices! {
    /// The floating-point numbers of the network's large products.
    pub enum Precision {
        /// 32-bit floats throughout.
        F32,
        /// Convolutions and linear layers in bfloat16; weights, statistics, losses and the optimizer stay in 32-bit floats. For GPUs and for CPUs with bfloat16 instructions; slow on others.
        Bf16,
    }
}
