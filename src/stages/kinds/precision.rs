//! The precision that the learning kinds compute in.

choices! {
    /// The number format of the network's matrix products and convolutions.
    pub enum Precision {
        /// 32-bit floats throughout, on a GPU too: TF32 is off.
        F32,
        /// As `f32`, but a GPU may round the factors of matrix products and convolutions to TF32, which has 10 bits after the leading one instead of 23. For NVIDIA's GPUs since Ampere; on others, and on a CPU, it is `f32`.
        Tf32,
        /// Convolutions and linear layers in bfloat16; weights, statistics, losses and the optimizer stay in 32-bit floats. For GPUs and for CPUs with bfloat16 instructions; slow on others.
        Bf16,
    }
}
