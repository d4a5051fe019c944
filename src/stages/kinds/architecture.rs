//! The encoders that the learning kinds offer.

choices! {
    /// The architecture of an encoder.
    pub enum Architecture {
        /// For two CPU cores: depth 8, a 3x3 stem with stride 2, one basic block each of 32, 64 and 128 channels, option-A shortcuts; 128 features.
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
