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
        /// The pre-activation ResNet-18 of DivideMix, ELR+ and SOP, for CIFAR: batch norm and ReLU before each convolution of a block, a 3x3 stem with its own, none behind the last block. Every block adds what its first ReLU returns, where He et al. add the input of the block. 512 features.
        PreactResnet18,
        /// The CIFAR ResNet of depth 6n+2 with n = 5 (16-32-64 channels, option-A shortcuts), 64 features.
        Resnet32,
        /// torchvision's ResNet-50 with the CIFAR stem, 2048 features.
        Resnet50,
        /// torchvision's ResNet-18 as it is, for images of 224 pixels: 7x7 stem of stride 2, max-pool. 512 features.
        Resnet18At224 as "resnet18-224",
        /// torchvision's ResNet-50 as it is, for images of 224 pixels: 7x7 stem of stride 2, max-pool. 2048 features.
        Resnet50At224 as "resnet50-224",
    }
}
