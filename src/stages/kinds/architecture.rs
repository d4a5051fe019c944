//! The encoders that the learning kinds offer.

choices! {
    /// The architecture of an encoder.
    pub enum Architecture {
        /// `resnet8` with a stem of stride 2: a quarter of the work, for two CPU cores. 64 features.
        Resnet8Fast as "resnet8-fast",
        /// The CIFAR ResNet of depth 6n+2 with n = 1 (16-32-64 channels, option-A shortcuts), 64 features.
        Resnet8,
        /// torchvision's ResNet-18 with the CIFAR stem, 512 features.
        Resnet18,
        /// The CIFAR ResNet of depth 6n+2 with n = 5 (16-32-64 channels, option-A shortcuts), 64 features.
        Resnet32,
        /// torchvision's ResNet-50 with the CIFAR stem, 2048 features.
        Resnet50,
    }
}
